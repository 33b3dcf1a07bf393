"""What the audit's probes told: by layer, by kind, of what prompts name beside the choice; and the ranking."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.report.figures.style import KIND_COLORS, QUIET_COLOR, figure, short_names, spread_ticks
from icm_pipeline.results.verdicts import Table

ROW, MOST_HEIGHT = 0.16, 14.0  # inches of a layer, and of a figure
HEART_COLOR = "#009e73"
WORDS = {
    "left open": "the choice", "option_named": "a named option", "occupation": "a named occupation",
    "wording": "the wording",
}  # fmt: skip


def plot_layers(path: Path, table: Table) -> Path:
    """Draw each layer's accuracy on new prompts with its interval, beside random labels and the null of the maximum."""
    rows = _records(table)
    names = short_names([str(row["layer"]) for row in rows])
    row_height = min(ROW, MOST_HEIGHT / len(rows))
    with figure(path, (6.4, 1.3 + row_height * len(rows))) as (drawing, axis):
        for place, row in enumerate(rows):
            color = KIND_COLORS[str(row["kind"])]
            axis.plot([row["new low"], row["new high"]], [place, place], color=color, lw=1.6)
            axis.plot(row["new prompts"], place, "o", ms=4, color=color)
            axis.plot(row["torn prompts"], place, "|", ms=6, color=color)
            axis.plot(row["by heart"], place, "x", ms=3.5, color=HEART_COLOR, mew=0.9)
        limit = float(rows[0]["null 95 %"])
        axis.axvline(limit, color="black", lw=0.8, ls=":")
        axis.text(limit, -1.2, " best of shuffled labels, 95 %", fontsize=7, va="center")
        ticks = spread_ticks(len(rows), [], max(1, round(0.12 / row_height)))
        axis.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=6.5)
        axis.set(ylim=(len(rows) - 0.3, -1.9), xlabel="balanced accuracy, mean over steps")
        axis.set_title("What each layer tells of images that its probe was not fitted to")
        for kind in dict.fromkeys(str(row["kind"]) for row in rows):
            axis.plot([], [], "o-", ms=4, color=KIND_COLORS[kind], label=f"{KIND_NAMES[kind]}, new prompts")
        axis.plot([], [], "|", ms=6, color=QUIET_COLOR, label="prompts seen before")
        axis.plot([], [], "x", ms=3.5, color=HEART_COLOR, label="random labels by prompt")
        drawing.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=7)
    return path


def plot_kinds(path: Path, table: Table) -> Path:
    """Draw what the kinds tell at equal width: the mean over their layers, and the best of them."""
    rows, titles = _records(table), {"mean": "mean of its layers", "best": "its best layer"}
    with figure(path, (6.4, 2.1), 1, 2, sharey=True, squeeze=False) as (_, axes):
        for axis, (which, title) in zip(axes[0], titles.items(), strict=True):
            chosen = [row for row in rows if row["figure"] == which]
            _bars(axis, chosen, [f"{KIND_NAMES[str(row['kind'])]} ({row['layers']:.0f})" for row in chosen], "accuracy")
            axis.set_title(title)
            axis.set_xlabel("balanced accuracy on new prompts")
    return path


def plot_leads(path: Path, table: Table) -> Path:
    """Draw what both kinds tell of the choice, and of each control from as many images."""
    rows = _records(table)
    controls = list(dict.fromkeys(str(row["control"]) for row in rows))
    with figure(path, (2.4 * len(controls) + 0.8, 2.6), 1, len(controls), sharey=True, squeeze=False) as (
        drawing,
        axes,
    ):
        for axis, control in zip(axes[0], controls, strict=True):
            chosen = [row for row in rows if row["control"] == control]
            told = list(dict.fromkeys(str(row["what is told"]) for row in chosen))
            for kind, shift in (("self_attention", -0.08), ("cross_attention", 0.08)):
                found = [row for row in chosen if row["kind"] == kind]
                places = [told.index(str(row["what is told"])) + shift for row in found]
                values = [float(row["scaled accuracy"]) for row in found]
                for place, row in zip(places, found, strict=True):
                    axis.plot([place, place], [row["low"], row["high"]], color=KIND_COLORS[kind], lw=1.6)
                axis.plot(places, values, "o-", ms=4, lw=0.8, color=KIND_COLORS[kind])
            axis.set_xticks(range(len(told)), [WORDS.get(each, each) for each in told], fontsize=7.5)
            axis.set_xlim(-0.4, len(told) - 0.6)
            axis.axhline(0, color="black", lw=0.8, ls=":")
            axis.set_title(f"{chosen[0]['images']:.0f} images", fontsize=8)
        axes[0, 0].set_ylabel("above chance,\nof 1 - chance")
        for kind in ("self_attention", "cross_attention"):
            axes[0, 0].plot([], [], "o-", ms=4, color=KIND_COLORS[kind], label=KIND_NAMES[kind])
        drawing.legend(frameon=False, loc="outside lower center", ncols=2, fontsize=8)
    return path


