"""Is self-attention's lead particular to the choice that a prompt leaves open?

The same probes tell (a) an option that the prompt names, (b) the occupation that it names, and (c) which template it
was made from. All leads are of balanced accuracy, scaled so that chance is 0 and no error 1, of probes equally wide and
fitted to equally many images, on prompts that they were not fitted to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.config.schema import AttributeConfig
from icm_pipeline.evaluation.claims.base import NOT_NAMED, AuditInputs
from icm_pipeline.evaluation.claims.readings import CROSS, SELF, Readings, Recorded, probe_readings, share_right
from icm_pipeline.generation.jobs import audited_steps, fill_templates
from icm_pipeline.generation.named import NamedPrompt, named_prompts
from icm_pipeline.images.table import read_table
from icm_pipeline.localization.many_probes import Problem
from icm_pipeline.localization.repeated import repeated_folds
from icm_pipeline.metrics.resampling import Estimate, clustered, pseudo_values
from icm_pipeline.results.verdicts import Finding, Found, Table, possible

LEAST = 0.05  # of the way from chance to no error: a smaller difference is what another sample of layers could give
LEAST_APART = 0.1  # above chance; the paper finds 0.06 to 0.39
ENOUGH = 40  # images that a control needs
NO_CROSS = "the model records no self-attention and cross-attention layers to compare."
CONTROLS = {
    "option_named": "an option that the prompt names", "occupation": "an occupation that the prompt names",
    "wording": "the prompt's wording",
}  # fmt: skip
APART = "implicit.mechanisms_differ"
COLUMNS = ["control", "what is told", "kind", "scaled accuracy", "low", "high", "images"]


@dataclass(frozen=True)
class Lead:
    """Self-attention's lead over cross-attention, and what both tell, above chance as a share of 1 - chance."""

    lead: Estimate
    by_image: Floats
    """[n], whose mean is the lead."""
    told: dict[str, Estimate]
    """By kind."""
    num: int
    """Images that each repetition fits to or holds out."""


def found(inputs: AuditInputs) -> Found:
    readings = probe_readings(inputs)
    named, left_out = _named_prompts(inputs), dict[str, str]()
    controls = _controls(inputs, readings, named)
    if not (readings.layers_of(SELF) and readings.layers_of(CROSS)):
        left_out |= {f"implicit.more_than_{name}": NO_CROSS for name in CONTROLS}
        controls = {}
    elif not named:
        left_out |= {f"implicit.more_than_{name}": NOT_NAMED for name in CONTROLS if name not in controls}
    findings, rows = list[Finding](), list[list[str | float]]()
    for name, control in controls.items():
        if (num := min(len(control.labels), len(readings.labels))) < ENOUGH:
            left_out[f"implicit.more_than_{name}"] = (
                f"{num} images of it are too few; it takes {ENOUGH} "
                f"(audit.sizes.{inputs.settings.audit.size}.named_images)."
            )
            continue
        more = len(readings.labels) / num  # C counts a sum over images: of fewer it would fit less closely
        try:
            ours, theirs = (_lead(inputs, each, num, name, more) for each in (readings, control))
        except ValueError as error:
            left_out[f"implicit.more_than_{name}"] = str(error)
            continue
        findings.append(_finding(inputs, readings, name, ours, theirs))
        for what, each in (("left open", ours), (name, theirs)):
            rows += [[name, what, kind, told.value, *told.interval_95, each.num] for kind, told in each.told.items()]
    tables = {"leads": Table(COLUMNS, rows)} if rows else {}
    if named:
        try:
            finding, tables["generic"] = _apart(inputs, readings, named)
            findings.append(finding)
        except ValueError as error:
            left_out[APART] = str(error)
    else:
        left_out[APART] = NOT_NAMED
    return Found(findings, tables, left_out)


def _named_prompts(inputs: AuditInputs) -> list[NamedPrompt]:
    """Return the prompt of each image whose prompt names an option; none where no option can be named."""
    if "named" not in inputs.artifacts:
        return []
    prompts = named_prompts(inputs.settings.attribute)
    return [prompts[row.prompt_index] for row in read_table(inputs.artifacts["named"])]


