"""The run's page: the figures with the numbers they show, as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from icm_pipeline.report.wording import cautions, describe, title_of
from icm_pipeline.results.comparisons import Compared
from icm_pipeline.results.evaluation import Agreement, Interval, Realism, SideAgreement
from icm_pipeline.text import number_text

TITLES = {
    "twins": "Originals and their steered twins (same seeds)",
    "discrepancy": "FD before and after",
    "heat_map": "Probe accuracy over layers and timesteps",
    "ranking": "Layers ranked",
    "comparison": "Beside the other runs with these originals and judges",
}


def write_page(
    path: Path, this: Compared, figures: dict[str, Path], results: Sequence[Compared], usual: Sequence[str]
) -> Path:
    """Write the page beside its figures and return its path.

    results: this evaluation and those it compares to; usual: the settings of most of them.
    """
    found, fair = this.evaluation, this.evaluation.fairness
    before, after = found.before, found.after
    assert fair.fd_change is not None and fair.worst_share_original is not None
    kept = ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in found.kept.items())
    steered = ", ".join(f"`{layer}`" for layer in this.steering.layers) or "none"
    lines = [
        f"# {title_of(found, this.told)}\n".replace("|", "/"),
        "| | original | steered |\n|---|---|---|",
        *(f"| FD, {prompt} | {before.by_prompt[prompt]:.3f} | {fd:.3f} |" for prompt, fd in after.by_prompt.items()),
        f"| **FD, mean** | {before.mean:.3f} | **{after.mean:.3f}** |",
        "| FD, 95 % interval | | {:.3f} to {:.3f} |".format(*after.interval_95),
        f"| FD of a perfect steerer ({this.steering.assignment}) | | {number_text(fair.fd_floor, '.3f')} |",
        f"| change of FD, 95 % interval of pairs | | {_interval(fair.fd_change.interval_95)} |",
        f"| share of the rarest option | {fair.worst_share_original.mean:.1%} | {fair.worst_share.mean:.1%} |",
        f"| CLIP-I | | {found.clip_i:.3f} |",
        f"| CLIP-T | {found.clip_t_original:.3f} | {found.clip_t:.3f} |",
        f"| SSIM | | {found.ssim:.3f} |",
        *_realism(found.reference),
        f"| show the option they were steered to | | {number_text(found.obeyed, '.1%')} |",
        *([] if found.left_alone is None else [f"| left as they were | | {found.left_alone:.1%} |"]),
        f"| kept | | {kept or '-'} |",
        *_agreement(found.agreement),
        f"\n{found.num_images} images. Steered layers: {steered}.\n",
        *(f"{caution}\n" for caution in cautions(found)),
    ]
    for name, figure in figures.items():
        lines += [f"## {TITLES[name]}", "", f"![{TITLES[name]}]({figure.name})", ""]
    if len(results) > 1:
        lines += _comparison(results, usual)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _comparison(results: Sequence[Compared], usual: Sequence[str]) -> list[str]:
    """Return the table of runs, and below it the settings of most of them."""
    lines = ["| way of steering | FD | FD less this run's (95 %) | CLIP-I | obeyed |", "|---|---|---|---|---|"]
    for row in results:
        label, (fd, clip_i) = describe(row.steering, row.told).replace("|", "/"), row.place
        less = _interval(row.fd_less_this)
        lines.append(f"| {label} | {fd:.3f} | {less} | {clip_i:.3f} | {number_text(row.evaluation.obeyed, '.1%')} |")
    if usual:
        lines += ["", f"Where a row does not say otherwise: {', '.join(f'`{word}`' for word in usual)}."]
    return lines


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else "{:+z.3f} to {:+z.3f}".format(*interval)


def _realism(reference: Realism | None) -> list[str]:
    if reference is None:
        return []
    what = f"to the reference ({reference.num_images} images, features of {reference.features})"
    return [
        f"| FID {what} | {reference.fid_original:z.4f} | {reference.fid:z.4f} |",
        f"| KID {what} | {reference.kid_original:z.4f} | {reference.kid:z.4f} |",
    ]


def _agreement(agreement: Agreement | None) -> list[str]:
    """Return the row of agreement: share and Cohen's kappa of each side."""
    if agreement is None:
        return []
    cells = f"{_agreeing(agreement.original)} | {_agreeing(agreement.steered)}"
    return [f"| {' and '.join(agreement.judges)} agree | {cells} |"]


def _agreeing(side: SideAgreement | None) -> str:
    if side is None or side.share is None:
        return "-"
    return f"{side.share:.1%}" + ("" if side.kappa is None else f" (kappa {side.kappa:z.2f})")
