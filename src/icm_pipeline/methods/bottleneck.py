"""Shifts of the UNet's middle block h that gradients find: one for each option, the same at every step."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.learnt import Learnt, Moving, load_learnt


def map_shape(backbone: Backbone) -> tuple[int, int]:
    """Return the number of places and of channels of h, from one run."""
    more, seen = backbone.with_bottleneck(), list[tuple[int, int]]()
    with hooked(more, [more.family.bottleneck], lambda tokens, site, clock: seen.append(tuple(tokens.shape[1:])), 1):
        denoise(more, [Job("", "", 0, 0)])
    return seen[0]


@contextmanager
def shifted(backbone: Backbone, shift: Tensor) -> Iterator[None]:
    """Add a shift [n, s, d] to h of n images in one run: the pipeline's own, or one call of the denoiser alone."""
    more, sampling = backbone.with_bottleneck(), backbone.sampling
    assert sampling is not None

    def add(tokens: Tensor, site: Any, clock: Any) -> Tensor:
        return (tokens + shift).to(tokens.dtype)

    with hooked(more, [more.family.bottleneck], add, len(shift)):
        backbone.pipe.scheduler.set_timesteps(sampling.num_steps)  # for a call alone, which then begins a run
        yield


def save_shifts(backbone: Backbone, shifts: Tensor, folder: Path) -> None:
    """Keep the shift of each option [K, s, d], or [K, 1, d] of the same at every place, as of any step."""
    Learnt({backbone.family.bottleneck: {"shift": shifts.detach().cpu()[None]}}, [1.0]).save(folder)


def shifts_applied(backbone: Backbone, inputs: MethodInputs, jobs: Sequence[Job]) -> AbstractContextManager[Any]:
    """Add each image's shift, method.params.scale times as long as it was learnt, in the window of steps."""
    more, scale = backbone.with_bottleneck(), inputs.settings.method.params["scale"]

    def move(tokens: Tensor, numbers: Any, options: Tensor) -> Tensor:
        return tokens + scale * numbers["shift"][options]

    return hooked(more, [more.family.bottleneck], Moving(load_learnt(inputs), move, inputs, jobs), len(jobs))