def _controls(inputs: AuditInputs, readings: Readings, named: list[NamedPrompt]) -> dict[str, Readings]:
    """Return what else the same probes are to tell."""
    attribute = inputs.settings.attribute
    templates = numbers([template for template, _ in probe_prompts(attribute)])[readings.prompts]
    controls = {"wording": replace(readings, labels=templates)}
    if named:
        options = list(attribute.options)
        everyone = range(len(named))
        controls["option_named"] = _of_named(inputs, named, everyone, [options.index(each.option) for each in named])
        subjects = attribute.trial_subjects or attribute.probe_subjects
        working = [row for row in everyone if named[row].subject in subjects]
        controls["occupation"] = _of_named(inputs, named, working, numbers([named[row].subject for row in working]))
    return controls


def _of_named(
    inputs: AuditInputs, named: list[NamedPrompt], rows: Sequence[int], labels: Sequence[int] | Ints
) -> Readings:
    """Return some images of prompts that name an option; prompts that differ in the option alone stay together."""
    source = Recorded(inputs.artifacts["named"], audited_steps(inputs.settings), np.array(rows, np.int64))
    made_of = numbers([f"{named[row].template}|{named[row].subject}" for row in rows])
    return Readings(np.array(labels, np.int64), made_of, source.kinds, [source])


def _lead(inputs: AuditInputs, readings: Readings, num: int, what: str, more: float) -> Lead:
    """Return what both kinds tell of so many images, drawn anew for each repetition where there are more.

    Raises ValueError where these are too few of an option.
    """
    layers, rng = readings.layers_of(SELF, CROSS), inputs.rng(f"lead {what}")
    width = min(readings.width(layer) for layer in layers)
    problems = _problems(inputs, readings, lambda: drawn_evenly(readings.labels, num, rng), rng)
    shares = share_right(readings.told_right(inputs, f"probes beside {what}", problems, layers, width, more))
    is_self = np.array([readings.kinds[layer] == SELF for layer in layers])
    chance = 1 / len(np.unique(readings.labels))
    ours, theirs = ((shares[rows].mean(0) - chance) / (1 - chance) for rows in (is_self, ~is_self))
    lead, *both = _estimates(inputs, readings, np.stack([ours - theirs, ours, theirs]))
    return Lead(lead, ours - theirs, dict(zip((SELF, CROSS), both, strict=True)), num)


def _finding(inputs: AuditInputs, readings: Readings, name: str, ours: Lead, theirs: Lead) -> Finding:
    """Return the difference of two leads: image by image where the images are the same, else of independent ones."""
    more = ours.lead.less(theirs.lead)
    if name == "wording":
        labels = _controls(inputs, readings, [])[name].labels
        pairs = pseudo_values(ours.by_image, readings.labels) - pseudo_values(theirs.by_image, labels)
        (more,) = _estimates(inputs, replace(readings, labels=np.zeros_like(labels)), pairs[None])
    what = CONTROLS[name]
    return Finding(
        f"implicit.more_than_{name}", f"Self-attention leads cross-attention by more for the choice than for {what}.",
        more.value, more.interval_95, "scaled accuracy", 0.0, LEAST, more.p_above(0.0),
        f"lead for {what}: {theirs.lead.value:.3f}, for the choice: {ours.lead.value:.3f} ({ours.num} images each)",
        more.num, "prompts",
    )  # fmt: skip


