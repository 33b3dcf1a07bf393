"""What steering did: FD per prompt before and after, and this run beside every other of the model and attribute."""

from pathlib import Path
from typing import Any

from icm_pipeline.plots.style import KIND_COLORS, KIND_NAMES, ORIGINAL_COLOR, STEERED_COLOR, figure


def plot_discrepancy(path: Path, metrics: dict[str, Any]) -> Path:
    """Draw FD of every prompt and the mean, original beside steered, with the mean's 95 % interval and the floor."""
    prompts = list(metrics["fd"]["by_prompt"])
    with figure(path, (6.4, 3.0)) as (_, axis):
        for side, (name, label, color) in enumerate(
            (("fd_original", "original", ORIGINAL_COLOR), ("fd", "steered", STEERED_COLOR))
        ):
            values = [*metrics[name]["by_prompt"].values(), metrics[name]["mean"]]
            places = [index + 0.38 * side for index in range(len(values))]
            axis.bar(places, values, 0.36, color=color, label=label)
            for place, value in zip(places, values, strict=True):
                axis.text(place, value + 0.012, f"{value:.2f}", ha="center", fontsize=7)
            low, high = metrics[name]["interval_95"]
            axis.plot([places[-1]] * 2, [low, high], color="black", lw=1)
        axis.set_xticks([index + 0.19 for index in range(len(prompts) + 1)], [*(_wrapped(p) for p in prompts), "mean"])
        axis.axhline(metrics["fd_floor"], color="black", lw=0.8, ls=":")
        axis.set_ylabel("FD (lower is better)")
        axis.set_title(f"Fairness discrepancy of {metrics['attribute'].replace('_', ' ')}")
        axis.legend(frameon=False)
    return path


def describe(row: dict[str, Any]) -> str:
    """Return a run's way of steering in a few words."""
    layers = row["layers"]
    kind = KIND_NAMES[layers["kind"]]
    which = {"top": f"best {layers['k']}", "worst": f"worst {layers['k']}", "random": f"random {layers['k']}"}
    where = f"{which.get(layers['rule'], layers['rule'])} {kind}"
    extras = [row["direction"].replace("_", " ")] if row["direction"] != "probe" else []
    return ", ".join([where, f"alpha {row['alpha']:g}", *extras])


def plot_comparison(path: Path, results: list[dict[str, Any]], this: dict[str, Any]) -> Path:
    """Draw every run as a point: FD against CLIP-I, labelled by what was steered; this run is filled."""
    with figure(path, (6.4, 4.0)) as (_, axis):
        original = this["fd_original"]["mean"]
        axis.axvline(original, color=ORIGINAL_COLOR, lw=1.2, ls="--")
        axis.text(
            original, 1.0, " original", color="#5b6570", fontsize=7, va="top", transform=axis.get_xaxis_transform()
        )
        seen: set[str] = set()
        for row in results:
            kind = row["layers"]["kind"]
            same = row["layers"] == this["layers"] and row["alpha"] == this["alpha"]
            color = KIND_COLORS[kind]
            label = None if kind in seen else KIND_NAMES[kind]
            seen.add(kind)
            axis.plot(
                row["fd"]["mean"], row["clip_i"], "o", ms=7, mfc=color if same else "white", mec=color, label=label
            )
            axis.annotate(
                describe(row).replace(f" {KIND_NAMES[kind]}", ""), (row["fd"]["mean"], row["clip_i"]),
                xytext=(6, 3), textcoords="offset points", fontsize=6.5,
            )  # fmt: skip
        axis.set_xlim(left=0)
        axis.margins(x=0.15, y=0.1)
        axis.set_xlabel("FD, mean over prompts (lower is better)")
        axis.set_ylabel("CLIP-I (higher is better)")
        axis.set_title("Ways of steering: how fair against how much of the picture stays")
        axis.legend(frameon=False, loc="lower right")
    return path


def _wrapped(prompt: str) -> str:
    head, _, last = prompt.rpartition(" ")
    return f"{head}\n{last}" if head else last
