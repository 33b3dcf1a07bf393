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
    """FD and its companions; figures of the originals are None if there are none."""

    fd_floor: float | None
    """FD if every image obeyed; None if it is unknown what they were steered to."""
    prompts_left_out: list[str]
    """Prompts without an image that the judge could see."""
    fd_original: Discrepancy | None
    parity_gap_original: Figure | None
    worst_share_original: Figure | None
    fd: Discrepancy
    parity_gap: Figure
    worst_share: Figure
    fd_change: Change | None
    # Younger than many evaluations; of hard labels, None if there is no image with one.
    fd_labels_original: Figure | None = None
    fd_labels: Figure | None = None
    deviation_ratio_original: Figure | None = None
    """DevRat; of each subject where several prompts have it, or else of each prompt."""
    deviation_ratio: Figure | None = None


@dataclass(frozen=True)
class Lost:
    """What could not be judged of folders of images; all None for the pipeline's own images."""

    unreadable: dict[str, dict[str, str] | None] | None = None
    """Why an image cannot be read: {`images` or `reference`: {id: reason}}."""
    without_twin: list[str] | None = None
    reference_unused: int | None = None
    """How many images of the reference are nobody's twin."""
    not_judged: list[str] | None = None
    """Attributes that the judge does not know."""


@dataclass(frozen=True)
class SideAgreement:
    """How often two judges agree on one side."""

    table: list[list[int]]
    """Counts [K, K]: row, what the first judge said; column, the second."""
    share: float | None
    kappa: float | None
    unseen: int
    """Images that one of the two could not judge."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How often a second judge agrees with the first."""

    judges: list[str]
    options: list[str]
    original: SideAgreement | None = None
    steered: SideAgreement


@dataclass(frozen=True, kw_only=True)
class Realism:
    """FID and KID of each side against a reference set."""

    num_images: int
    features: str
    """The network whose features are compared."""
    fid_original: float | None = None
    kid_original: float | None = None
    kid_original_deviation: float | None = None
    fid: float
    kid: float
    kid_deviation: float


@dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """All figures of a set of images; None for those that need unknown twins, prompts or options.

    Example: FD before and after steering, of an artifact on disk::

        found = Evaluation.read(open_artifact(Path("outputs/artifacts/evaluate/tiny-gender-89e6c9a66af8d1ee")))
        print(found.before.mean, found.after.mean)
    """

    FILE = "metrics.json"
    model: str
    """The model, or the name of the folder of images."""
    attribute: str
    steering: Steering | None
    """None for a folder of images."""
    num_images: int
    lost: Lost = field(metadata=INLINE)
    unseen: dict[str, int]
    """How many readable images the judge could not judge, of `originals` and `steered`."""
    fd_of: str
    fairness: Fairness = field(metadata=INLINE)
    clip_i: float | None
    clip_t_original: float | None
    clip_t: float | None
    ssim: float | None
    obeyed: float | None
    """The share of images that show the option they are to show, steered to it or left as they were."""
    obeyed_by_option: dict[str, float]
    kept: dict[str, float]
    """The share of pairs that show the same option of each other attribute."""
    drift: dict[str, float]
    """Total variation of the distribution of each other attribute."""
    shares: dict[str, dict[str, dict[str, float]]]
    """{side: {prompt: {option: share of images that show it}}}."""
    agreement: Agreement | None
    reference: Realism | None
    left_alone: float | None = None
    """The share of images that are the originals, as these showed what they were to or their prompt names an option.

    None where every image was steered whatever it showed.
    """

    @property
    def before(self) -> Discrepancy:
        """FD of the originals; only for an evaluation that has them."""
        assert self.fairness.fd_original is not None
        return self.fairness.fd_original

    @property
    def after(self) -> Discrepancy:
        """FD of the steered images."""
        return self.fairness.fd

    def rows(self) -> list[tuple[str, float]]:
        """Return every figure under its stable name, `<metric>/mean` or `<metric>/<prompt, option or attribute>`."""
        fair, rows = self.fairness, list[tuple[str, float | None]]()
        rows += [("fd_original/mean", mean_of(fair.fd_original)), ("fd/mean", fair.fd.mean)]
        rows += [("fd/floor", fair.fd_floor), ("fd_change/mean", mean_of(fair.fd_change))]
        rows += [(f"{name}/mean", getattr(self, name)) for name in ("clip_i", "clip_t_original", "clip_t", "ssim")]
        rows += [("obeyed/mean", self.obeyed), ("left_alone/mean", self.left_alone)]
        realism = ("fid_original", "fid", "kid_original", "kid")
        rows += [(f"{name}/mean", getattr(self.reference, name)) for name in realism if self.reference]
        for name, figure in (("fd_original", fair.fd_original), ("fd", fair.fd)):
            rows += [(f"{name}/{prompt}", value) for prompt, value in (figure.by_prompt if figure else {}).items()]
        companions = ("parity_gap", "worst_share", "fd_labels", "deviation_ratio")
        for name in (f"{each}{side}" for each in companions for side in ("_original", "")):
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
