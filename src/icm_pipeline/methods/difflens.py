"""DiffLens: find the sparse features of the middle block h that an option hangs on, and turn them up.

Of a k-sparse autoencoder's codes z of whole maps, the features of option k are those with the most integrated gradients
of a linear classifier's log-odds: sum over steps of (mean z of images that show k - mean z) (D w_k), exact for what is
linear, where the former is positive. With c the constant that makes the change alpha |h| long, `edit=add` adds c to
every one of them, fired or not, `edit=multiply` makes them (1 + alpha) times as large, and what the decoder makes of
the change is added to h.

`edit=vector` is what `add` reduces to: as the same features get the same constant, their columns' sum is one fixed
vector, which is added without any code being read. The two make the same images; so what `add` has over
`method=latent_editing` is how the vector was found.

References:
    Dissecting and Mitigating Diffusion Bias via Mechanistic Interpretability, 2025, https://arxiv.org/abs/2503.20483,
    sections 3.2 to 3.4; its code: kernel 8, additions to conditional rows, and two passes of the denoiser (asymmetric)
Departures: the classifier is a logistic regression of h at each step and the images are the probe dataset's, where the
code attributes the prompt's class between pairs of prompts; 384 features of which 77 are active, of maps of images
instead of 50,000 prompts' for 10,240; an option's constant is set by the length of the change, not absolute; quotas.
"""

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import DRAWN, LABELLED, LENGTH, WINDOW, Fit, Method, MethodInputs
from icm_pipeline.methods.latent_editing import no_bottleneck

if TYPE_CHECKING:
    from torch import Tensor

    from icm_pipeline.arrays import Ints
    from icm_pipeline.backbones.base import Backbone
    from icm_pipeline.methods.base import ProbeData
    from icm_pipeline.methods.sparse_codes import SparseCodes

EDITS = ("add", "multiply", "vector")


def attributed(codes: "Tensor", weights: "Tensor", labels: "Ints", sparse: "SparseCodes") -> "Tensor":
    """Return the integrated gradients [K, F] of a step; codes: [n, F], weights: of the classifier [K, D], labels: [n].

    From the mean of all images' codes to that of each option's, of each option's log-odds against the others' mean; 0
    for a feature that fires less for the option, which to turn up would speak against it.
    """
    import torch

    shown = torch.from_numpy(labels).to(codes.device)
    means = torch.stack([codes[shown == option].mean(0) for option in range(len(weights))])
    against = (weights - weights.mean(0)) * len(weights) / (len(weights) - 1)
    return (means - codes[shown >= 0].mean(0)).clamp_min(0) * (sparse.scale * against @ sparse.decoder.mT)


def chosen_features(attributions: "Tensor", count: int) -> "Tensor":
    """Return which so many features are each option's, 1 or 0 [K, F]: those that speak most for it, if they do."""
    from icm_pipeline.methods.sparse_codes import top

    return (top(attributions, count) > 0).float()


