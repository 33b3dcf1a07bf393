"""What a bench finds out of a method beside its evaluation."""

from dataclasses import dataclass
from statistics import median, quantiles
from typing import Self

from icm_pipeline.images.table import read_table
from icm_pipeline.methods.base import Method
from icm_pipeline.results.records import Record
from icm_pipeline.results.steering import FitCost
from icm_pipeline.results.sweeps import Sweep, SweepJob
from icm_pipeline.store.artifacts import Artifact, ArtifactError

KINDS = ("drawn", "batch-coupled", "weights changed", "nothing drawn")


@dataclass(frozen=True)
class TriedStrength:
    """What one strength did to the tuning images, by the labeler."""

    value: float
    fd: float | None
    """Mean over the tuning prompts of which the labeler saw an image at every strength; None if there are none."""
    clip_i: float
    """To the unsteered twins."""
    obeyed: float | None
    """The share of images that show the option they were steered to; None where none was drawn."""


@dataclass(frozen=True)
class StrengthChoice(Record):
    """The strength that stage=strength chose, and the front it chose from."""

    FILE = "strength.json"
    setting: str
    """That is the strength: `alpha` or `params.<name>`."""
    value: float
    clip_i_budget: float
    within_budget: bool
    """Whether the chosen one keeps the budget; if not, none does, and it is the one of greatest CLIP-I."""
    fd_unsteered: float | None
    num_images: int
    """At each strength."""
    num_prompts: int
    tried: list[TriedStrength]

    @property
    def chosen(self) -> TriedStrength:
        return next(each for each in self.tried if each.value == self.value)

    @property
    def is_outdated(self) -> bool:
        """Whether a prompt that the labeler could not see at one strength counted against that one alone.

        Such a prompt is left out of all by now, so that all strengths have an FD or none has, and where none has the
        budget is about CLIP-I alone.
        """
        fds = [self.fd_unsteered, *(each.fd for each in self.tried)]
        if any(fd is not None for fd in fds):
            return None in fds
        return self.within_budget != any(each.clip_i >= self.clip_i_budget for each in self.tried)

    @classmethod
    def read(cls, artifact: Artifact) -> Self:
        """Raises ArtifactError for one that would not be chosen any more, as for what cannot be read."""
        found = super().read(artifact)
        if found.is_outdated:
            raise ArtifactError(
                f"{artifact.path(cls.FILE)} was chosen when a tuning prompt that the labeler could not see at one "
                "strength counted against that strength alone. Run it again with force=true, which also makes again "
                "what was steered by it."
            )
        return found


@dataclass(frozen=True)
class ExplicitPrompts(Record):
    """Whether images of prompts that name an option show it, and how long they take."""

    FILE = "explicit.json"
    num_images: int
    """With the method, and as many without."""
    kept: float
    """The share that shows the option that its prompt names, by the judge; where one is drawn, another was."""
    kept_unsteered: float
    """The same without the method."""
    seconds: float | None
    """An image with the method took, the median of batches; None if an interrupted job made them."""
    seconds_unsteered: float | None
    more: list[float] | None = None
    """What an image took beyond an unsteered one, of each batch; None too of when ways did not take turns."""

    @property
    def more_seconds(self) -> float | None:
        """What an image takes beyond one of the unchanged model, the median of batches."""
        if self.more:
            return median(self.more)
        if self.seconds is None or self.seconds_unsteered is None:
            return None
        return self.seconds - self.seconds_unsteered

    @property
    def more_quartiles(self) -> tuple[float, float] | None:
        """The lower and the upper quartile of that; None of fewer than two batches."""
        if self.more is None or len(self.more) < 2:
            return None
        low, _, high = quantiles(self.more, method="inclusive")
        return low, high


def best_strength(tried: list[TriedStrength], clip_i: float) -> tuple[TriedStrength, bool]:
    """Return the strength of least FD among those that keep a CLIP-I, and whether there are any.

    If there are none, that of greatest CLIP-I. Of equal FD, or where none has one, the one that changes less.
    """
    inside = [each for each in tried if each.clip_i >= clip_i]
    with_fd = [(each.fd, -each.clip_i, each) for each in inside if each.fd is not None]
    if with_fd:
        return min(with_fd, key=lambda row: row[:2])[2], True
    return max(inside or tried, key=lambda each: each.clip_i), bool(inside)


def kind_of(method: Method, job: SweepJob) -> str:
    """Return which of KINDS a benched method is, as FD means something else of each.

    Drawn: each image is steered to an option. Batch-coupled: an image depends on the others of its prompt. Weights
    changed, nothing drawn: FD is that of another model, or of a prompt or activations changed alike for all images.
    """
    if method.whole_prompts:
        return "batch-coupled"
    if job.evaluation.obeyed is not None:
        return "drawn"
    return "weights changed" if method.changes_weights else "nothing drawn"


def is_bench(sweep: Sweep) -> bool:
    return any({"strength", "explicit"} & job.artifacts.keys() for job in sweep.jobs)


def choice_of(job: SweepJob) -> StrengthChoice | None:
    """Return how a job's strength was chosen, if it was."""
    return StrengthChoice.read(job.artifacts["strength"]) if "strength" in job.artifacts else None


def explicit_of(job: SweepJob) -> ExplicitPrompts | None:
    """Return what a job did to prompts that name an option, if that was tried."""
    return ExplicitPrompts.read(job.artifacts["explicit"]) if "explicit" in job.artifacts else None


def learning_seconds(method: Method, job: SweepJob) -> float | None:
    """Return how long a method learnt: its fit, and what was made for that or chose its layers; None if not known."""
    stages = method.learning(job.steering.params, job.steering.look)
    if not set(stages) <= job.artifacts.keys():
        return None
    return sum(seconds_of(job.artifacts[stage]) for stage in stages)


def seconds_of(artifact: Artifact) -> float:
    """Return the device time of what is learnt: of a fit what it notes itself, without loading the model."""
    return FitCost.read(artifact).seconds if artifact.stage == "fit" else device_seconds(artifact)


def device_seconds(artifact: Artifact) -> float:
    """Return the device time an artifact took: that of the job that published it and of all shares."""
    return artifact.manifest.seconds + sum(share.seconds for share in artifact.manifest.shares)


def learning_images(job: SweepJob) -> int:
    """Return how many images a method's fit made or read."""
    return FitCost.read(job.artifacts["fit"]).images if "fit" in job.artifacts else 0


def steered_images(job: SweepJob) -> int | None:
    """Return how many images were steered, tries included; None where all are, once, or where they were removed."""
    if job.steering.assignment != "least_change" or job.steered is None:
        return None
    rows = read_table(job.steered)
    return sum(not row.is_original if row.tried is None else bool(row.tried) for row in rows)


def learnt_bytes(job: SweepJob) -> int:
    """Return the size of what a method takes along to steer: the tensors of its fit, or those beside its images."""
    return sum(tensors_of(job.artifacts[name]) for name in ("fit", "steer") if name in job.artifacts)


def tensors_of(artifact: Artifact) -> int:
    """Return the bytes of an artifact's tensors."""
    return sum(entry.size for name, entry in artifact.manifest.files.items() if name.endswith(".safetensors"))
