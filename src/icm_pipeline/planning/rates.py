"""How fast this machine was, by the manifests of what it has made: seconds a pass, an image judged, a number fitted."""

import contextlib
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icm_pipeline.config.relevance import relevant
from icm_pipeline.config.schema import Settings
from icm_pipeline.config.values import value_at
from icm_pipeline.generation.jobs import fill_templates
from icm_pipeline.machine.devices import device_name
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.stage import Stage
from icm_pipeline.pipeline.table import STAGES, kinds_of_stages
from icm_pipeline.pipeline.workload import Workload, bytes_kept, passes_per_run
from icm_pipeline.results.bench import ExplicitPrompts, device_seconds, seconds_of, tensors_of
from icm_pipeline.store.artifacts import Artifact, ArtifactError
from icm_pipeline.store.caches import PICTURES
from icm_pipeline.store.shelf import read_shelf

SAME_PICTURES = ("model.path", "model.height", "model.width")


@dataclass(frozen=True)
class MeasuredMethod:
    """What a method took where it was run before; None where it was not."""

    learning: float | None
    """Seconds of its fit, and of what is made for that or chooses its layers."""
    more_seconds: float | None
    """An image takes beyond an unsteered one."""
    size: float | None
    """Bytes of what its fit left for steering."""


class Rates:
    """The speed and the size of pictures that the artifacts of an outputs folder show; the median of several.

    Only artifacts made on a device of the same name count. A resumed stage's time is that of all its jobs, each up to
    the last file that it left.
    """

    def __init__(self, outputs: Path) -> None:
        self._artifacts: dict[str, Artifact] = {}
        with contextlib.suppress(ArtifactError):  # no run has been here
            self._artifacts = read_shelf(outputs, kinds_of_stages()).artifacts

    def seconds(self, stage: Stage, settings: Settings, work: Workload) -> float | None:
        """Return how long a stage's work takes one device, None if nothing like it was measured here."""
        if stage.makes or work.passes:
            rate = self._seconds_per_pass(stage, settings)
            return None if rate is None else rate * work.passes
        if work.values is None:
            return None
        alike = self._alike(stage, settings)
        if not (work.values or work.num_images):
            return _median(device_seconds(artifact) for artifact in alike)
        count = _num_activations if work.values else _num_images
        done = [(artifact, sum(count(parent) for parent in self._parents(artifact))) for artifact in alike]
        rate = _median(device_seconds(artifact) / amount for artifact, amount in done if amount)
        return None if rate is None else rate * (work.values or work.num_images)

    def of_method(self, settings: Settings) -> MeasuredMethod:
        """Return what the method took on a model of the same speed; medians where it was run several times."""
        fits, method = self._alike(STAGES["fit"], settings), method_named(settings.method.name)
        how = relevant(settings, "method", method.reads)
        tried = [each for each in self._alike(STAGES["explicit"], settings) if each.manifest.config["method"] == how]
        told = [ExplicitPrompts.read(artifact) for artifact in tried]
        more = (each.more_seconds for each in told if each.more_seconds is not None)
        parts = [
            _median(seconds_of(artifact) for artifact in self._alike(STAGES[stage], settings))
            for stage in method.learning(settings.method.params, settings.method.look)
        ]
        known = [seconds for seconds in parts if seconds is not None]
        learning = sum(known) if len(known) == len(parts) else None
        return MeasuredMethod(learning, _median(more), _median(map(tensors_of, fits)))

    def picture_bytes(self, settings: Settings) -> float | None:
        """Return what a picture of this model took on disk, None if there is none."""
        manifests = [artifact.manifest for artifact in self._artifacts.values()]
        alike = [manifest.files for manifest in manifests if _agree(manifest.config, settings, SAME_PICTURES)]
        sizes = [entry.size for files in alike for name, entry in files.items() if name.startswith(PICTURES)]
        return statistics.mean(sizes) if sizes else None

    def _alike(self, stage: Stage, settings: Settings) -> list[Artifact]:
        """Return a stage's artifacts that took as long as one of these settings, made on a device of the same name."""
        made = [artifact for artifact in self._artifacts.values() if artifact.stage == stage.name]
        alike = [
            artifact
            for artifact in made
            if _agree(self._config(artifact), settings, stage.same_speed)
            and _agree(own := artifact.manifest.config, settings, [name for name in own if name.startswith("method.")])
        ]
        here = device_name(stage.device(settings)) if alike else ""
        return [artifact for artifact in alike if artifact.manifest.device_name == here]

    def _config(self, artifact: Artifact) -> dict[str, Any]:
        """Return the settings that an artifact and all it was made from stand for."""
        behind = [self._config(parent) for parent in self._parents(artifact)]
        return {name: value for config in (*behind, artifact.manifest.config) for name, value in config.items()}

    def _parents(self, artifact: Artifact) -> list[Artifact]:
        return [self._artifacts[key] for key in artifact.manifest.parents.values() if key in self._artifacts]

    def _seconds_per_pass(self, stage: Stage, settings: Settings) -> float | None:
        """Return seconds a pass from the stage itself, else from the originals, else from any unsteered images.

        Steered images do not count: they may have had their first steps for nothing.
        """
        if settings.plan.seconds_per_image is not None:
            return settings.plan.seconds_per_image / passes_per_run(settings.model.num_steps, settings.model.scheduler)
        unsteered = [one for one in STAGES.values() if one.makes and one.kind == "root"]
        itself, pictures_alone = [stage] * (stage in unsteered), [one for one in unsteered if one.makes == ("images",)]
        for stages in (itself, pictures_alone, unsteered):
            alike = [artifact for one in stages for artifact in self._alike(one, settings)]
            rate = _median(device_seconds(artifact) / passes for artifact in alike if (passes := _num_passes(artifact)))
            if rate is not None:
                return rate
        return None


def _num_images(artifact: Artifact) -> float:
    """Return how many images an artifact's settings ask for, 0 if it makes none."""
    found = artifact.manifest.config
    for name, value in found.items():
        if name.endswith(".named_images"):
            return int(value)
    if "attribute.evaluation_prompts" in found:
        return len(found["attribute.evaluation_prompts"]) * int(found["evaluate.images_per_prompt"])
    if "attribute.probe_templates" in found:
        prompts = fill_templates(found["attribute.probe_templates"], found["attribute.probe_subjects"])
        return len(prompts) * int(found["generate.images_per_prompt"])
    return 0


def _num_passes(artifact: Artifact) -> float:
    found = artifact.manifest.config
    return _num_images(artifact) * passes_per_run(int(found["model.num_steps"]), found["model.scheduler"])


def _num_activations(artifact: Artifact) -> float:
    from icm_pipeline.images.activations import read_recording  # imports torch

    sizes = [entry.size for name, entry in artifact.manifest.files.items() if name.startswith("activations/")]
    num_images = int(_num_images(artifact))
    return sum(sizes) * num_images / bytes_kept(read_recording(artifact).dtype, num_images, 1) if sizes else 0


def _agree(config: Mapping[str, Any], settings: Settings, names: Iterable[str]) -> bool:
    return all(
        name in config and _for_speed(name, config[name]) == _for_speed(name, value_at(settings, name))
        for name in names
    )


def _for_speed(name: str, value: Any) -> Any:
    """Return what of a setting matters to speed; of an attribute's options, only how many there are."""
    return len(value) if name == "attribute.options" else value or None  # format 5 had an empty mapping as a list


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None
