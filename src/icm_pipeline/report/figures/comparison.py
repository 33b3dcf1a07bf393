"""What steering did: FD per prompt before and after, and this run beside comparable ones."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.methods.registry import method_named
from icm_pipeline.report.figures.style import KIND_COLORS, ORIGINAL_COLOR, STEERED_COLOR, figure, mark_original
from icm_pipeline.results.comparisons import Compared
from icm_pipeline.results.evaluation import Evaluation

LONGEST_LINE = 44  # characters of a label beside its point
MOST_WHOLE_LABELS = 6  # of more points the labels leave out what all of them share
FD_AND_CLIP_I = {"xlabel": "FD, mean over prompts (lower is better)", "ylabel": "CLIP-I (higher is better)"}


def plot_discrepancy(path: Path, evaluation: Evaluation) -> Path:
    """Draw FD of every prompt and the mean, original beside steered, with the mean's 95 % interval and the floor."""
    with figure(path, (6.4, 3.2)) as (drawing, axis):
        sides = (evaluation.before, "original", ORIGINAL_COLOR), (evaluation.after, "steered", STEERED_COLOR)
        for side, (found, label, color) in enumerate(sides):
            values = [*found.by_prompt.values(), found.mean]
            places = [index + 0.38 * side for index in range(len(values))]
            axis.bar(places, values, 0.36, color=color, label=label)
            for place, value in zip(places, values, strict=True):
                axis.text(place, value + 0.012, f"{value:.2f}", ha="center", fontsize=7)
            beside = [places[-1] + 0.15] * 2  # the number
            axis.plot(beside, found.interval_95, color="black", lw=1, label="95 % interval" if side else None)
        labels = [*map(_wrapped, evaluation.after.by_prompt), "mean"]
        axis.set_xticks([index + 0.19 for index in range(len(labels))], labels)
        axis.axhline(evaluation.fairness.fd_floor, color="black", lw=0.8, ls=":")
        title = f"Fairness discrepancy of {evaluation.attribute.replace('_', ' ')}"
        axis.set(ylabel="FD (lower is better)", title=title)
        drawing.legend(frameon=False, loc="outside lower center", ncols=3)
    return path


def _labels(results: Sequence[Compared]) -> tuple[list[str], list[str]]:
    """Return a label per point, without its kind, which the colour shows, and the words that all of them share."""
    words, many = list[list[str]](), len(results) > MOST_WHOLE_LABELS
    for row in results:
        kind, whole = KIND_NAMES[row.steering.kind], method_named(row.steering.method).words(row.steering)
        words.append([word.replace(f" {kind}", "") for word in (*whole, *row.told)])
    shared = [word for word in words[0] if many and all(word in others for others in words)]
    own = [[word for word in label if word not in shared] or label for label in words]
    return [fill(", ".join(label), LONGEST_LINE) for label in own], shared


def plot_comparison(path: Path, results: Sequence[Compared], this_key: str) -> Path:
    """Draw every run as a point: FD against CLIP-I, labelled by what sets it apart; the run of `this_key` is filled."""
    with figure(path, (6.4, 4.2)) as (drawing, axis):
        original = results[0].evaluation.before.mean
        mark_original(axis, original)
        furthest = max(original, *(row.place[0] for row in results))
        seen, labels = set[str](), []
        texts, shared = _labels(results)
        for row, text in zip(results, texts, strict=True):
            kind, place, color = row.steering.kind, row.place, KIND_COLORS[row.steering.kind]
            filled = color if row.key == this_key else "white"
            axis.plot(*place, "o", ms=7, mfc=filled, mec=color, label=None if kind in seen else KIND_NAMES[kind])
            seen.add(kind)
            side = {"xytext": (-6, 3), "ha": "right"} if place[0] > 0.6 * furthest else {"xytext": (6, 3), "ha": "left"}
            labels.append(axis.annotate(text, place, textcoords="offset points", fontsize=6.5, **side))
        everywhere = f"\nIn all of them: {', '.join(shared)}" if shared else ""
        title = f"Ways of steering: how fair against how much of the picture stays{everywhere}"
        axis.set(xlim=(0, 1.12 * furthest), title=title, **FD_AND_CLIP_I)
        axis.margins(y=0.12)
        axis.legend(frameon=False, fontsize=7, loc="best")
        drawing.draw_without_rendering()
        spread_labels(labels)
    return path


def spread_labels(labels: list[Any]) -> None:
    """Move labels up where they would cover one another, from the lowest to the highest."""
    placed: list[Any] = []
    for label in sorted(labels, key=lambda label: label.get_window_extent().y0):
        x, y = label.get_position()
        while any(label.get_window_extent().overlaps(other.get_window_extent()) for other in placed):
            y += 2
            label.set_position((x, y))
        placed.append(label)


def _wrapped(prompt: str) -> str:
    head, _, last = prompt.rpartition(" ")
    return f"{head}\n{last}" if head else last
