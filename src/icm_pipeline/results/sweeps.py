"""The jobs of a sweep, read back from its folder: what was varied, what came out, and which results are on the front.

Every job leaves `result.json` in its output folder: the words that made it, where its artifacts lie, and the error that
ended it, if one did.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icm_pipeline.config.choices import TOLD_BY_STEERING
from icm_pipeline.results.evaluation import Evaluation, Interval
from icm_pipeline.results.records import from_json, to_json
from icm_pipeline.results.steering import Steering
from icm_pipeline.store.artifacts import Artifact, ArtifactError, open_artifact
from icm_pipeline.store.files import write_json
from icm_pipeline.store.fingerprints import make_key

RESULT = "result.json"
STOPPED = "stopped"  # what stands there for an error if a signal ended the job
STEERING_FACTORS = (
    "method", "kind", "rule", "alpha_unit", "direction", "assignment", "vector", "norm_preserving", "target_shares",
)  # fmt: skip
TOLD_BY_FACTORS = re.compile(rf"model|attribute|layers|window|experiment|stage|tracker.*|paths\..*|{TOLD_BY_STEERING}")


@dataclass(frozen=True)
class SweepJob:
    """One evaluated job."""

    name: str
    """Of its folder."""
    subject: str
    """Stands for the originals and how they were judged, within which FD and CLIP-I can be compared."""
    factors: dict[str, Any]
    """What may differ between jobs: model, attribute, kind, rule, k, alpha, ... and whatever else was set."""
    evaluation: Evaluation = field(repr=False)
    steered: Artifact | None = field(default=None, repr=False)
    """Its images, if they are still there."""
    originals: Artifact | None = field(default=None, repr=False)

    @property
    def fd(self) -> float:
        return self.evaluation.fairness.fd.mean

    @property
    def fd_interval(self) -> Interval:
        return self.evaluation.fairness.fd.interval_95

    @property
    def fd_original(self) -> float:
        assert self.evaluation.fairness.fd_original is not None
        return self.evaluation.fairness.fd_original.mean

    @property
    def clip_i(self) -> float:
        assert self.evaluation.clip_i is not None
        return self.evaluation.clip_i


@dataclass(frozen=True)
class Sweep:
    """The evaluated jobs of a sweep, in order, and why the others are left out, by job name."""

    folder: Path
    jobs: tuple[SweepJob, ...]
    left_out: dict[str, str]

    def varied(self) -> list[str]:
        """Return the factors that are not the same in all jobs."""
        names = dict.fromkeys(name for job in self.jobs for name in job.factors)
        return [name for name in names if len({_hashable(job.factors.get(name)) for job in self.jobs}) > 1]

    def front(self) -> list[bool]:
        """Say for each job whether it is on the Pareto front: no other job of its subject dominates it."""
        return [
            not any(other.subject == job.subject and dominates(other, job) for other in self.jobs) for job in self.jobs
        ]


def dominates(one: SweepJob, other: SweepJob) -> bool:
    """Say whether one result is nowhere worse than another and somewhere better: FD low, CLIP-I high."""
    nowhere_worse = one.fd <= other.fd and one.clip_i >= other.clip_i
    return nowhere_worse and (one.fd < other.fd or one.clip_i > other.clip_i)


@dataclass(frozen=True)
class JobResult:
    """What a job leaves in its output folder for a sweep's report."""

    overrides: list[str]
    """The words that made it."""
    artifacts: dict[str, str]
    """The folder of each stage's artifact."""
    error: str | None
    """What ended it, if something did."""

    def find(self, stage: str, outputs: Path) -> Artifact | None:
        """Return a stage's artifact, from where the job left it or from `outputs`, should both have been moved."""
        left = self.artifacts.get(stage)
        if left is None:
            return None
        return open_artifact(Path(left)) or open_artifact(outputs / "artifacts" / stage / Path(left).name)


def write_result(folder: Path, overrides: list[str], artifacts: dict[str, str], error: str | None = None) -> None:
    """Leave a job's result in its output folder; artifacts: {stage: folder}."""
    write_json(folder / RESULT, to_json(JobResult(overrides, artifacts, error)))


