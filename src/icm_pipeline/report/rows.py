"""The figures of a run in words, a row each, for its page in Markdown and in HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

from icm_pipeline.report.wording import describe
from icm_pipeline.results.comparisons import Compared
from icm_pipeline.results.evaluation import Agreement, Interval, Realism, SideAgreement
from icm_pipeline.text import number_text

COMPARISON = ["way of steering", "FD", "FD less this run's (95 %)", "CLIP-I", "obeyed"]


@dataclass(frozen=True)
class FigureRow:
    """A figure of the originals and of the steered images; empty where there is none."""

    name: str
    original: str
    steered: str
    is_main: bool = False


def figure_rows(this: Compared) -> list[FigureRow]:
    """Return every figure of a run, rounded."""
    found, fair = this.evaluation, this.evaluation.fairness
    before, after = found.before, found.after
    assert fair.fd_change is not None and fair.worst_share_original is not None
    kept = ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in found.kept.items())
    floor = f"FD of a perfect steerer ({this.steering.assignment})"
    shares = f"{fair.worst_share_original.mean:.1%}", f"{fair.worst_share.mean:.1%}"
    return [
        *(FigureRow(f"FD, {prompt}", f"{before.by_prompt[prompt]:.3f}", f"{fd:.3f}")
          for prompt, fd in after.by_prompt.items()),
        FigureRow("FD, mean", f"{before.mean:.3f}", f"{after.mean:.3f}", is_main=True),
        FigureRow("FD, 95 % interval", "", "{:.3f} to {:.3f}".format(*after.interval_95)),
        FigureRow(floor, "", number_text(fair.fd_floor, ".3f")),
        FigureRow("change of FD, 95 % interval of pairs", "", interval_text(fair.fd_change.interval_95)),
        FigureRow("share of the rarest option", *shares),
        FigureRow("CLIP-I", "", f"{found.clip_i:.3f}"),
        FigureRow("CLIP-T", f"{found.clip_t_original:.3f}", f"{found.clip_t:.3f}"),
        FigureRow("SSIM", "", f"{found.ssim:.3f}"),
        *_realism(found.reference),
        FigureRow("show the option they were steered to", "", number_text(found.obeyed, ".1%")),
        *([] if found.left_alone is None else [FigureRow("left as they were", "", f"{found.left_alone:.1%}")]),
        FigureRow("kept", "", kept or "-"),
        *_agreement(found.agreement),
    ]  # fmt: skip


def comparison_rows(results: Sequence[Compared]) -> list[list[str]]:
    """Return a row of the columns COMPARISON for each run."""
    return [
        [
            describe(row.steering, row.told), f"{row.place[0]:.3f}", interval_text(row.fd_less_this),
            f"{row.place[1]:.3f}", number_text(row.evaluation.obeyed, ".1%"),
        ]
        for row in results
    ]  # fmt: skip


def interval_text(interval: Interval | None) -> str:
    """Return the interval of a difference, with signs; empty if there is none."""
    return "" if interval is None else "{:+z.3f} to {:+z.3f}".format(*interval)


def _realism(reference: Realism | None) -> list[FigureRow]:
    if reference is None:
        return []
    what = f"to the reference ({reference.num_images} images, features of {reference.features})"
    return [
        FigureRow(f"FID {what}", f"{reference.fid_original:z.4f}", f"{reference.fid:z.4f}"),
        FigureRow(f"KID {what}", f"{reference.kid_original:z.4f}", f"{reference.kid:z.4f}"),
    ]


def _agreement(agreement: Agreement | None) -> list[FigureRow]:
    """Return the row of agreement: share and Cohen's kappa of each side."""
    if agreement is None:
        return []
    sides = _agreeing(agreement.original), _agreeing(agreement.steered)
    return [FigureRow(f"{' and '.join(agreement.judges)} agree", *sides)]


def _agreeing(side: SideAgreement | None) -> str:
    if side is None or side.share is None:
        return "-"
    return f"{side.share:.1%}" + ("" if side.kappa is None else f" (kappa {side.kappa:z.2f})")
