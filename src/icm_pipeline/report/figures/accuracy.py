"""Where the choice is readable: probe accuracy over layer and timestep, and the layers ranked."""

import math
from pathlib import Path

from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.report.figures.style import KIND_COLORS, figure, short_names, spread_ticks, wrapped
from icm_pipeline.results.scores import Scores

MOST_HEIGHT = 12.0  # inches of the heat map
ROW_HEIGHT, LABEL_HEIGHT = 0.2, 0.12  # inches of a layer, if there is room, and of its name
MOST_RANKED = 60  # layers of the ranking; of more, the steered and the best


def plot_heat_map(path: Path, scores: Scores, chosen: list[str], attribute: str) -> Path:
    """Draw held-out accuracy, layers in the network's order against denoising steps, one panel per site kind."""
    steps, kinds, counts = scores.steps, list(scores.by_kind), list(map(len, scores.by_kind.values()))
    row_height = min(ROW_HEIGHT, MOST_HEIGHT / sum(counts))
    height, apart = 1.2 + row_height * sum(counts), math.ceil(LABEL_HEIGHT / row_height)
    options = {"squeeze": False, "sharex": True, "height_ratios": counts}
    with figure(path, (6.4, height), len(kinds), 1, **options) as (drawing, axes):
        for axis, kind in zip(axes[:, 0], kinds, strict=True):
            names = [layer for layer, row in scores.layers.items() if row.kind == kind]
            values = [scores.layers[layer].accuracy for layer in names]
            drawn = axis.imshow(values, aspect="auto", vmin=scores.chance, vmax=1, cmap="viridis")
            steered = [row for row, name in enumerate(names) if name in chosen]
            labels, ticks = short_names(names), spread_ticks(len(names), steered, apart)
            axis.set_yticks(ticks, [labels[row] for row in ticks], fontsize=7)
            for label, row in zip(axis.get_yticklabels(), ticks, strict=True):
                if row in steered:
                    label.set(color=KIND_COLORS[kind], fontweight="bold")
            axis.plot(
                [1.012] * len(steered), steered, "<", ms=4, color=KIND_COLORS[kind], clip_on=False, scalex=False,
                scaley=False, transform=axis.get_yaxis_transform(), in_layout=False,  # else the panels would shrink
            )  # fmt: skip
            axis.set_title(KIND_NAMES[kind])
            axis.spines[:].set_visible(False)
            axis.tick_params(length=0)
        shown = range(0, len(steps), max(1, len(steps) // 10))
        axis.set_xticks(list(shown), [str(steps[slot]) for slot in shown])
        axis.set_xlabel("denoising step (noise on the left, picture on the right)")
        drawing.colorbar(drawn, ax=axes[:, 0].tolist(), label="held-out accuracy (from chance)", shrink=0.6, aspect=30)
        title = wrapped(f"Where {attribute} can be read; steered layers are marked", 6.2, 11)
        drawing.suptitle(title, x=0.01, ha="left", fontsize=11)
    return path


def plot_ranking(path: Path, scores: Scores, chosen: list[str], attribute: str) -> Path:
    """Draw layers' mean held-out accuracy over timesteps, best first; of too many, the steered and the best."""
    ranked = sorted(scores.layers.items(), key=lambda item: -item[1].score)
    ranks = {layer: rank for rank, (layer, _) in enumerate(ranked, 1)}
    shown = sorted(ranked, key=lambda item: item[0] not in chosen)[:MOST_RANKED]
    rows = sorted(shown, key=lambda item: -ranks[item[0]])
    names, left_out = short_names([layer for layer, _ in rows]), len(ranked) - len(rows)
    if left_out:
        names = [f"{name}  #{ranks[layer]}" for name, (layer, _) in zip(names, rows, strict=True)]
    with figure(path, (6.4, 1.2 + 0.17 * len(rows))) as (_, axis):
        for position, (layer, row) in enumerate(rows):
            color, filled = KIND_COLORS[row.kind], KIND_COLORS[row.kind] if layer in chosen else "white"
            axis.plot([scores.chance, row.score], [position] * 2, color=color, lw=1.2, alpha=0.45)
            axis.plot(row.score, position, "o", ms=5.5, mfc=filled, mec=color, mew=1.4)
        axis.set_yticks(range(len(rows)), names, fontsize=7)
        axis.axvline(scores.chance, color="black", lw=0.8, ls=":")
        axis.text(scores.chance, len(rows) - 0.2, " chance", fontsize=7, va="bottom")
        among = f"filled: steered; {left_out} others left out" if left_out else "filled: steered"
        title = wrapped(f"Layers ranked by how well they tell {attribute} ({among})", 5.4, 10, bold=True)
        axis.set(xlabel="mean held-out accuracy over timesteps", title=title, ylim=(-1, len(rows) + 0.6))
        for kind in scores.by_kind:
            axis.plot([], [], color=KIND_COLORS[kind], lw=4, label=KIND_NAMES[kind])  # neither filled nor hollow
        axis.legend(frameon=False, loc="lower right")
    return path
