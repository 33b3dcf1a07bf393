"""The audit's page: a table of claims with their verdicts, what each was held against, and the figures behind them."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from icm_pipeline.report.figures.claims import plot_claims
from icm_pipeline.report.figures.pushes import plot_confusion, plot_drift, plot_layer_effects, plot_sets
from icm_pipeline.report.figures.readings import (
    plot_chosen,
    plot_curve,
    plot_generic,
    plot_kinds,
    plot_layers,
    plot_leads,
)
from icm_pipeline.report.wording import FEW_IMAGES
from icm_pipeline.results.verdicts import Claim, Found, Table, Verdicts

COLUMNS = [
    "claim", "says", "effect", "low", "high", "unit", "least", "p", "p adjusted", "n", "of", "verdict", "control",
    "command",
]  # fmt: skip
READ = ["claim", "effect (95 %)", "counts from", "control", "n", "p (Holm)", "verdict"]
LEAST_P = 0.001  # below, its digits are those of a model of chance; the table of all claims keeps them
VERDICTS = """
An effect speaks for its claim the larger it is. **Refuted**: the whole interval lies below what would count.
**Supported**: the effect counts, its interval lies above that of a wrong claim, and p stays below 0.05 after Holm's
adjustment for all claims here. An interval ends where its unit does: no share and no accuracy is above 1. A margin is
what a claim of "no more than" allows: from -0.05 on means by less than 0.05 more.
"""
# Figures by group and table: title, and what draws the table.
FIGURES: dict[tuple[str, str], tuple[str, Callable[[Path, Table], Path]]] = {
    ("separability", "layers"): ("Accuracy of every layer", plot_layers),
    ("kinds", "kinds"): ("Kinds of layers at equal width", plot_kinds),
    ("implicit", "leads"): ("The choice beside what prompts say", plot_leads),
    ("implicit", "generic"): ("Named or left open", plot_generic),
    ("stability", "curve"): ("How many images a ranking takes", plot_curve),
    ("stability", "chosen"): ("How often a layer is chosen", plot_chosen),
    ("causality", "sets"): ("The selected layers among random ones", plot_sets),
    ("causality", "layers"): ("What each layer does alone", plot_layer_effects),
    ("changes", "drift"): ("What else moved", plot_drift),
    ("judge", "confusion"): ("What the judge takes for what", plot_confusion),
}


def claims_table(claims: Sequence[Claim]) -> tuple[list[str], list[list[str | float]]]:
    """Return the columns and a row per claim."""
    rows: list[list[str | float]] = []
    for claim in claims:
        found = claim.finding
        rows.append(
            [found.claim, found.says, found.effect, *found.interval_95, found.unit, found.least, found.p,
             claim.p_adjusted, found.num, found.of, claim.verdict, found.control, claim.command]
        )  # fmt: skip
    return COLUMNS, rows


def write_table(path: Path, verdicts: Verdicts) -> None:
    """Write the claims as CSV."""
    columns, rows = claims_table(verdicts.claims)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def write_audit_page(folder: Path, title: str, about: str, verdicts: Verdicts, found: Mapping[str, Found]) -> Path:
    """Write the page and its figures into a folder; return the page's path. about: what was audited, and how far."""
    lines = [f"# {title}".replace("|", "/"), "", about.replace("|", "/"), ""]
    lines += [f"| {' | '.join(READ)} |", "|---" * len(READ) + "|"]
    lines += [_row(claim) for claim in verdicts.claims]
    lines += [VERDICTS]
    if any(claim.finding.num < FEW_IMAGES and "images" in claim.finding.of for claim in verdicts.claims):
        lines += [f"Caution: an interval of fewer than {FEW_IMAGES} images finds only what these few show, and is too "
                  "narrow where all of them agree.", ""]  # fmt: skip
    lines += [f"Not asked: `{claim}`: {why}" for claim, why in verdicts.left_out.items()]
    drawn = {"claims": ("Effects beside what would count", plot_claims(folder / "claims.png", verdicts.claims))}
    for (group, name), (heading, plot) in FIGURES.items():
        if group in found and name in found[group].tables:
            file = f"{group}-{name}.png"
            drawn[file] = (heading, plot(folder / file, found[group].tables[name]))
    for heading, path in drawn.values():
        lines += ["", f"## {heading}", "", f"![{heading}]({path.name})"]
    lines += ["", "## Repeating a row", ""]
    commands = dict.fromkeys(claim.command for claim in verdicts.claims)
    lines += ["```sh", *commands, "```", ""]
    page = folder / "audit.md"
    page.write_text("\n".join(lines), "utf-8")
    return page


def claim_cells(claim: Claim) -> list[str]:
    """Return a claim in words, for the columns READ."""
    found = claim.finding
    low, high = found.interval_95
    return [
        found.says, f"{found.effect:z.3f} ({low:z.3f} to {high:z.3f}) {found.unit}",
        f"{found.least:g}" + (" (margin)" if found.null == found.least < 0 else ""), found.control,
        f"{found.num} {found.of}", f"< {LEAST_P}" if claim.p_adjusted < LEAST_P else f"{claim.p_adjusted:.3f}",
        claim.verdict,
    ]  # fmt: skip


def _row(claim: Claim) -> str:
    says, *cells, verdict = claim_cells(claim)
    cells = [f"{says} (`{claim.finding.claim}`)", *cells, f"**{verdict}**"]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
