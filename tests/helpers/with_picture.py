"""Pipelines that begin from a picture, on the parts of one that makes images of a prompt alone."""

import inspect
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import nn

CHANNELS = {  # of classes whose denoiser is given the picture besides its latents, or wants as many as the real one's
    "LatentConsistencyModelPipeline": {"unet": {"time_cond_proj_dim": 8}},
    "SanaSprintPipeline": {"transformer": {"guidance_embeds": True}},
    "FluxFillPipeline": {"transformer": {"in_channels": 48, "out_channels": 16}},
    "FluxControlPipeline": {"transformer": {"in_channels": 32, "out_channels": 16}},
    "StableDiffusion3InpaintPipeline": {
        "transformer": {"in_channels": 16, "out_channels": 16}, "vae": {"latent_channels": 16},
    },
}  # fmt: skip


def of_class(pipe: Any, name: str) -> Any:
    """Return a pipeline of a diffusers class on another one's parts, with a ControlNet of its own if it wants one."""
    built_class = getattr(diffusers, name)
    wanted = inspect.signature(built_class).parameters
    parts = {key: part for key, part in pipe.components.items() if key in wanted}
    if "requires_safety_checker" in wanted:
        parts["requires_safety_checker"] = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if "ControlNet" in name:
            parts["controlnet"] = _controlnet(pipe)
        for part, channels in CHANNELS.get(name, {}).items():
            parts[part] = _filled(type(parts[part]).from_config(_config(parts[part]) | channels))
    built = built_class(**{key: part.eval() if isinstance(part, nn.Module) else part for key, part in parts.items()})
    built.set_progress_bar_config(disable=True)
    return built


def _controlnet(pipe: Any) -> nn.Module:
    if hasattr(pipe, "unet"):
        return _filled(diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8)))
    if hasattr(pipe, "text_encoder_3"):
        return _filled(
            diffusers.SD3ControlNetModel.from_transformer(
                pipe.transformer, num_layers=1, num_extra_conditioning_channels=0
            )
        )
    return _filled(
        diffusers.FluxControlNetModel.from_transformer(
            pipe.transformer, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2
        )
    )


def _config(model: Any) -> dict[str, Any]:
    return {key: value for key, value in model.config.items() if not key.startswith("_")}


def _filled(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def make(pipe: Any, num_steps: int = 2, strength: float = 0.5, size: int = 16, **more: Any) -> torch.Tensor:
    """Return the latents that a pipeline of such a class makes of one prompt; half of the schedule where it may."""
    given = {"prompt": "a face", "height": size, "width": size, "strength": strength, **_pictures(type(pipe), size)}
    takes = inspect.signature(type(pipe).__call__).parameters
    given = {name: value for name, value in given.items() if name in takes} | more
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # a control picture is encoded by chance
        torch.manual_seed(0)
        return pipe(num_inference_steps=num_steps, output_type="latent", generator=generator, **given).images


def _pictures(pipeline_class: type, size: int) -> dict[str, Any]:
    """Return the pictures that a class wants besides its prompt."""
    name = pipeline_class.__name__
    image, mask = Image.new("RGB", (size, size), (90, 160, 40)), Image.new("L", (size, size), 255)
    starts_from_one = any(word in name for word in ("Img2Img", "Inpaint", "Fill"))
    is_control = starts_from_one or "control_image" in inspect.signature(pipeline_class.__call__).parameters
    given = {"mask_image": mask, "control_image": image}
    return given | ({"image": image} if starts_from_one or not is_control else {})
