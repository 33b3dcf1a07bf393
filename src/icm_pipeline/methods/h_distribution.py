"""H-Distribution (Balancing Act): a linear classifier reads the options from the middle block h, step by step, and the
gradient of the distance between a batch's mean prediction and the target shares moves h.

p = mean over the images of a prompt of softmax(W_t h + b_t); h - alpha |h| TV(p, target) g / mean |g|, g the
gradient of KL(p || target) by each image's h, at every step of the window. No option is drawn for an image, and an
image depends on the others of its prompt, or with `group` on those of its part of them. With `rows=both` the mean is
over both halves of guidance, and both are moved, as the published code does.

References:
    Balancing Act: Distribution-Guided Debiasing in Diffusion Models, 2024, https://arxiv.org/abs/2402.18206, section 4
Departures: the published strength, 500 times 600, is absolute, so it depends on the scale of h and on the batch; here a
step is alpha times |h| times the total variation TV that is left, so that a fair batch is left alone. With
`rows=conditional`, the default, only these are read and moved. The classifier is a multinomial logistic regression on
whole maps, its penalty and temperature found by cross-validation instead of a temperature of 8.
"""

import logging
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import LABELLED, LENGTH, WINDOW, Fit, Method, MethodInputs
from icm_pipeline.methods.latent_editing import no_bottleneck

if TYPE_CHECKING:
    from torch import Tensor

    from icm_pipeline.backbones.base import Backbone
    from icm_pipeline.localization.foretelling import Foretelling

ROWS = ("conditional", "both")
FEWEST = 4  # images whose shares a batch can balance
log = logging.getLogger(__name__)


def moved_to(tokens: "Tensor", numbers: Any, options: Any, target: "Tensor", alpha: float, unit: str) -> "Tensor":
    """Return the maps [n, s, d] of a batch moved towards target shares [K] of what the classifier reads."""
    import torch

    with torch.enable_grad():
        h = tokens.detach().flatten(1).requires_grad_()
        shares = (h @ numbers["weights"].mT + numbers["bias"]).softmax(1).mean(0)
        goal = target.to(shares).clamp_min(1e-6)
        distance = (shares * (shares / goal).log()).sum()
        (gradient,) = torch.autograd.grad(distance, h)
    left = (shares.detach() - target.to(shares)).abs().sum() / 2
    length = alpha * numbers["norm"] if unit == "relative" else alpha
    mean = torch.linalg.vector_norm(gradient, dim=1).mean().clamp_min(1e-30)
    return tokens - (length * left / mean * gradient).view(tokens.shape)


def classifiers_of_h(backbone: "Backbone", inputs: MethodInputs) -> "list[Foretelling]":
    """Fit what reads the options from whole maps at every recorded step."""
    import numpy as np

    from icm_pipeline.localization.foretelling import fit_foretellings
    from icm_pipeline.progress import working

    data, settings = inputs.probe_data, inputs.settings
    assert data is not None and data.recorded is not None
    steps, names = range(len(data.recorded.steps)), list(settings.attribute.options)
    groups = np.unique(data.prompts, return_inverse=True)[1] if settings.probe.group_by_prompt else None
    found = fit_foretellings(
        data.read, [backbone.family.bottleneck], steps, data.labels, seed=settings.seed, groups=groups,
        device=settings.probe.device, names=names,
    )  # fmt: skip
    readers = []
    with working("fit", len(steps), "step") as work:
        for reader in found:
            readers.append(reader)
            work.advance()
    accuracies = [reader.accuracy for reader in readers]
    log.info(
        "fit: classifiers of h at %d steps, held-out accuracy %.3f to %.3f",
        len(steps),
        min(accuracies),
        max(accuracies),
    )
    return readers


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    import torch

    from icm_pipeline.methods.learnt import Learnt

    data, layer = inputs.probe_data, backbone.family.bottleneck
    assert data is not None and data.recorded is not None
    readers = classifiers_of_h(backbone, inputs)
    norm = [torch.linalg.vector_norm(maps, dim=2).mean() for maps in data.by_step(layer)]
    numbers = {
        "weights": torch.stack([reader.weights[layer] for reader in readers]),
        "bias": torch.stack([reader.bias for reader in readers]), "norm": torch.stack(norm),
    }  # fmt: skip
    Learnt({layer: numbers}, data.recorded.noise_levels).save(folder)
    return len(data.labels)


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    import torch

    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.methods.assignment import target_shares
    from icm_pipeline.methods.learnt import Moving, load_learnt

    settings, more = inputs.settings, backbone.with_bottleneck()
    own = settings.method.shares_by_prompt
    target = torch.tensor(own.get(jobs[0].prompt) or target_shares(settings))  # a batch is of one prompt
    move = partial(moved_to, target=target, alpha=settings.alpha, unit=settings.method.alpha_unit)
    moving, whole = Moving(load_learnt(inputs), move, inputs, jobs), _rows(settings) == "both"
    return hooked(more, [more.family.bottleneck], moving, len(jobs), whole=whole)


def _rows(settings: Settings) -> str:
    return str(settings.method.params.get("rows", ROWS[0]))  # saved configurations may be from before it


def _draws(settings: Settings) -> bool:
    if (rows := _rows(settings)) not in ROWS:
        raise ConfigError(f"method.params.rows={rows} is not known; choose from {', '.join(ROWS)}.")
    group, num_images = settings.method.params.get("group"), settings.evaluate.images_per_prompt
    if group is not None and (
        not isinstance(group, int) or group < FEWEST or METHOD.batch_size(settings, num_images) < FEWEST
    ):
        raise ConfigError(
            f"method.params.group={group} makes batches of fewer than {FEWEST} of evaluate.images_per_prompt="
            f"{num_images}, of which a batch must be an equal part: give a number of images that divides it."
        )
    return False


def _words(steering: Any) -> list[str]:
    is_both = (steering.params or {}).get("rows") == "both"  # runs from before the setting have none
    group = (steering.params or {}).get("group")
    parts = [*(["both halves of guidance"] if is_both else []), *([f"in groups of {group}"] if group else [])]
    return ["H-Distribution", *parts, f"alpha {steering.alpha:g}"]


METHOD = Method(
    name="h_distribution",
    applied=_applied,
    words=_words,
    reads=(*LENGTH, *WINDOW, "method.name", "method.params", "method.target_shares"),
    params=("rows", "group"),
    from_first_step=True,
    whole_prompts=True,
    draws=_draws,
    why_not=no_bottleneck,
    fit=Fit(_fit, needs=(*LABELLED, "maps"), reads=("method.name", "probe.group_by_prompt")),
    asks_for="labelled probe images and their bottleneck maps; a UNet; a batch of one prompt",
    scaled_down="a few hundred images instead of 1,000 to 2,000 of each option",
)
