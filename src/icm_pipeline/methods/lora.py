"""LoRA fine-tuning, ICM's second use of its layers: chosen layers learn balanced pictures under prompts that leave the
option open, so that the plain prompt gives them. No option is drawn for an image.

W + scale B A in the projections of the chosen attentions, trained by |prediction(a x + s e, neutral prompt) -
target|^2 over latents x that the model makes of prompts that name an option, each option's share of them
method.target_shares. `where=selected` takes the layers that `layers` chooses, so that layers=worst is its control;
`where=self_attention` and `cross_attention` take every such layer. lora.safetensors can be given to diffusers'
`load_lora_weights`.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026,
    https://arxiv.org/abs/2604.06052
    LoRA: Low-Rank Adaptation of Large Language Models, 2021, https://arxiv.org/abs/2106.09685
Departures: the model's own pictures of subjects that are not evaluated, as the published ones are not to be had; rank 8
in place of 50; a constant learning rate; the error is that of what the model predicts (v, flow), at the sampler's
steps. The published fit runs 100 epochs in batches of 4 at a learning rate of 5e-5.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import Fit, Method, MethodInputs
from icm_pipeline.methods.concepts import trained_by
from icm_pipeline.methods.slider import takes_lists
from icm_pipeline.text import installing

if TYPE_CHECKING:
    from torch import Tensor

    from icm_pipeline.backbones.base import Backbone

FILE = "lora.safetensors"
UP = ".lora_B.weight"
WHERE = ("selected", "self_attention", "cross_attention")


def check_peft() -> None:
    """Raise ConfigError where PEFT is not installed."""
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise ConfigError(f"method=lora needs PEFT: {installing('bench')}.")


@contextmanager
def injected(backbone: "Backbone", layers: list[str], rank: int, seed: int = 0) -> "Iterator[None]":
    """Give linear layers of the denoiser PEFT's adapters, and put the layers themselves back, after an exception too.

    Raises ConfigError for a denoiser that cannot be adapted.
    """
    import re

    import torch
    from peft import LoraConfig, inject_adapter_in_model

    from icm_pipeline.backbones.modules import path_to
    from icm_pipeline.methods.denoising import check_trainable
    from icm_pipeline.methods.training import frozen

    check_trainable(backbone)
    denoiser = backbone.denoiser
    own = {layer: path_to(denoiser, layer) for layer in layers}
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules="|".join(map(re.escape, layers)), init_lora_weights="gaussian"
    )
    with frozen(denoiser):
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                inject_adapter_in_model(config, denoiser)
            yield
        finally:
            for layer, way in own.items():
                setattr(way[-2], layer.rpartition(".")[2], way[-1])
            vars(denoiser).pop("peft_config", None)


def _layers_of(backbone: "Backbone", inputs: MethodInputs) -> list[str]:
    """Return the linear layers that are trained; raises ConfigError where nothing of the kind is."""
    from icm_pipeline.methods.low_rank import projections

    where = inputs.settings.method.params["where"]
    kinds = {site.layer: site.kind for site in backbone.sites}
    chosen = inputs.layers if where == "selected" else [layer for layer in kinds if kinds[layer] == where]
    found = projections(backbone, chosen)
    if not found:
        raise ConfigError(
            f"method.params.where={where} chooses no attention of {backbone.name} with projections; it has "
            f"{', '.join(sorted(set(kinds.values())))}."
        )
    return found


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    from icm_pipeline.methods.assignment import target_shares
    from icm_pipeline.methods.denoising import Denoiser
    from icm_pipeline.methods.examples import LATENTS, make_examples
    from icm_pipeline.methods.training import forget, train
    from icm_pipeline.store.files import written_whole

    settings, params = inputs.settings, inputs.settings.method.params
    num_images = params["images"] * len(settings.attribute.options)
    examples = make_examples(backbone, settings, target_shares(settings), num_images, folder)
    denoiser = Denoiser(backbone, examples.neutral)

    def loss(update: int, generator: torch.Generator) -> "Tensor":
        noisy, prompts, _, target = examples.noised(denoiser, params["batch"], generator)
        return (denoiser.predict(noisy, prompts) - target).square().mean()

    with injected(backbone, _layers_of(backbone, inputs), params["rank"], settings.seed):
        trained = {name: weight for name, weight in backbone.denoiser.named_parameters() if weight.requires_grad}
        train(
            trained, loss, params["updates"], params["learning_rate"], settings.seed, folder,
            decay=params["weight_decay"],
        )  # fmt: skip
        weights = get_peft_model_state_dict(backbone.denoiser)
    with written_whole(folder / FILE) as partial:
        save_file(
            {f"{backbone.family.denoiser}.{name}": weight.contiguous() for name, weight in weights.items()}, partial
        )
    forget(folder, LATENTS)
    return num_images


@contextmanager
def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> "Iterator[None]":
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file
    from torch import Tensor

    params, prefix = inputs.settings.method.params, f"{backbone.family.denoiser}."
    weights = dict[str, Tensor]()
    for name, weight in load_file(inputs.artifacts["fit"].path(FILE)).items():
        weights[name.removeprefix(prefix)] = params["scale"] * weight if name.endswith(UP) else weight
    layers = [name.removesuffix(UP) for name in weights if name.endswith(UP)]
    with injected(backbone, layers, params["rank"]):
        set_peft_model_state_dict(backbone.denoiser, weights)
        yield


def _draws(settings: Settings) -> bool:
    check_peft()
    if (where := settings.method.params.get("where")) not in WHERE:
        raise ConfigError(
            f"method.params.where={where} is not known; choose from {', '.join(WHERE)}. The worst layers are "
            "where=selected with layers=worst."
        )
    return False


def _counted(params: Mapping[str, Any], num_options: int) -> dict[str, int]:
    """Return how often the updates see every image; images are of each option."""
    if not {"updates", "batch", "images"} <= params.keys():
        return {}
    return {"epochs": params["updates"] * params["batch"] // (params["images"] * num_options)}


METHOD = Method(
    name="lora",
    applied=_applied,
    words=lambda steering: [
        f"LoRA in {steering.params['where'].replace('_', ' ')} layers", f"scale {steering.params['scale']:g}",
    ],
    reads=("method.name", "method.params"),
    params=("scale", "where", "rank", "images", "updates", "batch", "learning_rate", "weight_decay"),
    draws=_draws,
    changes_weights=True,
    selects=lambda params: params.get("where", WHERE[0]) == WHERE[0],
    why_not=takes_lists,
    fit=Fit(_fit, needs=("select",), reads=(*trained_by(
        "where", "rank", "images", "updates", "batch", "learning_rate", "weight_decay",
    ), "method.target_shares")),
    asks_for="images of prompts that name options; training",
    scaled_down="own images, whose published number is not known",
    published={"rank": 50, "epochs": 100},
    counted=_counted,
)  # fmt: skip