def edited(
    tokens: "Tensor", numbers: Any, options: "Tensor", sparse: "SparseCodes", alphas: "Tensor", unit: str, edit: str
) -> "Tensor":
    """Return maps [n, s, d] with the features of each image's option turned up."""
    import torch

    from icm_pipeline.methods.learnt import push

    shift = push(numbers, options, alphas, unit)
    if edit == "vector":
        return tokens + shift.view(tokens.shape)
    chosen = numbers["chosen"][options]
    if edit == "add":
        length = torch.linalg.vector_norm(shift, dim=1) * alphas.to(shift)[options].sign()
        change = (length / numbers["length"][options].clamp_min(1e-12))[:, None] * chosen
    else:
        change = alphas.to(tokens)[options, None] * chosen * sparse.codes(tokens.flatten(1))
    return tokens + sparse.decoded(change).view(tokens.shape)


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    import logging

    import torch

    from icm_pipeline.methods.h_distribution import classifiers_of_h
    from icm_pipeline.methods.learnt import Learnt
    from icm_pipeline.methods.training import forget

    data, params, layer = inputs.probe_data, inputs.settings.method.params, backbone.family.bottleneck
    assert data is not None and data.recorded is not None
    device = backbone.pipe._execution_device
    sparse = _codes_of(data, layer, inputs.settings, device, folder)
    readers = classifiers_of_h(backbone, inputs)
    attributions, norms, left = (
        torch.zeros(len(readers[0].bias), params["features"]),
        list[torch.Tensor](),
        list[float](),
    )
    for maps, reader in zip(data.by_step(layer), readers, strict=True):
        h = maps[:, 0].to(device)
        attributions += attributed(sparse.codes(h), reader.weights[layer].to(device), data.labels, sparse).cpu()
        norms.append(torch.linalg.vector_norm(h, dim=1).mean().cpu())
        left.append(sparse.unexplained(h))
    logging.getLogger(__name__).info("fit: codes leave %.3f to %.3f of h unexplained", min(left), max(left))
    chosen = chosen_features(attributions, params["per_option"])
    columns = sparse.to("cpu").decoded(chosen)
    length = torch.linalg.vector_norm(columns, dim=1)
    own = {"direction": columns / length[:, None].clamp_min(1e-12), "length": length, "chosen": chosen}
    every = {name: each.expand(len(norms), *each.shape) for name, each in own.items()}
    Learnt({layer: {**every, "norm": torch.stack(norms)}}, data.recorded.noise_levels).save(folder)
    sparse.save(folder)
    forget(folder)
    return len(data.labels)


def _codes_of(data: "ProbeData", layer: str, settings: Settings, device: Any, folder: Path) -> "SparseCodes":
    """Train on maps of all images at all steps, a batch of images at a step of its own."""
    import torch

    from icm_pipeline.methods.sparse_codes import fit_codes

    params, pooled, num_images = settings.method.params, data.read(layer), len(data.labels)
    mean = torch.stack([maps[:, 0].mean(0) for maps in data.by_step(layer)]).mean(0)
    scale = torch.stack([(maps[:, 0] - mean).square().mean() for maps in data.by_step(layer)]).mean().sqrt()

    def draw(generator: torch.Generator) -> "Tensor":
        step = int(torch.randint(pooled.shape[1], (), generator=generator))
        rows = torch.randperm(num_images, generator=generator)[: params["batch"]]
        return pooled.rows(rows, step, step + 1)[0]

    return fit_codes(
        draw, mean.to(device), scale.to(device), params["features"], params["active"], params["updates"],
        params["learning_rate"], settings.seed, folder,
    )  # fmt: skip


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.methods.latent_editing import moved_at_bottleneck
    from icm_pipeline.methods.learnt import alphas_of
    from icm_pipeline.methods.sparse_codes import FILE, load_codes

    settings = inputs.settings
    sparse = load_codes(inputs.artifacts["fit"].path(FILE)).to(backbone.pipe._execution_device)
    move = partial(
        edited, sparse=sparse, alphas=alphas_of(inputs), unit=settings.method.alpha_unit,
        edit=settings.method.params["edit"],
    )  # fmt: skip
    return moved_at_bottleneck(backbone, inputs, jobs, move)


def _draws(settings: Settings) -> bool:
    if (edit := settings.method.params.get("edit")) not in EDITS:
        raise ConfigError(f"method.params.edit={edit} is not known; choose from {', '.join(EDITS)}.")
    return True


FITTED = ("features", "active", "per_option", "updates", "batch", "learning_rate")
METHOD = Method(
    name="difflens",
    applied=_applied,
    words=lambda steering: [f"DiffLens, {steering.params['edit']}", f"alpha {steering.alpha:g}"],
    reads=(*LENGTH, *WINDOW, *DRAWN),
    params=("edit", "asymmetric", *FITTED),
    from_first_step=True,
    draws=_draws,
    why_not=no_bottleneck,
    fit=Fit(
        _fit,
        needs=(*LABELLED, "maps"),
        reads=("method.name", "probe.group_by_prompt", *(f"method.params.{name}" for name in FITTED)),
    ),
    asks_for="labelled probe images and their bottleneck maps; training of an autoencoder; a UNet",
    scaled_down="maps of the probe dataset instead of 50,000 images",
    published={"features": 5120},
)
