"""The jobs of a sweep, read back from its folder: what was varied, the results, and the Pareto front.

Every job leaves a `JobResult` in its output folder, as `result.json`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from icm_pipeline.config.choices import TOLD_BY_STEERING
from icm_pipeline.config.schema import AUTO
from icm_pipeline.results.evaluation import Evaluation
from icm_pipeline.results.records import from_json, to_json
from icm_pipeline.results.steering import Steering
from icm_pipeline.store.artifacts import Artifact, ArtifactError, open_artifact
from icm_pipeline.store.files import write_json
from icm_pipeline.store.fingerprints import make_key

RESULT = "result.json"
SAME = 6  # decimals of FD and CLIP-I that are compared
STOPPED = "stopped"  # the error of a job that a signal ended
BESIDE = (  # what a report takes beside an evaluation
    "steer", "originals", "probe", "foretell", "maps", "fit", "strength", "explicit",
)  # fmt: skip
STEERING_FACTORS = (
    "method", "kind", "rule", "alpha_unit", "direction", "assignment", "vector", "norm_preserving", "target_shares",
    "look", "tries",
)  # fmt: skip
TOLD_BY_FACTORS = re.compile(rf"model|attribute|layers|window|experiment|stage|tracker.*|paths\..*|{TOLD_BY_STEERING}")


@dataclass(frozen=True)
class SweepJob:
    """One evaluated job."""

    name: str
    """The name of its folder."""
    subject: str
    """A hash of the originals and the judging: FD and CLIP-I are comparable within one subject."""
    factors: dict[str, Any]
    """What may vary between jobs: model, attribute, kind, rule, k, alpha, ... and other overrides."""
    evaluation: Evaluation = field(repr=False)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict, repr=False)
    """Its evaluation, and of the stages BESIDE that those that were run and not removed."""
    overrides: tuple[str, ...] = ()
    """Its command line."""

    @property
    def steered(self) -> Artifact | None:
        """The steered images; None if they were removed."""
        return self.artifacts.get("steer")

    @property
    def originals(self) -> Artifact | None:
        return self.artifacts.get("originals")

    @property
    def steering(self) -> Steering:
        """How the pipeline steered its images; a job whose images it did not steer is left out of a sweep."""
        assert self.evaluation.steering is not None
        return self.evaluation.steering

    @property
    def fd(self) -> float:
        return self.evaluation.after.mean

    @property
    def clip_i(self) -> float:
        assert self.evaluation.clip_i is not None
        return self.evaluation.clip_i


@dataclass(frozen=True)
class Sweep:
    """The evaluated jobs of a sweep, in order."""

    folder: Path
    jobs: tuple[SweepJob, ...]
    left_out: dict[str, str]
    """Why a job has no result, by job name."""

    def varied(self) -> list[str]:
        """Return the factors that differ between jobs."""
        return varied_among(self.jobs)

    def telling(self) -> list[str]:
        """Return the factors that name a job: the method alone if it tells all apart, as its file sets the others."""
        methods = {job.factors.get("method") for job in self.jobs}
        return ["method"] if 1 < len(methods) == len(self.jobs) else self.varied()

    def front(self) -> list[bool]:
        """Return for each job whether it is on the Pareto front, that is, not dominated by a job of its subject."""
        return [
            not any(other.subject == job.subject and dominates(other, job) for other in self.jobs) for job in self.jobs
        ]


def varied_among(jobs: Sequence[SweepJob]) -> list[str]:
    """Return the factors that differ between some jobs."""
    names = dict.fromkeys(name for job in jobs for name in job.factors)
    values = {name: {json.dumps(job.factors.get(name), sort_keys=True) for job in jobs} for name in names}
    return [name for name, found in values.items() if len(found) > 1]


def dominates(one: SweepJob, other: SweepJob) -> bool:
    """Return whether one result is nowhere worse (FD lower, CLIP-I higher) than another and somewhere better.

    What differs by less than a judge's rounding, as FD where every image obeys, is the same.
    """
    fds, clips = ([round(value, SAME) for value in pair] for pair in ((one.fd, other.fd), (one.clip_i, other.clip_i)))
    return fds[0] <= fds[1] and clips[0] >= clips[1] and (fds[0], clips[0]) != (fds[1], clips[1])


@dataclass(frozen=True)
class JobResult:
    """What a job leaves in its output folder for a sweep's report."""

    overrides: list[str]
    """Its command line."""
    artifacts: dict[str, str]
    """The folder of each stage's artifact."""
    error: str | None
    """Why it failed, if it did."""

    def find(self, stage: str, outputs: Path) -> Artifact | None:
        """Return a stage's artifact, from where the job left it or, if that was moved, from `outputs`."""
        left = self.artifacts.get(stage)
        if left is None:
            return None
        return open_artifact(Path(left)) or open_artifact(outputs / "artifacts" / stage / Path(left).name)


