"""What cross-attention makes of a prompt's tokens: read it, change it by ridge regression, and put weights back.

References:
    Unified Concept Editing in Diffusion Models, 2024, https://arxiv.org/abs/2308.14761, equation 7
    Editing Implicit Assumptions in Text-to-Image Diffusion Models (TIME), 2023, https://arxiv.org/abs/2303.08084
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.modules import path_to, uncompiled
from icm_pipeline.backbones.sites import find_sites
from icm_pipeline.generation.early import given_first
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import batches
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.store.files import written_whole

FILE = "weights.safetensors"


def linear_layers(backbone: Backbone, names: Sequence[str] = ("to_k", "to_v")) -> dict[str, nn.Linear]:
    """Return the cross-attentions' layers that make keys and values of the text, by name, in the network's order."""
    denoiser = uncompiled(backbone.denoiser)
    sites = find_sites(denoiser, {"cross_attention": backbone.family.sites["cross_attention"]})
    return {name: _linear(denoiser, name) for site in sites for name in (f"{site.layer}.{each}" for each in names)}


def _linear(denoiser: nn.Module, name: str) -> nn.Linear:
    layer = path_to(denoiser, name)[-1]
    assert isinstance(layer, nn.Linear)
    return layer


def embedded(backbone: Backbone, prompts: Sequence[str], batch_size: int) -> Tensor:
    """Return what the first cross-attention takes of prompts, [n, tokens, d] in float32, from one step of a run."""
    jobs = [Job(f"{index}", prompt, index, 0) for index, prompt in enumerate(prompts)]
    layer = next(iter(linear_layers(backbone).values()))
    return torch.cat([
        given_first(backbone, layer, batch, lambda args, kwargs, rows: args[0][rows].float().cpu())
        for batch in batches(jobs, batch_size)
    ])  # fmt: skip


def token_ids(backbone: Backbone, prompt: str) -> list[int]:
    """Return the tokens of a prompt with its special ones, not padded."""
    return list(backbone.pipe.tokenizer(prompt).input_ids)


def last_token(backbone: Backbone, prompt: str) -> int:
    """Return the index of a prompt's last token that is none of the special ones."""
    special = set(backbone.pipe.tokenizer.all_special_ids)
    return max(index for index, token in enumerate(token_ids(backbone, prompt)) if token not in special)


def solved(old: Tensor, contexts: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """Return the matrix W [o, d] that least |W c - v|^2 over contexts c and wanted v, plus ridge |W - old|^2.

    contexts: [m, d]; wanted: [m, o]. W (sum of c c' + ridge) = sum of v c' + ridge old.
    """
    c, v, before = contexts.double(), wanted.double(), old.detach().double().cpu()
    normal = c.mT @ c + ridge * torch.eye(c.shape[1], dtype=c.dtype)
    return torch.linalg.solve(normal, (v.mT @ c + ridge * before).mT).mT.to(old.dtype)


def edited(layers: Mapping[str, nn.Linear], contexts: Tensor, goals: Tensor, ridge: float) -> dict[str, Tensor]:
    """Return weights that make of contexts [m, d] what they made of goals [m, d]; a bias cancels."""
    return {
        name: solved(layer.weight, contexts, goals.double() @ layer.weight.detach().double().cpu().mT, ridge)
        for name, layer in layers.items()
    }


@contextmanager
def weights_put(backbone: Backbone, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give layers of the denoiser other weights, and their own back at the end, after an exception too.

    Raises BackboneError for weights that are not in memory.
    """
    denoiser = uncompiled(backbone.denoiser)
    own = {name: _linear(denoiser, name).weight for name in weights}
    if any(weight.is_meta for weight in own.values()):
        raise BackboneError("Weights cannot be changed where compute.offload=sequential keeps them away: set another.")
    before = {name: weight.detach().clone() for name, weight in own.items()}
    try:
        for name, weight in own.items():
            weight.data.copy_(weights[name])
        yield
    finally:
        for name, weight in own.items():
            weight.data.copy_(before[name])


def save_weights(weights: Mapping[str, Tensor], folder: Path) -> None:
    with written_whole(folder / FILE) as partial:
        save_file({name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, partial)


@contextmanager
def applied(backbone: Backbone, inputs: MethodInputs, jobs: list[Job]) -> Iterator[None]:
    """Denoise with the weights that stage=fit left."""
    with weights_put(backbone, load_file(inputs.artifacts["fit"].path(FILE))):
        yield
