"""The page of a run: its figures, pictures to filter, the heat map to point at, what repeats it and what made it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from icm_pipeline.images.table import read_table
from icm_pipeline.report.audit_page import READ, claim_cells
from icm_pipeline.report.html.charts import Axis, Chart, Spot, chart
from icm_pipeline.report.html.gallery import Gallery, Shown, most_telling
from icm_pipeline.report.html.heat_map import heat_map, ranked
from icm_pipeline.report.html.page import write_html
from icm_pipeline.report.provenance import provenance
from icm_pipeline.report.rows import COMPARISON, comparison_rows, figure_rows, interval_text
from icm_pipeline.report.wording import cautions, describe, title_of
from icm_pipeline.results.comparisons import Compared
from icm_pipeline.results.evaluation import Evaluation, Interval
from icm_pipeline.results.images import read_steered
from icm_pipeline.results.scores import Scores
from icm_pipeline.results.verdicts import Verdicts
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.text import count_text, number_text

MOST_PAIRS = 240  # of more than these the page would grow past what is mailed
MOST_RANKED = 40  # layers of the ranking that are printed on paper


@dataclass(frozen=True)
class Run:
    """What the page of a run is made from."""

    this: Compared
    results: Sequence[Compared]
    """This evaluation and those it is compared with."""
    usual: Sequence[str]
    """The settings of most of them."""
    artifacts: Mapping[str, Artifact]
    """By stage, in order; of the audit too, if there is one."""
    command: str
    """What makes the report again."""


@dataclass(frozen=True)
class Card:
    """A figure to read first."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Gauge:
    """FD of a prompt before and after; places in per cent of the scale."""

    name: str
    before: float
    after: float
    texts: tuple[str, str]
    span: Interval | None = None


def write_run_page(path: Path, run: Run) -> Path:
    """Write the page of a run."""
    this, scores, steered = run.this, Scores.read(run.artifacts["probe"]), run.this.steering.layers
    gallery, num_images = _gallery(run)
    audit = run.artifacts.get("audit")
    claims = [] if audit is None else Verdicts.read(audit).claims
    return write_html(
        path, "run.html.j2", gallery, heat_map(scores, steered),
        title=title_of(this.evaluation, this.told), subtitle=_subtitle(this.evaluation),
        cards=_cards(this),
        cautions=cautions(this.evaluation), gauges=_gauges(this.evaluation), num_images=num_images,
        ranking=ranked(scores, steered), most_ranked=MOST_RANKED,
        comparison=_comparison(run.results, this.key) if len(run.results) > 1 else None,
        comparison_titles=COMPARISON, comparison_rows=comparison_rows(run.results), usual=run.usual,
        claim_titles=READ, claims=[(claim.finding.claim, claim_cells(claim)) for claim in claims],
        figures=figure_rows(this), commands=_commands(run.command), provenance=provenance(run.artifacts.values()),
    )  # fmt: skip


def _gallery(run: Run) -> tuple[Gallery, int]:
    """Return the pictures to show, and how many pairs there are."""
    rows, judged = read_table(run.artifacts["steer"]), read_steered(run.artifacts["evaluate"])
    twins = {row.image_id: row for row in most_telling(rows, judged, MOST_PAIRS)}
    gallery = Gallery()
    originals = [row for row in read_table(run.artifacts["originals"]) if row.image_id in twins]
    number = gallery.add_originals(originals)
    gallery.shown.append(Shown("this", "", "", number, gallery.twins_of(number, twins, judged)))
    return gallery, len(rows)


def _subtitle(found: Evaluation) -> str:
    prompts = count_text(len(found.after.by_prompt), "prompt")
    return f"{count_text(found.num_images, 'image')} of {prompts}, each made twice with the same seed"


def _cards(this: Compared) -> list[Card]:
    found, fair = this.evaluation, this.evaluation.fairness
    assert fair.fd_change is not None
    obeyed = ", ".join(f"{option} {share:.0%}" for option, share in found.obeyed_by_option.items())
    low, high = found.after.interval_95
    return [
        Card("FD, mean over prompts", f"{found.before.mean:.3f} \N{RIGHTWARDS ARROW} {found.after.mean:.3f}",
             f"95 %: {low:.3f} to {high:.3f}; a perfect steerer {number_text(fair.fd_floor, '.3f')}"),
        Card("change of FD", f"{fair.fd_change.mean:+z.3f}",
             f"95 % of pairs: {interval_text(fair.fd_change.interval_95)}"),
        Card("CLIP-I", f"{found.clip_i:.3f}", "to the unsteered twins; 1 is no change"),
        Card("show their option", number_text(found.obeyed, ".1%"), obeyed or "no option was drawn"),
    ]  # fmt: skip


def _gauges(found: Evaluation) -> list[Gauge]:
    before, after = found.before, found.after
    axis = Axis.around("FD", [*before.by_prompt.values(), *after.by_prompt.values(), after.interval_95[1]], zero=True)
    pairs = [(prompt, before.by_prompt[prompt], value, None) for prompt, value in after.by_prompt.items()]
    low, high = after.interval_95
    return [
        Gauge(name, axis.place(was), axis.place(now), (f"{was:.3f}", f"{now:.3f}"), span)
        for name, was, now, span in [*pairs, ("mean", before.mean, after.mean, (axis.place(low), axis.place(high)))]
    ]


def _comparison(results: Sequence[Compared], this_key: str) -> Chart:
    """Return the runs as points; a point's name is the number of its row in the table."""
    spots = [
        Spot(
            str(number), str(number), f"{describe(row.steering, row.told)}: FD {row.place[0]:.3f}, CLIP-I "
            f"{row.place[1]:.3f}", *row.place, row.evaluation.after.interval_95, row.key == this_key,
        )
        for number, row in enumerate(results, 1)
    ]  # fmt: skip
    original = results[0].evaluation.before.mean
    x = Axis.around("FD, mean over prompts (lower is better)", [original, *(spot.x for spot in spots)], zero=True)
    y = Axis.around("CLIP-I (higher is better)", [spot.y for spot in spots])
    return chart("Ways of steering: how fair against how much of the picture stays", x, y, spots, original=original)


def _commands(command: str) -> list[tuple[str, str]]:
    """Return what repeats the run and its report, each after what it does; nothing where it is not known."""
    if not command:
        return []
    whole = shlex.join(word for word in shlex.split(command) if word != "stage=report")
    return [("everything that is not there yet", whole), ("this report alone", f"{command} force=true")]
