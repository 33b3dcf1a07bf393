"""What the activations of one early step tell of the finished image: a linear, calibrated probe over several layers."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from icm_pipeline.arrays import Floats
from icm_pipeline.store.files import written_whole

METADATA = "icm_pipeline"
FILE_NAME = "readers.safetensors"
GOOD_ENOUGH = 0.9  # accuracy from which look=auto takes a reader
FAR = 0.1  # radians between a reader's noise level and that of the step it is asked to read, beyond which it is refused


@dataclass(frozen=True)
class Reader:
    """Foretells at one step which option a finished image will show."""

    step: int
    """The recorded step that it reads, from 0."""
    noise_level: float
    """Of that step, see `hooks.clock.noise_levels`."""
    weights: dict[str, Tensor]
    """{layer: [options, d]}, float32, on raw pooled activations."""
    bias: Tensor
    """[options], float32."""
    accuracy: float
    """The share of held-out images whose option it foretells."""

    @property
    def layers(self) -> list[str]:
        return list(self.weights)

    def probabilities(self, activations: Mapping[str, Tensor]) -> Floats:
        """Return the probability of each option [n, options] from the pooled activations of its layers {layer: [n, d]}.

        Raises ValueError for activations of another width than the weights.
        """
        logits = self.bias.double().repeat(len(next(iter(activations.values()))), 1)
        for layer, weights in self.weights.items():
            found = activations[layer]
            if found.shape[-1] != weights.shape[-1]:
                raise ValueError(
                    f"The reader of {layer} is {weights.shape[-1]} wide and its activations {found.shape[-1]}: it was "
                    "made on another model."
                )
            logits += found.cpu().double() @ weights.double().T
        return torch.softmax(logits, dim=1).numpy()


def nearest_level(levels: Sequence[float], noise_level: float) -> int:
    """Return the index of the level that is nearest, the noisier of two.

    Levels are compared as angles, which spreads them evenly at both ends, so that what was made on one schedule serves
    another.
    """
    distances = [round(_apart(level, noise_level), 9) for level in levels]
    return min(range(len(distances)), key=lambda index: (distances[index], -levels[index]))


def _apart(level: float, other: float) -> float:
    return abs(math.asin(min(1.0, level)) - math.asin(min(1.0, other)))


def reader_near(readers: Sequence[Reader], level: float) -> Reader | None:
    """Return the reader whose noise level is nearest, None where all are FAR."""
    near = [reader for reader in readers if _apart(reader.noise_level, level) <= FAR]
    return near[nearest_level([each.noise_level for each in near], level)] if near else None


def reader_for(
    readers: Sequence[Reader], look: int | str, levels: Sequence[float], first_step: int = 0
) -> tuple[int, Reader]:
    """Return after how many steps of a run to read, and what reads the last of them.

    look: a number of steps, or auto for the first reader that is right in GOOD_ENOUGH of held-out images and reads
    first_step or a later one; levels: the noise levels of the run's steps.

    Raises ValueError without readers, for a look that is no step of the run or that none of them reads, and for auto
    where none is good enough.
    """
    if not readers:
        raise ValueError(
            "The vectors hold no readers, which foretell what an image will show: vectors of before there were any, or "
            "made without method.look. Make them again with method.look=auto, or by fit_vectors."
        )
    if look == "auto":
        return _first_good(readers, levels, first_step)
    if isinstance(look, bool) or not isinstance(look, Integral) or not 1 <= look <= len(levels):
        raise ValueError(f"look={look!r}: give a number of steps from 1 to {len(levels)}, the run's, or auto.")
    reader = reader_near(readers, levels[look - 1])
    if reader is None:
        first, last = (nearest_level(levels, each.noise_level) + 1 for each in (readers[0], readers[-1]))
        raise ValueError(f"look={look}: the readers were made for {first} to {last} of this run's {len(levels)} steps.")
    return look, reader


def reader_at(readers: Sequence[Reader], look: int | str, first_step: int = 0) -> Reader:
    """Return what reads after so many steps of such a run as the readers were made with; look: as for `reader_for`.

    first_step: the first that is steered; what comes before is the same whoever is, so auto reads that step or a later.
    Raises ValueError for a number of steps after which none reads, and for auto where none is good enough.
    """
    if look == "auto":
        return _good_enough([reader for reader in readers if reader.step >= first_step])
    found = {reader.step + 1: reader for reader in readers}
    if look not in found:
        raise ValueError(f"look={look}: there are readers after {', '.join(map(str, found))} steps.")
    return found[int(look)]


def good_ones(readers: Sequence[Reader]) -> list[Reader]:
    """Return those that look=auto may take."""
    return [reader for reader in readers if reader.accuracy >= GOOD_ENOUGH]


def _first_good(readers: Sequence[Reader], levels: Sequence[float], first_step: int) -> tuple[int, Reader]:
    """Return what look=auto takes; raises ValueError where no reader is good enough or none of these reads the run."""
    _good_enough(readers)
    steps = [(nearest_level(levels, reader.noise_level), reader) for reader in good_ones(readers)]
    for step, reader in steps:
        if step >= first_step and _apart(reader.noise_level, levels[step]) <= FAR:
            return step + 1, reader
    raise ValueError(
        f"look=auto: steering begins at step {first_step} of this run's {len(levels)}, and no reader that foretells "
        f"{GOOD_ENOUGH:.0%} of the finished images reads that step or a later one (they read what is nearest to step "
        f"{', '.join(str(step) for step, _ in steps)}). Let the window begin earlier, or make vectors on a schedule "
        "like this one."
    )


def _good_enough(readers: Sequence[Reader]) -> Reader:
    for reader in readers:
        if reader.accuracy >= GOOD_ENOUGH:
            return reader
    found = ", ".join(f"{reader.accuracy:.2f} after {reader.step + 1}" for reader in readers)
    raise ValueError(
        f"look=auto: no reader foretells {GOOD_ENOUGH:.0%} of the finished images by half of the run (accuracy {found} "
        "steps). Give a number of steps to take what there is, or method.look=null, which judges finished originals."
    )


def save_readers(readers: Sequence[Reader], path: Path) -> None:
    """Write a safetensors file of readers alone."""
    tensors, details = packed(readers)
    with written_whole(path) as partial:
        save_file(tensors, partial, metadata={METADATA: json.dumps({"readers": details})})


def load_readers(path: Path) -> tuple[Reader, ...]:
    """Read what `save_readers` wrote; raises ValueError for another file."""
    try:
        with safe_open(path, framework="pt") as file:
            return unpacked(file, json.loads(file.metadata()[METADATA])["readers"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as readers: {error!r}") from error


def packed(readers: Sequence[Reader]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return what a file holds of readers: tensors, and what its metadata says of each."""
    tensors: dict[str, Tensor] = {}
    for number, reader in enumerate(readers):
        tensors |= {f"reader/{number}/{layer}": weights.contiguous() for layer, weights in reader.weights.items()}
        tensors[f"reader_bias/{number}"] = reader.bias.contiguous()
    details = [
        {"step": each.step, "noise_level": each.noise_level, "accuracy": each.accuracy, "layers": each.layers}
        for each in readers
    ]
    return tensors, details


def unpacked(file: Any, details: Sequence[Mapping[str, Any]]) -> tuple[Reader, ...]:
    """Return the readers of an open safetensors file; details: what its metadata says of each."""
    return tuple(_read(file, number, about) for number, about in enumerate(details))


def _read(file: Any, number: int, about: Mapping[str, Any]) -> Reader:
    weights = {layer: file.get_tensor(f"reader/{number}/{layer}") for layer in about["layers"]}
    bias = file.get_tensor(f"reader_bias/{number}")
    return Reader(about["step"], about["noise_level"], weights, bias, about["accuracy"])
