"""Prompts that differ in the option they name, and what layers give for them, step by step.

"a face of a female teacher", "a face of a male teacher" and, naming none, "a face of a teacher" share a seed.
Directions are from the mean over the options, so that prompts that name none take no part in them; EquiSteer's
thresholds are of those. No subject of an evaluation prompt is among them.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, Site
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job, first_seed
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.methods.learnt import Learnt, directions_and_norm
from icm_pipeline.methods.paired import check_differ
from icm_pipeline.methods.wordings import wordings_of
from icm_pipeline.progress import Work
from icm_pipeline.store.files import written_whole

if TYPE_CHECKING:
    from icm_pipeline.arrays import Ints

LEVELS = "noise_levels"  # beside the layers in a file
RECORDED = "recorded"  # the folder of batches that are done, for a fit that goes on
Seen = Callable[[Tensor, Site, StepClock], Tensor]
"""(tokens [n, s, d], site, clock) -> what is recorded of them [n, 1, m]."""


@dataclass(frozen=True)
class PromptJobs:
    """The jobs of prompts that are alike but for the option they name."""

    jobs: list[Job]
    labels: "Ints"
    """The option that each names [n], -1 for none."""

    def named(self) -> "PromptJobs":
        """Return those that name an option."""
        names = self.labels >= 0
        return PromptJobs([job for job, is_named in zip(self.jobs, names, strict=True) if is_named], self.labels[names])


def prompt_jobs(settings: Settings, num_pairs: int) -> PromptJobs:
    """Return so many sets of prompts, or as many as there are: of none and of each option, with the same seed.

    Raises ValueError where a prompt cannot name every option, or every subject is evaluated.
    """
    jobs, labels = list[Job](), list[int]()
    for number, wording in enumerate(wordings_of(settings, most=num_pairs)):
        seed = first_seed(settings.seed, "named") + number
        texts = enumerate([wording.neutral, *wording.named], start=len(jobs))
        jobs += [Job(f"{place:06d}", text, number, seed) for place, text in texts]
        labels += range(-1, len(settings.attribute.options))
    return PromptJobs(jobs, np.array(labels))


def recorded(
    backbone: Backbone, layers: Sequence[str], jobs: Sequence[Job], settings: Settings, folder: Path, work: Work,
    seen: Seen | None = None,
) -> tuple[dict[str, Tensor], list[float]]:  # fmt: skip
    """Return what layers give for jobs at every step, {layer: [n, T, m]}, and the steps' noise levels.

    seen: what is recorded of tokens; None for their mean, m = d. Batches that are in the folder are not made again,
    however large they are: each file is named by its first job.
    """
    parts, start = list[dict[str, Tensor]](), 0

    def make(batch: list[Job]) -> Batch:
        recorder = Recorder(list(range(settings.model.num_steps)))

        def hook(tokens: Tensor, site: Site, clock: StepClock) -> None:
            recorder(tokens if seen is None else seen(tokens, site, clock), site, clock)

        with hooked(backbone, layers, hook, len(batch)):
            denoise(backbone, batch)
        return Batch(batch, [], recorder.recording())

    folder.mkdir(parents=True, exist_ok=True)
    while start < len(jobs):
        path = folder / f"job-{start:06d}.safetensors"
        if not path.exists():
            batch = list(jobs[start : start + settings.compute.batch_size])
            made = _joined(list(fitting([batch], make, len(batch))))
            with written_whole(path) as partial:
                save_file(made, partial)
        parts.append(load_file(path))
        count = len(parts[-1][layers[0]])
        work.advance(count)
        start += count
    levels = parts[0].pop(LEVELS).tolist()
    return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}, levels


def _joined(made: Sequence[Batch]) -> dict[str, Tensor]:
    """Return one file's tensors of the recordings of some batches."""
    recordings = [each.recording for each in made if each.recording is not None]
    means = {
        layer: torch.cat([recording.activations[layer] for recording in recordings])
        for layer in recordings[0].activations
    }
    return {**means, LEVELS: torch.tensor(recordings[0].noise_levels, dtype=torch.float64)}


def directions_of(outputs: Mapping[str, Tensor], levels: Sequence[float], labels: "Ints") -> Learnt:
    """Return each layer's unit vectors, from the mean over options to each [T, K, d], and mean length [T].

    Raises ValueError for prompts that change no layer.
    """
    named = torch.from_numpy(labels >= 0)
    found = {layer: directions_and_norm(rows[named], labels[labels >= 0]) for layer, rows in outputs.items()}
    check_differ(numbers["direction"] for numbers in found.values())
    return Learnt(found, levels)


def forget_recorded(folder: Path) -> None:
    """Remove what only a fit that goes on needs."""
    shutil.rmtree(folder / RECORDED, ignore_errors=True)
