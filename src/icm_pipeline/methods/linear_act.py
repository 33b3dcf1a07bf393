"""Linear-AcT: move each channel of a layer from how it is spread over all images to how over those of an option.

Between one-dimensional distributions optimal transport maps quantile to quantile; its linear form, least squares
w x + b over sorted samples, is applied as lambda (w x + b) + (1 - lambda) x. `map=mean` is the shift of means alone,
Mean-AcT. The linear map holds where x lies in the range of the source's samples; beyond it x is left alone.

References:
    Controlling Language and Diffusion Models by Transporting Activations, 2025, https://arxiv.org/abs/2410.23054,
    section 3
Departures: a map a step instead of one for all; each layer is fitted to the unsteered model, not behind the earlier
layers' transport; what is pooled is what was recorded, the mean over tokens, so the mean of an image's tokens is moved
and every token with it; samples of unequal number are compared at as many quantiles as the fewer have.
"""

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import ACTIVATIONS, DRAWN, LABELLED, WINDOW, Fit, Method, MethodInputs

if TYPE_CHECKING:
    from torch import Tensor

    from icm_pipeline.arrays import Ints
    from icm_pipeline.backbones.base import Backbone

MAPS = ("linear", "mean")


def quantiles(samples: "Tensor", count: int) -> "Tensor":
    """Return so many evenly spaced quantiles [count, ...] of samples [n, ...]; of n themselves if count is n."""
    import torch

    ordered = samples.sort(0).values
    places = ((torch.arange(count) + 0.5) * len(samples) / count - 0.5).clamp(0, len(samples) - 1)
    below = places.floor().long()
    above = (below + 1).clamp_max(len(samples) - 1)
    return torch.lerp(ordered[below], ordered[above], (places - below).view(-1, *[1] * (samples.dim() - 1)))


def transport(source: "Tensor", target: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return slope and intercept [...] of the linear transport from samples [n, ...] to samples [m, ...]."""
    import torch

    count = min(len(source), len(target))
    x, y = quantiles(source, count), quantiles(target, count)
    centred = x - x.mean(0)
    spread = centred.square().sum(0)
    slope = torch.where(spread > 0, (centred * y).sum(0) / spread.clamp_min(1e-30), torch.ones_like(spread))
    return slope, y.mean(0) - slope * x.mean(0)


def fit_transport(activations: "Tensor", labels: "Ints") -> "dict[str, Tensor]":
    """Return a layer's maps from all images to each option's; activations: [n, T, d]; labels: [n], -1 for none."""
    import torch

    shown = torch.from_numpy(labels)
    targets = [activations[shown == option] for option in range(int(shown.max()) + 1)]
    slopes, intercepts = zip(*(transport(activations, target) for target in targets), strict=True)
    return {
        "slope": torch.stack(slopes, 1), "intercept": torch.stack(intercepts, 1), "mean": activations.mean(0),
        "target": torch.stack([target.mean(0) for target in targets], 1),
        "low": activations.amin(0), "high": activations.amax(0),
    }  # fmt: skip


def transported(tokens: "Tensor", numbers: Any, options: "Tensor", strength: float, how: str) -> "Tensor":
    """Return tokens [n, s, d] moved so that their mean is transported towards each image's option."""
    mean = tokens.mean(1)
    if how == "mean":
        moved = numbers["target"][options] - numbers["mean"]
    else:
        moved = numbers["slope"][options] * mean + numbers["intercept"][options] - mean
        moved = moved * ((numbers["low"] <= mean) & (mean <= numbers["high"]))
    return tokens + strength * moved[:, None]


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    from icm_pipeline.methods.learnt import learn

    return learn(inputs.probe_data, inputs.layers, fit_transport, folder)


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.methods.learnt import Moving, load_learnt

    params = inputs.settings.method.params
    move = partial(transported, strength=params["strength"], how=params["map"])
    moving = Moving(load_learnt(inputs), move, inputs, jobs)
    return hooked(backbone, inputs.layers, moving, len(jobs))


def _draws(settings: Settings) -> bool:
    if (how := settings.method.params.get("map")) not in MAPS:
        raise ConfigError(f"method.params.map={how} is not known; choose from {', '.join(MAPS)}.")
    return True


METHOD = Method(
    name="linear_act",
    applied=_applied,
    words=lambda steering: [f"{steering.params['map']} transport", f"lambda {steering.params['strength']:g}"],
    needs=("probe", "select"),
    reads=(*WINDOW, *DRAWN),
    params=("map", "strength"),
    in_layers=True,
    from_first_step=True,
    draws=_draws,
    fit=Fit(_fit, needs=(*LABELLED, ACTIVATIONS, "select"), reads=("method.name",)),
    asks_for="labelled probe images with activations",
    scaled_down="probe images that show an option instead of 2,048 samples a side",
)