def plot_generic(path: Path, table: Table) -> Path:
    """Draw how well each kind's layers tell prompts that name an option from those that leave it open."""
    rows = _records(table)
    with figure(path, (5.0, 1.0 + 0.25 * len(rows))) as (_, axis):
        _bars(axis, rows, [KIND_NAMES[str(row["kind"])] for row in rows], "accuracy")
        axis.axvline(0.5, color="black", lw=0.8, ls=":")
        axis.set(xlabel="accuracy (chance 0.5), mean of the kind's layers", title="Is the option named or left open?")
    return path


def plot_curve(path: Path, table: Table) -> Path:
    """Draw over the number of images how much the best layers of disjoint images have in common."""
    rows = _records(table)
    images = [float(row["images"]) for row in rows]

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in rows]

    with figure(path, (5.0, 2.8)) as (_, axis):
        axis.fill_between(
            images, column("least"), column("most"), color=KIND_COLORS["self_attention"], alpha=0.12, lw=0
        )
        axis.plot(images, column("shared"), "o-", ms=4, color=KIND_COLORS["self_attention"], label="best k, two parts")
        axis.plot(images, column("shared with all"), "s-", ms=4, color=HEART_COLOR, label="best k, a part and all")
        axis.plot(images, column("tau"), "^-", ms=4, color=QUIET_COLOR, label="Kendall's tau, two parts")
        axis.axhline(float(rows[0]["by luck"]), color="black", lw=0.8, ls=":")
        axis.text(images[0], float(rows[0]["by luck"]), "best k by luck", fontsize=7, va="bottom")
        axis.set(xlabel="images of a part", ylabel="share in common, tau", ylim=(min(0.0, *column("tau")), 1.03))
        axis.set_title("Do other images choose the same layers?")
        axis.legend(frameon=False, fontsize=7, loc="lower right")
    return path


def plot_chosen(path: Path, table: Table) -> Path:
    """Draw how often each layer is among the best k, over resampled prompts, halves, single splits."""
    rows = sorted(_records(table), key=lambda row: -float(row["accuracy"]))[:40]
    names, columns = short_names([str(row["layer"]) for row in rows]), ("over resamples", "over halves", "over splits")
    with figure(path, (5.0, 1.3 + 0.2 * len(rows))) as (drawing, axis):
        values = [[float(row[column]) for column in columns] for row in rows]
        drawn = axis.imshow(values, aspect="auto", vmin=0, vmax=1, cmap="viridis")
        axis.set_xticks(range(3), ["resampled\nprompts", "halves", "single\nsplits"], fontsize=8)
        axis.set_yticks(range(len(rows)), names, fontsize=7)
        axis.set_title("How often a layer is among the best k")
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        drawing.colorbar(drawn, ax=axis, shrink=0.7)
    return path


def _records(table: Table) -> list[dict[str, str | float]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _bars(axis: Any, rows: Sequence[dict[str, str | float]], names: Sequence[str], value: str) -> None:
    """Draw a figure with its interval for each row, in its kind's colour."""
    for place, row in enumerate(rows):
        color = KIND_COLORS[str(row["kind"])]
        axis.plot([row["low"], row["high"]], [place, place], color=color, lw=2)
        axis.plot(row[value], place, "o", ms=5, color=color)
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
