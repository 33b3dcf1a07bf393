"""The claims of an audit: each effect with its interval, beside the smallest that would count."""

from collections.abc import Sequence
from pathlib import Path

from icm_pipeline.report.figures.style import MISSED_COLOR, ORIGINAL_COLOR, QUIET_COLOR, STEERED_COLOR, figure, wrapped
from icm_pipeline.results.verdicts import Claim

VERDICT_COLORS = {"supported": STEERED_COLOR, "refuted": MISSED_COLOR, "undecided": ORIGINAL_COLOR}
ROW = 0.42  # inches of a claim


def plot_claims(path: Path, claims: Sequence[Claim]) -> Path:
    """Draw each claim's interval in its own unit, scaled so that a wrong claim is at 0 and what counts at 1.

    Where both are one effect, 0 and 1 are 5 points of it apart. What lies further than 4 is cut, with an arrow.
    """
    with figure(path, (7.2, 1.1 + ROW * max(1, len(claims)))) as (drawing, axis):
        for row, claim in enumerate(claims):
            found, color = claim.finding, VERDICT_COLORS[claim.verdict]
            unit = found.least - found.null or 0.05
            scaled = [(value - found.null) / unit for value in (*found.interval_95, found.effect)]
            low, high, effect = (min(max(value, -2.0), 4.0) for value in scaled)
            axis.plot([low, high], [row, row], color=color, lw=2)
            marker = "o" if -2 < scaled[2] < 4 else ">" if scaled[2] > 0 else "<"
            axis.plot(effect, row, marker, color=color, ms=6)
            axis.text(4.15, row, _told(claim), va="center", fontsize=6.5, color=QUIET_COLOR)
        axis.axvline(0, color="black", lw=0.8)
        axis.axvline(1, color="black", lw=0.8, ls=":")
        names = [wrapped(claim.finding.says, 3.2, 7, most_lines=3) for claim in claims]
        axis.set_yticks(range(len(claims)), names, fontsize=7)
        axis.set(xlim=(-2.1, 4.1), ylim=(len(claims) - 0.5, -0.5))
        axis.set_xticks([0, 1], ["if wrong ", " counts"], fontsize=8)
        for label, side in zip(axis.get_xticklabels(), ("right", "left"), strict=True):
            label.set_ha(side)
        axis.set_xlabel("each row on its own scale; an arrow: further than shown", fontsize=7, color=QUIET_COLOR)
        for verdict, color in VERDICT_COLORS.items():
            axis.plot([], [], "o-", color=color, label=verdict)
        drawing.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=8)
    return path


def _told(claim: Claim) -> str:
    found = claim.finding
    low, high = found.interval_95
    return f"{found.effect:.2f} ({low:.2f} to {high:.2f})\n{found.unit}"
