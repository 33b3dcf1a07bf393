"""What steering did: FD per prompt before and after, and this run beside comparable ones."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.methods.registry import words_of
from icm_pipeline.report.figures.style import (
    KIND_COLORS,
    ORIGINAL_COLOR,
    STEERED_COLOR,
    figure,
    mark_original,
    place_labels,
    wrapped,
)
from icm_pipeline.results.comparisons import Compared
from icm_pipeline.results.evaluation import Evaluation
from icm_pipeline.results.steering import Steering

NAME_WIDTH = 2.0  # inches of a prompt beside its bars
LONGEST_LINE = 44  # characters of a label beside its point
OWN_CHOICE = "the method's own choice"  # where a method acts that takes no selected layers
MOST_WHOLE_LABELS = 6  # of more points the labels leave out what all of them share
FD_AND_CLIP_I = {"xlabel": "FD, mean over prompts (lower is better)", "ylabel": "CLIP-I (higher is better)"}


def plot_discrepancy(path: Path, evaluation: Evaluation) -> Path:
    """Draw FD of every prompt and the mean, original beside steered, with the mean's 95 % interval and the floor."""
    names = [wrapped(prompt, NAME_WIDTH, 8) for prompt in evaluation.after.by_prompt] + ["mean"]
    heights = [max(0.42, 0.08 + 0.14 * (1 + name.count("\n"))) for name in names]  # inches of a row
    centres = [sum(heights[:row]) + height / 2 for row, height in enumerate(heights)]
    title = wrapped(f"Fairness discrepancy of {evaluation.attribute.replace('_', ' ')}", 6.2, 10, bold=True)
    with figure(path, (6.4, 1.0 + 0.17 * title.count("\n") + sum(heights))) as (drawing, axis):
        sides = (evaluation.before, "original", ORIGINAL_COLOR), (evaluation.after, "steered", STEERED_COLOR)
        furthest = max(value for found, _, _ in sides for value in (*found.by_prompt.values(), found.interval_95[1]))
        for side, (found, label, color) in enumerate(sides):
            values = [*found.by_prompt.values(), found.mean]
            places = [centre + 0.17 * (side - 0.5) for centre in centres]
            axis.barh(places, values, 0.16, color=color, label=label)
            interval = found.interval_95
            axis.plot(interval, [places[-1]] * 2, color="black", lw=1, label="95 % interval" if side else None)
            for place, value, end in zip(places, values, [*values[:-1], max(values[-1], interval[1])], strict=True):
                axis.text(end + 0.012 * furthest, place, f"{value:.2f}", va="center", fontsize=7)
        axis.set_yticks(centres, names, fontsize=8)
        axis.tick_params(axis="y", length=0)
        if floor := evaluation.fairness.fd_floor:  # at 0 it is the axis
            axis.axvline(floor, color="black", lw=0.8, ls=":", label="a perfect steerer")
        axis.set(xlabel="FD (lower is better)", xlim=(0, 1.09 * furthest), ylim=(sum(heights), 0))
        drawing.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        drawing.legend(frameon=False, loc="outside lower center", ncols=4)
    return path


def _labels(results: Sequence[Compared]) -> tuple[list[str], list[str]]:
    """Return a label per point, without its kind where the colour tells it, and the words that all of them share."""
    words, many = list[list[str]](), len(results) > MOST_WHOLE_LABELS
    has_legend = len({_acts_in(row.steering) for row in results}) > 1
    for row in results:
        kind, whole = KIND_NAMES[row.steering.kind], words_of(row.steering)
        words.append([word.replace(f" {kind}", "") if has_legend else word for word in (*whole, *row.told)])
    shared = [word for word in words[0] if many and all(word in others for others in words)]
    own = [[word for word in label if word not in shared] or label for label in words]
    return [fill(", ".join(label), LONGEST_LINE) for label in own], shared


def _acts_in(steering: Steering) -> tuple[str, str]:
    """Return in which layers a way of steering acts, and the colour of that."""
    if steering.kind == "mixed" and not steering.layers:
        return OWN_CHOICE, "black"
    return KIND_NAMES[steering.kind], KIND_COLORS[steering.kind]


def plot_comparison(path: Path, results: Sequence[Compared], this_key: str) -> Path:
    """Draw every run as a point: FD against CLIP-I, labelled by what sets it apart; the run of `this_key` is filled."""
    with figure(path, (6.4, 4.2)) as (drawing, axis):
        original = results[0].evaluation.before.mean
        mark_original(axis, original)
        furthest = max(original, *(row.place[0] for row in results))
        labels, kinds = [], dict.fromkeys(_acts_in(row.steering) for row in results)
        texts, shared = _labels(results)
        for row, text in zip(results, texts, strict=True):
            place, (_, color) = row.place, _acts_in(row.steering)
            face = color if row.key == this_key else "white"
            axis.plot(*place, "o", ms=7, mfc=face, mec=color, zorder=3, clip_on=False)  # whole also at an FD of 0
            side = {"xytext": (-6, 3), "ha": "right"} if place[0] > 0.6 * furthest else {"xytext": (6, 3), "ha": "left"}
            labels.append(axis.annotate(text, place, textcoords="offset points", fontsize=6.5, **side))
        everywhere = f"\nIn all of them: {', '.join(shared)}" if shared else ""
        title = wrapped(
            f"Ways of steering: how fair against how much of the picture stays; filled: this run{everywhere}",
            5.8, 10, bold=True,
        )  # fmt: skip
        axis.set(xlim=(0, 1.12 * furthest), title=title, **FD_AND_CLIP_I)
        axis.margins(y=0.12)
        if len(kinds) > 1:  # below the panel, and no points, which would look like runs
            handles = [axis.plot([], [], color=color, lw=4, label=name)[0] for name, color in kinds]
            drawing.legend(handles=handles, frameon=False, fontsize=7, loc="outside lower center", ncols=4)
        place_labels(axis, labels, [row.place for row in results])
    return path
