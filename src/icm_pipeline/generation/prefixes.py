"""The unsteered beginning of a denoising run, computed once and replayed at no cost.

Until the first steered step a steered run does what the unsteered run of the same seeds does. The denoiser's outputs in
those steps are kept and returned in its place; everything around it (guidance, scheduler, noise of stochastic samplers)
runs unchanged, so that any pipeline and scheduler comes to the same latents.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.modules import is_compiled
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.reached import note_computed
from icm_pipeline.hooks.wrapping import wrapped
from icm_pipeline.store.files import written_whole

log = logging.getLogger(__name__)


class PrefixError(ValueError):
    """Outputs of the denoiser that cannot be kept or put back for this model."""


def split_calls(calls: Sequence[Tensor], num_images: int) -> list[Tensor]:
    """Split what a batch's calls returned, each [parts * num_images, ...] with the images innermost, by image.

    Returns a tensor [calls, parts, ...] per image, where parts are the rows an image has in a call (two under
    classifier-free guidance). They leave the device here, once for the batch.
    """
    shapes = {tuple(call.shape) for call in calls}
    if len(shapes) != 1 or not calls[0].numel() or calls[0].shape[0] % num_images:
        raise PrefixError(f"the denoiser returned no tensors of one shape for {num_images} image(s)")
    stacked = torch.stack([call.unflatten(0, (-1, num_images)) for call in calls]).cpu()
    return [image.contiguous() for image in stacked.unbind(2)]


class PrefixStore:
    """The denoiser's outputs before the first steered step, on disk: a file per image of one set.

    A file is written by one rename, so a killed job leaves none half-written and two jobs at once leave the same one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.is_useless = False  # the model's outputs turned out to be none that can be kept

    def load(self, image_ids: Sequence[str]) -> list[Tensor] | None:
        """Return the outputs for each of these images, None unless all are there and can be read."""
        try:
            outputs = [load_file(self._path(image_id))["outputs"] for image_id in image_ids]
        except (OSError, SafetensorError, KeyError):
            return None
        return outputs if len({output.shape for output in outputs}) == 1 else None

    def save(self, image_ids: Sequence[str], outputs: Sequence[Tensor]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for image_id, output in zip(image_ids, outputs, strict=True):
            with written_whole(self._path(image_id)) as partial:
                save_file({"outputs": output}, partial)

    def _path(self, image_id: str) -> Path:
        return self._folder / f"{image_id}.safetensors"


@contextmanager
def shared_prefix(
    backbone: Backbone, clock: StepClock, store: PrefixStore | None, image_ids: Sequence[str], before_step: int
) -> Iterator[None]:
    """Replay what the store has of these images; keep it there if it has nothing. Without a store nothing happens.

    A model whose outputs cannot be kept is computed as ever, and the log says so; so is a compiled one, which would be
    compiled again.
    """
    if store is None or store.is_useless or is_compiled(backbone.denoiser):
        yield
        return
    outputs = store.load(image_ids)
    if outputs is not None:
        with replayed(backbone, outputs):
            yield
        return
    with kept(backbone, clock, before_step) as calls:
        yield
    try:
        store.save(image_ids, split_calls(calls, len(image_ids)))
    except PrefixError as error:
        store.is_useless = True
        log.warning("The steps before the first steered one are computed again in every run: %s.", error)
    except (OSError, SafetensorError) as error:
        log.warning("The steps before the first steered one could not be kept: %s", error)


@contextmanager
def kept(backbone: Backbone, clock: StepClock, before_step: int) -> Iterator[list[Tensor]]:
    """Keep what the denoiser returns while the clock stands before a step; the list fills as it runs.

    The copies stay on the device, so that no step waits for one; an empty tensor stands for an output that is none.
    """
    calls: list[Tensor] = []

    def keeping(forward: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if clock.step < before_step:
            first = output[0] if isinstance(output, tuple) else None
            calls.append(first.detach().clone() if isinstance(first, Tensor) else torch.empty(0))
        return output

    with wrapped(backbone.denoiser, "forward", keeping):
        yield calls


@contextmanager
def replayed(backbone: Backbone, outputs: Sequence[Tensor]) -> Iterator[None]:
    """Return the outputs kept of a batch's images in the first calls of the denoiser instead of computing them."""
    left = (call.flatten(0, 1) for call in torch.stack(tuple(outputs), dim=2))

    def replaying(forward: Any, *args: Any, **kwargs: Any) -> Any:
        output = next(left, None)
        if output is None:
            return forward(*args, **kwargs)
        note_computed(backbone.denoiser, False)
        return (output.to(backbone.pipe._execution_device),)

    with wrapped(backbone.denoiser, "forward", replaying):
        yield
