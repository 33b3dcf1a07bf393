"""EquiSteer: take the directions of all options out of every cross-attention's output and add the drawn one's.

Of a token x - P x + scale m[l, t, k] v[l, t, k], P the projection on the span of all options' vectors, which are
CASteer's. With n and e the means, over prompts that name no option and those that name k, of the largest x.v_k of an
image's tokens, `magnitude=threshold` is m = (n + e) / 2 and `magnitude=mean` m = e, equation 8. A gate leaves images of
explicit prompts alone: those whose largest x.v_k at the first step exceeds that threshold for any option, in one layer.

References:
    EquiSteer, 2026, https://arxiv.org/abs/2607.01147, sections 3.2 to 3.4, equations 5 to 8
Departures: a gate for each image, which then holds for the whole run, where the code has one for a batch and asks it at
one layer of one step; its layer is that with the best AUROC on the fit's own prompts, not one given for each model, and
what runs before it in the first step is left alone; quotas instead of a coin; an orthonormal basis of what the vectors
span, K - 1 dimensions, where the code orthogonalises rounding noise for the last one. Lengths are not given back, as in
the published default.
"""

import json
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import DRAWN, WINDOW, Fit, Method, MethodInputs
from icm_pipeline.methods.concepts import trained_by
from icm_pipeline.methods.uce import no_cross_attention

if TYPE_CHECKING:
    from torch import Tensor

    from icm_pipeline.arrays import Ints
    from icm_pipeline.backbones.base import Backbone, Site
    from icm_pipeline.hooks.clock import StepClock
    from icm_pipeline.methods.learnt import Moving, Numbers

GATE = "gate.json"
CHOICES = {"magnitude": ("threshold", "mean"), "vectors": ("per_step", "first")}


def largest(tokens: "Tensor", directions: "Tensor") -> "Tensor":
    """Return the largest projection of an image's tokens [n, s, d] on each direction [K, d], as [n, K]."""
    return (tokens.float() @ directions.mT).amax(1)


def magnitudes(maxima: "Tensor", labels: "Ints") -> "dict[str, Tensor]":
    """Return what is added of each option, [T, K]; maxima: [n, T, K] of images whose prompts name labels [n] or -1."""
    import torch

    named = torch.from_numpy(labels)
    mean = torch.stack([maxima[named == option, :, option].mean(0) for option in range(maxima.shape[2])], 1)
    return {"threshold": (maxima[named < 0].mean(0) + mean) / 2, "mean": mean}


def auroc(explicit: "Tensor", neutral: "Tensor") -> float:
    """Return the probability that a score of the former exceeds one of the latter, ties for half."""
    difference = explicit[:, None] - neutral
    return float((difference > 0).double().mean() + (difference == 0).double().mean() / 2)


def switched(tokens: "Tensor", numbers: Any, options: "Tensor", scale: float, magnitude: str) -> "Tensor":
    """Return tokens [n, s, d] without all options, and with each image's own."""
    basis, own = numbers["basis"], numbers[magnitude][options, None] * numbers["direction"][options]
    without = tokens - (tokens @ basis.mT) @ basis
    moved: Tensor = without + scale * own[:, None]
    return moved


