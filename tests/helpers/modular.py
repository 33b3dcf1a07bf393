"""Modular pipelines of the tiny ones' parts, and the guiders that diffusers has."""

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers.hooks import LayerSkipConfig, SmoothedEnergyGuidanceConfig
from torch import Tensor

from tests.helpers.denoisers import TINY
from tests.helpers.pipelines import built
from tests.helpers.tiny import build

NUM_STEPS, NUM_IMAGES = 4, 4
CLASSES = {
    "sdxl": "StableDiffusionXLModularPipeline", "sd3": "StableDiffusion3ModularPipeline", "flux": "FluxModularPipeline",
    "z_image": "ZImageModularPipeline",
}  # fmt: skip
LAYERS = {
    "sdxl": "mid_block.attentions.0.transformer_blocks.0.attn2", "sd3": "transformer_blocks.1.attn",
    "flux": "single_transformer_blocks.1.attn", "z_image": "layers.1.attention",
}  # fmt: skip
BLOCKS = {  # of which a guider skips or perturbs the first
    "sdxl": "mid_block.attentions.0.transformer_blocks", "sd3": "transformer_blocks", "z_image": "layers"
}  # fmt: skip
PERTURBED = {"skip_attention": False, "skip_attention_scores": True, "skip_ff": False}


def perturbing(blocks: str) -> Any:
    return diffusers.PerturbedAttentionGuidance(
        perturbed_guidance_config=LayerSkipConfig([0], fqn=blocks, **PERTURBED), perturbed_guidance_start=0.0,
        perturbed_guidance_stop=1.0,
    )  # fmt: skip


def skipping(blocks: str) -> Any:
    return diffusers.SkipLayerGuidance(
        skip_layer_config=LayerSkipConfig([0], fqn=blocks), skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0
    )


def smoothing(blocks: str) -> Any:
    return diffusers.SmoothedEnergyGuidance(seg_guidance_config=SmoothedEnergyGuidanceConfig([0], fqn=blocks))


GUIDERS: dict[str, Callable[[str], Any]] = {
    "classifier-free": lambda blocks: diffusers.ClassifierFreeGuidance(guidance_scale=4.0),
    "classifier-free, at first": lambda blocks: diffusers.ClassifierFreeGuidance(guidance_scale=4.0, stop=0.5),
    "classifier-free, off": lambda blocks: diffusers.ClassifierFreeGuidance(guidance_scale=1.0),
    "perturbed attention": perturbing,
    "skipped layers": skipping,
    "adaptive projected": lambda blocks: diffusers.AdaptiveProjectedGuidance(),
    "smoothed energy": smoothing,
    "auto": lambda blocks: diffusers.AutoGuidance(auto_guidance_config=LayerSkipConfig([0], fqn=blocks)),
    "tangential": lambda blocks: diffusers.TangentialClassifierFreeGuidance(),
    "zero star": lambda blocks: diffusers.ClassifierFreeZeroStarGuidance(),
}


def modular(name: str, guider: str = "") -> Any:
    """Build a modular pipeline of a tiny one's parts."""
    pipe = getattr(diffusers, CLASSES[name])()
    parts = {part: value for part, value in built(name).components.items() if part in pipe.component_names}
    pipe.update_components(**parts)
    if guider:
        pipe.update_components(guider=GUIDERS[guider](BLOCKS[name]))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make(pipe: Any, prompts: tuple[str, str] = ("a face", "dog"), num_steps: int = NUM_STEPS) -> Tensor:
    """Return the latents of two images of each of two prompts."""
    given = {}
    if getattr(pipe, "guider", None) is not None:
        given["negative_prompt"] = ["bad", "bad"]
        # By the step that the last run ended at diffusers 0.42.1 decides whether negative prompts are encoded.
        pipe.guider.set_state(step=0, num_inference_steps=num_steps, timestep=None)
    latents: Tensor = pipe(
        prompt=list(prompts), num_images_per_prompt=2, num_inference_steps=num_steps, height=16, width=16,
        generator=torch.Generator().manual_seed(0), output="latents", **given,
    )  # fmt: skip
    return latents


WITHOUT_ENCODERS = {  # run on embeddings alone, of the tiny denoisers
    "qwen_image": "QwenImageModularPipeline", "flux2": "Flux2ModularPipeline",
    "flux2_klein": "Flux2KleinBaseModularPipeline", "krea2": "Krea2ModularPipeline",
    "ernie_image": "ErnieImageModularPipeline",
}  # fmt: skip


def without_encoders(name: str) -> Any:
    """Build a modular pipeline that begins at embeddings and ends at latents."""
    blocks = getattr(diffusers, getattr(diffusers, WITHOUT_ENCODERS[name]).default_blocks_name)()
    for part in ("prompt_enhancer", "text_encoder", "vae_encoder", "decode"):
        blocks.sub_blocks.pop(part, None)
    pipe, parts = blocks.init_pipeline(), build(TINY[name]).components
    pipe.update_components(**{part: value for part, value in parts.items() if part in pipe.component_names and value})
    return pipe