def sweep_name(folder: Path) -> str:
    """Return what the runs of a sweep are grouped under: the folder's name, after the day's if that is above it."""
    day = folder.parent.name
    return f"{day}_{folder.name}" if re.fullmatch(r"\d{4}-\d\d-\d\d", day) else folder.name


def read_sweep(folder: Path, outputs: Path) -> Sweep:
    """Read every job below a sweep's folder.

    Artifacts are looked for where the job left them, then in `outputs`, should both have been moved. Raises ValueError
    if the folder holds no jobs or none of them has an evaluation.
    """
    if not folder.is_dir():
        raise ValueError(f"sweep={folder} is no folder. Give the folder that a multirun printed, such as {_EXAMPLE}.")
    folders = [path for path in folder.iterdir() if (path / ".hydra").is_dir() or (path / RESULT).is_file()]
    if not folders:
        raise ValueError(
            f"sweep={folder} is not the folder of a sweep: no job's folder (0, 1, ...) lies in it. "
            f"Give the folder that a multirun printed, such as {_EXAMPLE}."
        )
    jobs, left_out = [], {}
    for path in sorted(folders, key=_number_first):
        try:
            jobs.append(_read_job(path, outputs))
        except (ArtifactError, _NoEvaluationError) as error:
            left_out[path.name] = str(error)
    if not jobs:
        alike: dict[str, list[str]] = {}
        for name, reason in left_out.items():
            alike.setdefault(reason, []).append(name)
        reasons = "\n".join(f"  job {', '.join(names)}: {reason}" for reason, names in alike.items())
        raise ValueError(f"No job of the sweep {folder} has an evaluation:\n{reasons}")
    return Sweep(folder, tuple(jobs), left_out)


_EXAMPLE = "multirun/2026-01-31/20-15-00"


class _NoEvaluationError(Exception):
    """A job without a result to show; the message says why."""


def _number_first(path: Path) -> tuple[int, int, str]:
    return (0, int(path.name), "") if path.name.isdigit() else (1, 0, path.name)


def _read_job(folder: Path, outputs: Path) -> SweepJob:
    try:
        result: JobResult = from_json(JobResult, json.loads((folder / RESULT).read_text("utf-8")))
    except FileNotFoundError:
        raise _NoEvaluationError("did not finish") from None
    except (OSError, ValueError, TypeError) as error:
        raise _NoEvaluationError(f"its {RESULT} cannot be read ({error})") from error
    if result.error:
        raise _NoEvaluationError("was stopped" if result.error == STOPPED else f"failed: {result.error}")
    evaluated = result.find("evaluate", outputs)
    if evaluated is None:
        raise _NoEvaluationError("has no evaluation: it ran another stage, or the artifact was removed")
    evaluation = Evaluation.read(evaluated)
    if evaluation.steering is None:
        raise _NoEvaluationError(f"judged a folder of images; its figures are in {evaluated.folder}")
    factors = _factors(evaluation, evaluation.steering, result.overrides)
    subject = make_key([evaluated.manifest.parents["originals"], evaluated.manifest.settings])
    steered, originals = (result.find(stage, outputs) for stage in ("steer", "originals"))
    return SweepJob(folder.name, subject, factors, evaluation, steered, originals)


def _factors(evaluation: Evaluation, steering: Steering, overrides: list[str]) -> dict[str, Any]:
    told = {
        "model": evaluation.model,
        "attribute": evaluation.attribute,
        **{name: getattr(steering, name) for name in STEERING_FACTORS},
        "k": len(steering.layers),
        "alpha": steering.alpha,
        "first_step": steering.first_step,
        "last_step": "end" if steering.last_step is None else steering.last_step,
    }
    others = dict(word.lstrip("+~").split("=", 1) for word in overrides if "=" in word)
    return told | {name: _parsed(value) for name, value in others.items() if not TOLD_BY_FACTORS.fullmatch(name)}


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _hashable(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
