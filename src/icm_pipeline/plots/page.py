"""The run's page: the figures with the numbers they show, as Markdown."""

from pathlib import Path
from typing import Any

from icm_pipeline.plots.comparison import describe

TITLES = {
    "twins": "Originals and their steered twins (same seeds)",
    "discrepancy": "FD before and after",
    "heat_map": "Probe accuracy over layers and timesteps",
    "ranking": "Layers ranked",
    "comparison": "Beside the other runs of this model and attribute",
}


def write_page(
    path: Path,
    metrics: dict[str, Any],
    selection: dict[str, Any],
    figures: dict[str, Path],
    results: list[dict[str, Any]],
) -> Path:
    """Write the page beside its figures and return its path; `results` are this evaluation and those it compares to."""
    kept = ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in metrics["kept"].items())
    low, high = metrics["fd"]["interval_95"]
    lines = [
        f"# {metrics['attribute'].replace('_', ' ')} on {metrics['model']}: {describe(metrics['steering'])}",
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
        f"| CLIP-I | | {metrics['clip_i']:.3f} |",
        f"| show the option they were steered to | | {metrics['obeyed']:.1%} |",
        f"| kept | | {kept} |",
        "",
        f"{metrics['num_images']} images. Steered layers: {', '.join(f'`{layer}`' for layer in selection['layers'])}.",
        "",
    ]
    for name, figure in figures.items():
        lines += [f"## {TITLES[name]}", "", f"![{TITLES[name]}]({figure.name})", ""]
    if len(results) > 1:
        lines += ["| way of steering | FD | CLIP-I | obeyed |", "|---|---|---|---|"]
        lines += [
            f"| {describe(row['steering'])} | {row['fd']['mean']:.3f} | {row['clip_i']:.3f} | {row['obeyed']:.1%} |"
            for row in results
        ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