class Gated:
    """A hook that moves tokens of images whose prompts name nothing, as the gate's layer tells at the first step."""

    def __init__(self, moving: "Moving", layer: str, numbers: "Numbers") -> None:
        """numbers: of the gate's layer at the first step."""
        self._moving, self._layer, self._numbers = moving, layer, numbers
        self._is_open: Tensor | None = None  # for each image; None before it was asked

    def __call__(self, tokens: "Tensor", site: "Site", clock: "StepClock") -> "Tensor | None":
        if site.layer == self._layer and clock.step == 0:
            directions, threshold = (self._numbers[name].to(tokens.device) for name in ("direction", "threshold"))
            self._is_open = (largest(tokens, directions) <= threshold).all(1)
        if self._is_open is None or (moved := self._moving(tokens, site, clock)) is None:
            return None
        is_open = self._is_open if clock.images is None else self._is_open[list(clock.images)]
        return moved.where(is_open[:, None, None], tokens)


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    import torch

    from icm_pipeline.backbones.text_attention import cross_attentions
    from icm_pipeline.methods.learnt import Learnt
    from icm_pipeline.methods.prompt_pairs import RECORDED, directions_of, forget_recorded, prompt_jobs, recorded
    from icm_pipeline.methods.readers import nearest_level
    from icm_pipeline.progress import working
    from icm_pipeline.store.files import write_json

    settings = inputs.settings
    made = prompt_jobs(settings, settings.method.params["pairs"])
    jobs, labels, named, layers = made.jobs, made.labels, made.named(), cross_attentions(backbone)
    with working("fit", len(named.jobs) + len(jobs), "image") as work:
        outputs, levels = recorded(backbone, layers, named.jobs, settings, folder / RECORDED / "outputs", work)
        found = directions_of(outputs, levels, named.labels)

        def seen(tokens: "Tensor", site: "Site", clock: "StepClock") -> "Tensor":
            directions = found.numbers[site.layer]["direction"][nearest_level(levels, clock.noise_level)]
            return largest(tokens, directions.to(tokens.device))[:, None]

        maxima, _ = recorded(backbone, layers, jobs, settings, folder / RECORDED / "maxima", work, seen)
    numbers = dict[str, dict[str, torch.Tensor]]()
    for layer, own in found.numbers.items():
        span = torch.linalg.svd(own["direction"], full_matrices=False).Vh[:, :-1]
        numbers[layer] = {**own, **magnitudes(maxima[layer], labels), "basis": span}
    explicit = torch.from_numpy(labels >= 0)
    exceeds = {layer: (rows[:, 0] - numbers[layer]["threshold"][0]).amax(1) for layer, rows in maxima.items()}
    told = {layer: auroc(scores[explicit], scores[~explicit]) for layer, scores in exceeds.items()}
    write_json(folder / GATE, {"layer": max(told, key=told.__getitem__), "auroc": told})
    Learnt(numbers, levels).save(folder)
    forget_recorded(folder)
    return len(named.jobs) + len(jobs)


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.backbones.text_attention import cross_attentions
    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.methods.learnt import Learnt, Moving, load_learnt

    params, learnt = inputs.settings.method.params, load_learnt(inputs)
    layer = json.loads(inputs.artifacts["fit"].path(GATE).read_text("utf-8"))["layer"]
    first = {name: {key: rows[:1] for key, rows in own.items()} for name, own in learnt.numbers.items()}
    used = Learnt(first, learnt.noise_levels[:1]) if params["vectors"] == "first" else learnt
    moving = Moving(used, partial(switched, scale=params["scale"], magnitude=params["magnitude"]), inputs, jobs)
    gated = Gated(moving, layer, {key: rows[0] for key, rows in learnt.numbers[layer].items()})
    return hooked(backbone, cross_attentions(backbone), gated, len(jobs))


def _draws(settings: Settings) -> bool:
    for name, choices in CHOICES.items():
        if (chosen := settings.method.params.get(name)) not in choices:
            raise ConfigError(f"method.params.{name}={chosen} is not known; choose from {', '.join(choices)}.")
    return True


METHOD = Method(
    name="equisteer",
    applied=_applied,
    words=lambda steering: ["EquiSteer", f"{steering.params['magnitude']} times {steering.params['scale']:g}"],
    reads=(*WINDOW, *DRAWN),
    params=("pairs", "magnitude", "vectors", "scale"),
    draws=_draws,
    why_not=no_cross_attention,
    fit=Fit(_fit, reads=trained_by("pairs")),
    asks_for="prompts that name options, no images; cross-attention",
    published={"pairs": 126},
)
