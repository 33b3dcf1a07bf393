"""How fast this machine was, by the manifests of what it has made: seconds a pass, an image judged, a number fitted."""

import statistics
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from icm_pipeline.config.schema import Settings, value_at
from icm_pipeline.generation.jobs import fill_templates
from icm_pipeline.machine.devices import device_name
from icm_pipeline.pipeline.table import STAGES, kinds_of_stages
from icm_pipeline.planning.workload import Workload, passes_per_run
from icm_pipeline.store.artifacts import Artifact, ArtifactError
from icm_pipeline.store.shelf import read_shelf

DENOISING = ("generate", "extract", "originals", "steer")
# The settings that two runs must share for the speed of one to tell that of the other.
SAME_SPEED = {
    "denoising": (
        "model.path", "model.dtype", "model.guidance_scale", "model.scheduler", "model.height", "model.width",
        "model.call",
    ),
    "label": ("labeler.kind", "labeler.model", "labeler.path", "labeler.faces", "labeler.detector"),
    "evaluate": (
        "judge.kind", "judge.model", "judge.path", "judge.faces", "judge.detector", "evaluate.clip.model",
        "evaluate.clip.path", "labeler.kind", "labeler.model", "labeler.path", "evaluate.reference",
    ),
}  # fmt: skip
SAME_PICTURES = ("model.path", "model.height", "model.width")


class Rates:
    """What the artifacts of an outputs folder tell of speed and of pictures' sizes; medians where there are several.

    Only artifacts made on a device of the same name count. A resumed stage's time is that of its last job, so that the
    median of few artifacts may be too low.
    """

    def __init__(self, outputs: Path) -> None:
        self._outputs = outputs

    def seconds(self, stage: str, settings: Settings, work: Workload) -> float | None:
        """Return how long a stage's work takes one device, None if nothing of its kind was measured here."""
        if stage in DENOISING:
            rate = self._seconds_per_pass(stage, settings)
            return None if rate is None else rate * work.passes
        if stage == "probe":
            rate = self._seconds_per_value(settings)
            return None if rate is None or work.values is None else rate * work.values
        if stage in ("label", "evaluate"):
            alike = self._alike(stage, settings, SAME_SPEED[stage])
            rate = _median(_seconds(a) / images for a in alike if (images := self._judged_images(a)))
            return None if rate is None else rate * work.num_images
        return _median(_seconds(artifact) for artifact in self._alike(stage, settings, ()))

    def picture_bytes(self, settings: Settings) -> float | None:
        """Return what a picture of this model took on disk, None if there is none."""
        pictures = [
            entry.size
            for artifact in self._artifacts.values()
            if _has_settings(artifact, settings, SAME_PICTURES)
            for name, entry in artifact.manifest.files.items()
            if name.startswith("images/")
        ]
        return statistics.mean(pictures) if pictures else None

    @cached_property
    def _artifacts(self) -> dict[str, Artifact]:
        try:
            return read_shelf(self._outputs, kinds_of_stages()).artifacts
        except ArtifactError:  # no run has been here
            return {}

    def _alike(self, stage: str, settings: Settings, names: tuple[str, ...]) -> list[Artifact]:
        """Return a stage's artifacts with the same values of some settings, made on a device of the same name."""
        alike = [
            artifact
            for artifact in self._artifacts.values()
            if artifact.stage == stage and _has_settings(artifact, settings, names)
        ]
        if not alike:
            return []
        here = device_name(STAGES[stage].device(settings))
        return [artifact for artifact in alike if artifact.manifest.device_name == here]

    def _seconds_per_pass(self, stage: str, settings: Settings) -> float | None:
        """Return seconds a pass from the stage itself, else from unsteered images, else from any that were made.

        Steered images tell nothing: they may have had their first steps for nothing. A pass takes them what it takes
        the unsteered.
        """
        if settings.plan.seconds_per_image is not None:
            return settings.plan.seconds_per_image / passes_per_run(settings.model.num_steps, settings.model.scheduler)
        for stages in ((stage,), ("originals",), DENOISING):
            found = [
                _seconds(artifact) / (num_images_of(artifact) * passes_of(artifact))
                for name in stages
                for artifact in self._alike(name, settings, SAME_SPEED["denoising"])
                if name != "steer"
            ]
            if found:
                return statistics.median(found)
        return None

    def _seconds_per_value(self, settings: Settings) -> float | None:
        """Return seconds a number fitted, of probes with as many options on this model's activations."""
        found = []
        for artifact in self._alike("probe", settings, ("probe.solver",)):
            source = self._parent(artifact, "extract") or self._parent(artifact, "generate")
            labelled = self._parent(artifact, "label")
            if source is None or labelled is None or not _has_settings(source, settings, ("model.path",)):
                continue
            if len(labelled.manifest.config["attribute.options"]) == len(settings.attribute.options):
                found.append(_seconds(artifact) / (_activation_bytes(source) / 4))
        return _median(found)

    def _judged_images(self, artifact: Artifact) -> int:
        if artifact.stage == "evaluate":
            source = self._parent(artifact, "originals")
            return 0 if source is None else 2 * num_images_of(source)
        source = self._parent(artifact, "generate")
        return 0 if source is None else num_images_of(source)

    def _parent(self, artifact: Artifact, stage: str) -> Artifact | None:
        return self._artifacts.get(artifact.manifest.parents.get(stage, ""))


def num_images_of(artifact: Artifact) -> int:
    """Return how many images an artifact's settings ask for."""
    found = artifact.manifest.config
    if "attribute.evaluation_prompts" in found:
        return len(found["attribute.evaluation_prompts"]) * int(found["evaluate.images_per_prompt"])
    prompts = fill_templates(found["attribute.probe_templates"], found["attribute.probe_subjects"])
    return len(prompts) * int(found["generate.images_per_prompt"])


def passes_of(artifact: Artifact) -> int:
    found = artifact.manifest.config
    return passes_per_run(int(found["model.num_steps"]), found["model.scheduler"])


def _activation_bytes(artifact: Artifact) -> int:
    return sum(entry.size for name, entry in artifact.manifest.files.items() if name.startswith("activations/"))


def _seconds(artifact: Artifact) -> float:
    """Return the device time an artifact took: that of the job that published it and of all shares."""
    return artifact.manifest.seconds + sum(share.seconds for share in artifact.manifest.shares)


def _has_settings(artifact: Artifact, settings: Settings, names: tuple[str, ...]) -> bool:
    found = artifact.manifest.config
    return all(name in found and found[name] == value_at(settings, name) for name in names)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None