def _apart(inputs: AuditInputs, readings: Readings, named: list[NamedPrompt]) -> tuple[Finding, Table]:
    """Return how well probes tell prompts that name an option from those that leave it open, the same options shown."""
    attribute, rng = inputs.settings.attribute, inputs.rng("generic")
    rows = [row for row, each in enumerate(named) if each.subject in attribute.probe_subjects]
    shown = [list(attribute.options).index(named[row].option) for row in rows]
    explicit = _of_named(inputs, named, rows, shown)
    keys = [f"{template}|{subject}" for template, subject in probe_prompts(attribute)]
    of_explicit = [f"{named[row].template}|{named[row].subject}" for row in rows]
    prompts = numbers([*(keys[prompt] for prompt in readings.prompts), *of_explicit])
    is_explicit = np.repeat([0, 1], [len(readings.labels), len(rows)])
    both = Readings(is_explicit, prompts, readings.kinds, [*readings.sources, *explicit.sources])

    def draw() -> Ints:
        """As many images of each option on both sides, so that what is shown tells nothing."""
        ours = [rng.permutation(np.flatnonzero(readings.labels == option)) for option in range(len(attribute.options))]
        theirs = [
            rng.permutation(np.flatnonzero(explicit.labels == option)) for option in range(len(attribute.options))
        ]
        pairs = [(one[: len(other)], other[: len(one)]) for one, other in zip(ours, theirs, strict=True)]
        return np.concatenate([part for one, other in pairs for part in (one, other + len(readings.labels))])

    layers = both.layers_of()
    if (num := len(draw())) < ENOUGH:
        raise ValueError(
            f"{num} images show the same options on both sides, too few; it takes {ENOUGH} "
            f"(audit.sizes.{inputs.settings.audit.size}.named_images)."
        )
    more, problems = len(readings.labels) / num, _problems(inputs, both, draw, rng)
    right = both.told_right(inputs, "probes of generic prompts", problems, layers, more=more)
    shares, kinds = share_right(right), list(dict.fromkeys(both.kinds.values()))
    means = [shares[[both.kinds[layer] == kind for layer in layers]].mean(0) for kind in kinds]
    attention = shares[[both.kinds[layer] in (SELF, CROSS) for layer in layers]].mean(0)
    overall, *each = _estimates(inputs, both, np.stack([attention, *means]))
    table: list[list[str | float]] = [
        [kind, found.value, *possible(found.interval_95, "balanced accuracy")]
        for kind, found in zip(kinds, each, strict=True)
    ]
    told = ", ".join(f"{KIND_NAMES[kind]} {found.value:.3f}" for kind, found in zip(kinds, each, strict=True))
    finding = Finding(
        APART, "Attention layers tell prompts that name the option from those that leave it open.", overall.value,
        overall.interval_95, "balanced accuracy", 0.5, 0.5 + LEAST_APART, overall.p_above(0.5),
        f"chance 0.5, the same options shown on both sides; {told}", overall.num, "prompts",
    )  # fmt: skip
    return finding, Table(["kind", "accuracy", "low", "high"], table)


def _problems(
    inputs: AuditInputs, readings: Readings, draw: Callable[[], Ints], rng: np.random.Generator
) -> list[Problem]:
    """Return cross-validations by prompt of images that are drawn anew for each."""
    problems, share = list[Problem](), inputs.settings.probe.test_share
    while len(problems) < inputs.size.num_splits:
        splits = repeated_folds(readings.labels, readings.prompts, 1, share, rng, draw())
        problems += [Problem(readings.labels, split) for split in splits]
    return problems


def drawn_evenly(labels: Ints, num: int, rng: np.random.Generator) -> Ints:
    """Return so many random rows, in which labels [n] stand in the shares that they have of all."""
    places = np.empty(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        places[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(places, kind="stable")[:num]


def _estimates(inputs: AuditInputs, readings: Readings, values: Floats) -> list[Estimate]:
    return clustered(values, readings.labels, readings.prompts, inputs.size.num_resamples, inputs.rng("implicit"))


def probe_prompts(attribute: AttributeConfig) -> list[tuple[str, str]]:
    """Return the template and the subject of every probe prompt, in the order of the probe dataset."""
    made: dict[str, tuple[str, str]] = {}
    for template in attribute.probe_templates:
        for subject in attribute.probe_subjects:
            made.setdefault(fill_templates([template], [subject])[0], (template, subject))
    return list(made.values())


def numbers(names: Sequence[str]) -> Ints:
    """Return a number for each name, the same for the same."""
    return np.unique(names, return_inverse=True)[1] if names else np.zeros(0, np.int64)
