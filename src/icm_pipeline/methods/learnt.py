"""What methods learn of layers, step by step: one safetensors file of numbers, and the hook that moves tokens by them.

A step takes the numbers of the recorded step whose noise level is nearest, as steering vectors do.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from icm_pipeline.arrays import Ints
from icm_pipeline.backbones.base import Site
from icm_pipeline.generation.jobs import Job
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.methods.base import MethodInputs, ProbeData
from icm_pipeline.methods.paired import beyond_rounding
from icm_pipeline.methods.readers import nearest_level
from icm_pipeline.progress import working
from icm_pipeline.store.files import written_whole

FILE = "learnt.safetensors"
LEVELS = "noise_levels"  # in the file's metadata
Numbers = Mapping[str, Tensor]
Move = Callable[[Tensor, Numbers, Tensor], Tensor]
"""(tokens [n, s, d], a layer's numbers at the step, the option of each image [n]) -> tokens."""


@dataclass(frozen=True)
class Learnt:
    """Numbers of layers at recorded steps."""

    numbers: Mapping[str, Numbers]
    """{layer: {name: [T, ...]}}, float32."""
    noise_levels: Sequence[float]
    """Of the T recorded steps."""

    def save(self, folder: Path) -> None:
        tensors = {
            f"{name}/{layer}": values.float().contiguous()
            for layer, own in self.numbers.items()
            for name, values in own.items()
        }
        with written_whole(folder / FILE) as partial:
            save_file(tensors, partial, metadata={LEVELS: json.dumps(list(self.noise_levels))})


def load_learnt(inputs: MethodInputs) -> Learnt:
    """Read what stage=fit left."""
    numbers = dict[str, dict[str, Tensor]]()
    with safe_open(inputs.artifacts["fit"].path(FILE), framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            name, _, layer = key.partition("/")
            numbers.setdefault(layer, {})[name] = file.get_tensor(key)
        return Learnt(numbers, json.loads(file.metadata()[LEVELS]))


def learn(
    data: ProbeData | None, layers: Sequence[str], fit: Callable[[Tensor, Ints], dict[str, Tensor]], folder: Path
) -> int:
    """Fit each layer's numbers to its activations [n, 1, d] step by step, and labels [n]; return how many images."""
    assert data is not None and data.recorded is not None
    numbers = dict[str, dict[str, Tensor]]()
    with working("fit", len(layers), "layer") as work:
        for layer in layers:
            found = [fit(activations, data.labels) for activations in data.by_step(layer)]
            numbers[layer] = {name: torch.cat([step[name] for step in found]) for name in found[0]}
            work.advance()
    Learnt(numbers, data.recorded.noise_levels).save(folder)
    return len(data.labels)


def option_means(activations: Tensor, labels: Ints) -> Tensor:
    """Return the mean of each option's images [T, K, d]; activations: [n, T, d]; labels: [n], -1 for none."""
    shown = torch.from_numpy(labels)
    means = [activations[shown == option].mean(0) for option in range(int(shown.max()) + 1)]
    return torch.stack(means, dim=1)


def directions_and_norm(activations: Tensor, labels: Ints) -> dict[str, Tensor]:
    """Return what `push` takes: from the mean over options to each, of unit length or 0, and the mean length."""
    means = option_means(activations, labels)
    norm = torch.linalg.vector_norm(activations, dim=2).mean(0)
    towards = beyond_rounding(means - means.mean(1, keepdim=True), norm[:, None])
    return {"direction": torch.nn.functional.normalize(towards, dim=-1), "norm": norm}


def alphas_of(inputs: MethodInputs) -> Tensor:
    """Return the alpha of each option [K]."""
    settings, tuned = inputs.settings, inputs.tuned
    return torch.tensor([float(tuned[name].alpha if tuned else settings.alpha) for name in settings.attribute.options])


def push(numbers: Numbers, options: Tensor, alphas: Tensor, unit: str) -> Tensor:
    """Return each image's direction [n, d] times its option's alpha; of the mean length if the unit is `relative`."""
    lengths = alphas.to(options.device)[options, None]
    return lengths * (numbers["norm"] if unit == "relative" else 1.0) * numbers["direction"][options]


class Moving:
    """A hook that moves tokens by what was learnt of their layer at the step, within a window of steps."""

    def __init__(self, learnt: Learnt, move: Move, inputs: MethodInputs, jobs: Sequence[Job]) -> None:
        self._learnt, self._move, self._strength = learnt, move, inputs.strength
        self._options = torch.tensor([inputs.option_of.get(job.image_id, -1) for job in jobs])
        self._sent: dict[tuple[str, torch.device], dict[str, Tensor]] = {}

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        if clock.step not in self._strength.window(clock.num_steps):
            return None
        place = site.layer, tokens.device
        if place not in self._sent:
            own = self._learnt.numbers[site.layer]
            self._sent[place] = {name: values.to(tokens.device) for name, values in own.items()}
        slot = nearest_level(self._learnt.noise_levels, clock.noise_level)
        options = self._options if clock.images is None else self._options[list(clock.images)]
        here = {name: values[slot] for name, values in self._sent[place].items()}
        return self._move(tokens.float(), here, options.to(tokens.device)).to(tokens.dtype)
