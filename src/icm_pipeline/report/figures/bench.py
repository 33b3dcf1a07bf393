"""The fronts of a bench: how fair against how much of the picture stays, of every strength of every method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icm_pipeline.report.figures.comparison import FD_AND_CLIP_I
from icm_pipeline.report.figures.style import ORIGINAL_COLOR, QUIET_COLOR, STEERED_COLOR, figure, wrapped
from icm_pipeline.results.bench import StrengthChoice

COLUMNS = 4
OTHERS_COLOR = "#dde2e7"
MARGIN = 0.06  # of the axes' range


def plot_fronts(path: Path, choices: Mapping[str, StrengthChoice]) -> Path:
    """Draw a panel per method: its strengths, the chosen one filled, the others' behind it, the budget as a line."""
    columns = min(COLUMNS, len(choices))
    rows = -(-len(choices) // columns)
    lines = {name: _line(choice) for name, choice in choices.items()}
    everything = [point for line in lines.values() for point in line]
    size = (max(4.0, 0.6 + 1.75 * columns), 1.25 + 1.6 * rows)
    with figure(path, size, rows, columns, sharex=True, sharey=True, squeeze=False) as (drawing, axes):
        for axis in axes.flat[len(choices) :]:
            axis.set_visible(False)
        for axis, (name, choice) in zip(axes.flat, choices.items(), strict=False):
            for line in lines.values():
                axis.plot(*zip(*line, strict=True), "-", color=OTHERS_COLOR, lw=1, zorder=1)
            axis.axhline(choice.clip_i_budget, color=QUIET_COLOR, lw=0.8, ls=":", zorder=2)
            axis.plot(*zip(*lines[name], strict=True), "-", color=STEERED_COLOR, lw=1.4, zorder=3)
            _mark(axis, choice)
            axis.set_title(wrapped(name, 1.6, 8, bold=True), fontsize=8, pad=13)
            axis.text(0, 1.03, _chosen(choice), fontsize=6.5, color=QUIET_COLOR, transform=axis.transAxes)
            axis.tick_params(labelsize=7)
        axes.flat[0].set(xlim=_limits([x for x, _ in everything], 0.0), ylim=_limits([y for _, y in everything], None))
        drawing.supxlabel(FD_AND_CLIP_I["xlabel"], fontsize=8)
        drawing.supylabel(FD_AND_CLIP_I["ylabel"], fontsize=8)
        title = "Strengths on tuning seeds; filled: chosen, cross: unsteered, dotted: the least CLIP-I"
        drawing.suptitle(wrapped(title, size[0] - 0.3, 9, bold=True), x=0.01, ha="left", fontsize=9, fontweight="bold")
    return path


def _line(choice: StrengthChoice) -> list[tuple[float, float]]:
    """Return FD and CLIP-I from unsteered to the largest strength, as far as there is an FD."""
    points = [(choice.fd_unsteered, 1.0)]
    points += [(each.fd, each.clip_i) for each in sorted(choice.tried, key=lambda each: each.value)]
    return [(fd, clip_i) for fd, clip_i in points if fd is not None]


def _mark(axis: Any, choice: StrengthChoice) -> None:
    if choice.fd_unsteered is not None:
        axis.plot(choice.fd_unsteered, 1.0, "x", ms=5, mew=1.5, color=ORIGINAL_COLOR, zorder=4)
    for each in choice.tried:
        if each.fd is not None:
            is_chosen = each.value == choice.value
            face = STEERED_COLOR if is_chosen else "white"
            axis.plot(each.fd, each.clip_i, "o", ms=6 if is_chosen else 4, mfc=face, mec=STEERED_COLOR, zorder=5)


def _chosen(choice: StrengthChoice) -> str:
    return f"{choice.setting.removeprefix('params.')} {choice.value:.3g}" + (
        "" if choice.within_budget else ", too far"
    )


def _limits(values: list[float], least: float | None) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = MARGIN * max(high - low, 0.1)
    return (low - margin if least is None else least - margin, high + margin)
