"""The figures of an evaluation. docs/metrics.md says what each means and what it cannot tell."""

from dataclasses import dataclass, field

from icm_pipeline.results.records import INLINE, Record
from icm_pipeline.results.steering import Steering

SIDES = ("original", "steered")
Interval = tuple[float, float]


@dataclass(frozen=True)
class Figure:
    """A figure of every prompt, and the mean over prompts."""

    mean: float
    by_prompt: dict[str, float]


@dataclass(frozen=True)
class Discrepancy(Figure):
    """FD."""

    interval_95: Interval


@dataclass(frozen=True)
class Change:
    """FD of the steered images less FD of the originals, over pairs."""

    mean: float
    interval_95: Interval


@dataclass(frozen=True)
class Fairness:
    """FD and its companions; without originals their figures are None."""

    fd_floor: float | None
    """FD of images that all obey; None if it is not known what they were steered to."""
    prompts_left_out: list[str]
    """Those of which the judge could see no image."""
    fd_original: Discrepancy | None
    parity_gap_original: Figure | None
    worst_share_original: Figure | None
    fd: Discrepancy
    parity_gap: Figure
    worst_share: Figure
    fd_change: Change | None


@dataclass(frozen=True)
class Lost:
    """What is amiss in folders of images; nothing is told of images that the pipeline made."""

    unreadable: dict[str, dict[str, str] | None] | None = None
    """Why pictures cannot be read, by setting (`images`, `reference`) and id."""
    without_twin: list[str] | None = None
    reference_unused: int | None = None
    """Pictures of the reference that are nobody's twin."""
    not_judged: list[str] | None = None
    """Attributes that the judge cannot tell."""


@dataclass(frozen=True)
class SideAgreement:
    """How far two judges agree on one side."""

    table: list[list[int]]
    """Counts [K, K]: row, what the first judge said; column, the second."""
    share: float | None
    kappa: float | None
    unseen: int
    """Images that one of them could not see."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far a second judge sees what the first does."""

    judges: list[str]
    options: list[str]
    original: SideAgreement | None = None
    steered: SideAgreement


@dataclass(frozen=True, kw_only=True)
class Realism:
    """FID and KID of each side against a reference set."""

    num_images: int
    features: str
    """Whose features they compare."""
    fid_original: float | None = None
    kid_original: float | None = None
    kid_original_deviation: float | None = None
    fid: float
    kid: float
    kid_deviation: float


@dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """What was measured of a set of images; None for what needs twins, prompts or options where they are not known."""

    FILE = "metrics.json"
    model: str
    """The model, or the folder of images."""
    attribute: str
    steering: Steering | None
    """None for a folder of images."""
    num_images: int
    lost: Lost = field(metadata=INLINE)
    unseen: dict[str, int]
    """Readable pictures that the judge could not see enough in, of `originals` and `steered`."""
    fd_of: str
    fairness: Fairness = field(metadata=INLINE)
    clip_i: float | None
    clip_t_original: float | None
    clip_t: float | None
    ssim: float | None
    obeyed: float | None
    """The share of images that show the option they were steered to."""
    obeyed_by_option: dict[str, float]
    kept: dict[str, float]
    """The share of pairs whose other attributes stayed as they were."""
    drift: dict[str, float]
    """How far the distribution of other attributes moved: total variation."""
    shares: dict[str, dict[str, dict[str, float]]]
    """The share of images that show an option: {side: {prompt: {option: share}}}."""
    agreement: Agreement | None
    reference: Realism | None

    def rows(self) -> list[tuple[str, float]]:
        """Return every figure under its stable name, `<metric>/mean` or `<metric>/<prompt, option or attribute>`."""
        fair, rows = self.fairness, list[tuple[str, float | None]]()
        rows += [("fd_original/mean", mean_of(fair.fd_original)), ("fd/mean", fair.fd.mean)]
        rows += [("fd/floor", fair.fd_floor), ("fd_change/mean", mean_of(fair.fd_change))]
        rows += [(f"{name}/mean", getattr(self, name)) for name in ("clip_i", "clip_t_original", "clip_t", "ssim")]
        rows += [("obeyed/mean", self.obeyed)]
        realism = ("fid_original", "fid", "kid_original", "kid")
        rows += [(f"{name}/mean", getattr(self.reference, name)) for name in realism if self.reference]
        for name, figure in (("fd_original", fair.fd_original), ("fd", fair.fd)):
            rows += [(f"{name}/{prompt}", value) for prompt, value in (figure.by_prompt if figure else {}).items()]
        for name in ("parity_gap_original", "parity_gap", "worst_share_original", "worst_share"):
            rows += [(f"{name}/mean", mean_of(getattr(fair, name)))]
        for name, values in (("obeyed", self.obeyed_by_option), ("kept", self.kept), ("drift", self.drift)):
            rows += [(f"{name}/{key}", value) for key, value in values.items()]
        for side in SIDES:
            found: SideAgreement | None = getattr(self.agreement, side, None)
            rows += [(f"agreement/{side}", found.share), (f"kappa/{side}", found.kappa)] if found else []
        return [(name, float(value)) for name, value in rows if value is not None]


def mean_of(figure: Figure | Change | None) -> float | None:
    """Return the mean of a figure, None of none."""
    return None if figure is None else figure.mean
