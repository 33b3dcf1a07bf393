"""The unsteered beginning of a denoising run, computed once and replayed at no cost.

Until the first steered step a steered run does what the unsteered run of the same seeds does. The denoiser's outputs in
those steps are kept and returned in its place; everything around it (guidance, scheduler, noise of stochastic samplers)
runs unchanged, so that any pipeline and scheduler comes to the same latents.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.modules import is_compiled
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.wrapping import wrap_method
from icm_pipeline.store.files import written_whole

log = logging.getLogger(__name__)


class PrefixError(ValueError):
    """Outputs of the denoiser that cannot be kept or put back for this model."""


class Prefix:
    """The denoiser's outputs for each image of a batch before a step.

    outputs: one tensor [calls, parts, ...] per image, where parts are the rows an image has in a call (two under
    classifier-free guidance).
    """

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        self.outputs = tuple(outputs)

    @classmethod
    def of_calls(cls, calls: Sequence[Tensor], num_images: int) -> "Prefix":
        """Split what a batch's calls returned, each [parts * num_images, ...] with the images innermost, by image.

        They leave the device here, once for the batch.
        """
        shapes = {tuple(call.shape) for call in calls}
        if len(shapes) != 1 or not calls[0].numel() or calls[0].shape[0] % num_images:
            raise PrefixError(f"the denoiser returned no tensors of one shape for {num_images} image(s)")
        stacked = torch.stack([call.unflatten(0, (-1, num_images)) for call in calls]).cpu()
        return cls([image.contiguous() for image in stacked.unbind(2)])

    def calls(self) -> list[Tensor]:
        """Return what the denoiser returned in each call for the whole batch."""
        return [call.flatten(0, 1) for call in torch.stack(self.outputs, dim=2)]


class PrefixStore:
    """Prefixes on disk, one file per image, for one set of images and one first steered step.

    A file is written by one rename, so a killed job leaves none half-written and two jobs at once leave the same one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.is_useless = False  # the model's outputs turned out to be none that can be kept

    def load(self, image_ids: Sequence[str]) -> Prefix | None:
        """Return the prefix of these images, None unless that of each is there and can be read."""
        paths = [self._path(image_id) for image_id in image_ids]
        try:
            outputs = [load_file(path)["outputs"] for path in paths]
        except (OSError, SafetensorError, KeyError):
            return None
        return Prefix(outputs) if len({output.shape for output in outputs}) == 1 else None

    def save(self, image_ids: Sequence[str], prefix: Prefix) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for image_id, output in zip(image_ids, prefix.outputs, strict=True):
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
    prefix = store.load(image_ids)
    if prefix is not None:
        with replayed(backbone, prefix):
            yield
        return
    with kept(backbone, clock, before_step) as calls:
        yield
    try:
        store.save(image_ids, Prefix.of_calls(calls, len(image_ids)))
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

    with ExitStack() as stack:
        wrap_method(backbone.denoiser, "forward", keeping, stack)
        yield calls


@contextmanager
def replayed(backbone: Backbone, prefix: Prefix) -> Iterator[None]:
    """Return the kept outputs in the first calls of the denoiser instead of computing them."""
    left = iter(prefix.calls())

    def replaying(forward: Any, *args: Any, **kwargs: Any) -> Any:
        output = next(left, None)
        if output is None:
            return forward(*args, **kwargs)
        return (output.to(backbone.pipe._execution_device),)

    with ExitStack() as stack:
        wrap_method(backbone.denoiser, "forward", replaying, stack)
        yield