def write_result(folder: Path, overrides: list[str], artifacts: dict[str, str], error: str | None = None) -> None:
    """Write a job's result into its output folder; artifacts: {stage: folder}."""
    write_json(folder / RESULT, to_json(JobResult(overrides, artifacts, error)))


def sweep_name(folder: Path) -> str:
    """Return the group of a sweep's runs: its folder's name, with the day if the folder above is named by it."""
    day = folder.parent.name
    return f"{day}_{folder.name}" if re.fullmatch(r"\d{4}-\d\d-\d\d", day) else folder.name


def read_sweep(folder: Path, outputs: Path) -> Sweep:
    """Read every job below a sweep's folder.

    Raises ValueError if the folder holds no jobs or none of them has an evaluation.
    """
    advice = "Give the folder that a multirun printed, such as multirun/2026-01-31/20-15-00."
    if not folder.is_dir():
        raise ValueError(f"sweep={folder} is no folder. {advice}")
    found = {path.parent for name in (".hydra", RESULT) for path in folder.rglob(name)} - {folder}
    folders = {path.relative_to(folder).as_posix(): path for path in found}  # hydra.sweep.subdir may have slashes
    if not folders:
        raise ValueError(
            f"sweep={folder} is not the folder of a sweep: no job's folder (0, 1, ...) lies in it. {advice}"
        )
    jobs, left_out = [], {}
    for name in sorted(folders, key=_in_order):
        try:
            jobs.append(_read_job(name, folders[name], outputs))
        except ArtifactError as error:
            left_out[name] = str(error)
    if not jobs:
        alike: dict[str, list[str]] = {}
        for name, reason in left_out.items():
            alike.setdefault(reason, []).append(name)
        reasons = "\n".join(f"  job {', '.join(names)}: {reason}" for reason, names in alike.items())
        raise ValueError(f"No job of the sweep {folder} has an evaluation:\n{reasons}")
    return Sweep(folder, tuple(jobs), left_out)


def _in_order(name: str) -> list[tuple[float, str]]:
    """Return what sorts jobs by their numbers, as far as their folders are numbered."""
    return [(int(part) if part.isdigit() else inf, part) for part in name.split("/")]


def _read_job(name: str, folder: Path, outputs: Path) -> SweepJob:
    """Raises ArtifactError if the job has no evaluation; the message says why."""
    try:
        result: JobResult = from_json(JobResult, json.loads((folder / RESULT).read_text("utf-8")))
    except FileNotFoundError:
        raise ArtifactError("did not finish") from None
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"its {RESULT} cannot be read ({error})") from error
    if result.error:
        raise ArtifactError("was stopped" if result.error == STOPPED else f"failed: {result.error}")
    evaluated = result.find("evaluate", outputs)
    if evaluated is None:
        raise ArtifactError("has no evaluation: it ran another stage, or the artifact was removed")
    evaluation = Evaluation.read(evaluated)
    if evaluation.steering is None:
        raise ArtifactError(f"judged a folder of images; its figures are in {evaluated.folder}")
    factors = _factors(evaluation, evaluation.steering, result.overrides)
    subject = make_key([evaluated.manifest.parents["originals"], evaluated.manifest.settings])
    artifacts = {stage: found for stage in BESIDE if (found := result.find(stage, outputs)) is not None}
    artifacts["evaluate"] = evaluated
    return SweepJob(name, subject, factors, evaluation, artifacts, tuple(result.overrides))


def _factors(evaluation: Evaluation, steering: Steering, overrides: list[str]) -> dict[str, Any]:
    last_step = "end" if steering.last_step is None else steering.last_step
    told: dict[str, Any] = {"model": evaluation.model, "attribute": evaluation.attribute}
    told |= {name: getattr(steering, name) for name in STEERING_FACTORS}
    told |= {"k": len(steering.layers), "alpha": AUTO if steering.tuned else steering.alpha}
    told |= {"first_step": steering.first_step, "last_step": last_step}
    others = dict(word.lstrip("+~").split("=", 1) for word in overrides if "=" in word)
    return told | {name: _parsed(value) for name, value in others.items() if not TOLD_BY_FACTORS.fullmatch(name)}


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
