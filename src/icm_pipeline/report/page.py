"""The run's page: the figures with the numbers they show, as Markdown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icm_pipeline.report.wording import describe

TITLES = {
    "twins": "Originals and their steered twins (same seeds)",
    "discrepancy": "FD before and after",
    "heat_map": "Probe accuracy over layers and timesteps",
    "ranking": "Layers ranked",
    "comparison": "Beside the other runs with these originals and judges",
}


def write_page(
    path: Path,
    metrics: dict[str, Any],
    figures: dict[str, Path],
    results: list[dict[str, Any]],
    usual: Sequence[str],
) -> Path:
    """Write the page beside its figures and return its path; `results` are this evaluation and those it compares to.

    Of a result, `told` are the settings that set it apart from most, whose settings are `usual`, and `fd_less_this` is
    the interval of its FD less this run's, None where it cannot be told. `metrics` are this evaluation's result.
    """
    kept = ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in metrics["kept"].items())
    low, high = metrics["fd"]["interval_95"]
    change = metrics["fd_change"]["interval_95"]
    steered = ", ".join(f"`{layer}`" for layer in metrics["steering"]["layers"]) or "none"
    lines = [
        f"# {metrics['attribute'].replace('_', ' ')} on {metrics['model']}: {_label(metrics)}",
        "",
        "| | original | steered |",
        "|---|---|---|",
        *(
            f"| FD, {prompt} | {value:.3f} | {metrics['fd']['by_prompt'][prompt]:.3f} |"
            for prompt, value in metrics["fd_original"]["by_prompt"].items()
        ),
        f"| **FD, mean** | {metrics['fd_original']['mean']:.3f} | **{metrics['fd']['mean']:.3f}** |",
        f"| FD, 95 % interval | | {low:.3f} to {high:.3f} |",
        f"| FD of a perfect steerer ({metrics['steering']['assignment']}) | | {metrics['fd_floor']:.3f} |",
        f"| change of FD, 95 % interval of pairs | | {_interval(change)} |",
        f"| share of the rarest option | {metrics['worst_share_original']['mean']:.1%} "
        f"| {metrics['worst_share']['mean']:.1%} |",
        f"| CLIP-I | | {metrics['clip_i']:.3f} |",
        f"| CLIP-T | {metrics['clip_t_original']:.3f} | {metrics['clip_t']:.3f} |",
        f"| SSIM | | {metrics['ssim']:.3f} |",
        *_realism(metrics["reference"]),
        f"| show the option they were steered to | | {metrics['obeyed']:.1%} |",
        f"| kept | | {kept or '-'} |",
        *_agreement(metrics["agreement"]),
        "",
        f"{metrics['num_images']} images. Steered layers: {steered}.",
        "",
    ]
    for name, figure in figures.items():
        lines += [f"## {TITLES[name]}", "", f"![{TITLES[name]}]({figure.name})", ""]
    if len(results) > 1:
        lines += _comparison(results, usual)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _comparison(results: list[dict[str, Any]], usual: Sequence[str]) -> list[str]:
    """Return the table of runs, and below it the settings of most of them."""
    lines = ["| way of steering | FD | FD less this run's (95 %) | CLIP-I | obeyed |", "|---|---|---|---|---|"]
    lines += [
        f"| {_label(row)} | {row['fd']['mean']:.3f} | {_interval(row['fd_less_this'])} "
        f"| {row['clip_i']:.3f} | {row['obeyed']:.1%} |"
        for row in results
    ]
    if usual:
        lines += ["", f"Where a row does not say otherwise: {', '.join(f'`{word}`' for word in usual)}."]
    return lines


def _label(result: dict[str, Any]) -> str:
    return describe(result["steering"], result["told"]).replace("|", "/")


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else "{:+z.3f} to {:+z.3f}".format(*interval)


def _realism(reference: dict[str, Any] | None) -> list[str]:
    if reference is None:
        return []
    what = f"{reference['num_images']} images, features of {reference['features']}"
    return [
        f"| {name.upper()} to the reference ({what}) | {reference[name + '_original']:z.4f} | {reference[name]:z.4f} |"
        for name in ("fid", "kid")
    ]


def _agreement(agreement: dict[str, Any] | None) -> list[str]:
    """Return the row of agreement: share and Cohen's kappa of each side."""
    if agreement is None:
        return []
    cells = []
    for side in ("original", "steered"):
        share, kappa = agreement[side]["share"], agreement[side]["kappa"]
        cells.append("-" if share is None else f"{share:.1%}" + ("" if kappa is None else f" (kappa {kappa:z.2f})"))
    return [f"| {' and '.join(agreement['judges'])} agree | {cells[0]} | {cells[1]} |"]
