"""Pipelines that begin from a picture, on the parts of one that makes images of a prompt alone."""

import inspect
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import nn

CHANNELS = {  # of classes whose denoiser is given the picture besides its latents, or wants as many as the real one's
    "LatentConsistencyModelPipeline": {"unet": {"time_cond_proj_dim": 8}},
    "LatentConsistencyModelImg2ImgPipeline": {"unet": {"time_cond_proj_dim": 8}},
    "SanaSprintPipeline": {"transformer": {"guidance_embeds": True}},
    "SanaSprintImg2ImgPipeline": {"transformer": {"guidance_embeds": True}},
    "StableDiffusionDepth2ImgPipeline": {"unet": {"in_channels": 5}},
    "StableDiffusionUpscalePipeline": {"unet": {"in_channels": 7, "num_class_embeds": 1000}},
    "StableDiffusionInstructPix2PixPipeline": {"unet": {"in_channels": 8}},
    "StableDiffusionXLInstructPix2PixPipeline": {"unet": {"in_channels": 8}},
    "FluxFillPipeline": {"transformer": {"in_channels": 48, "out_channels": 16}},
    "FluxControlPipeline": {"transformer": {"in_channels": 32, "out_channels": 16}},
    "FluxControlImg2ImgPipeline": {"transformer": {"in_channels": 32, "out_channels": 16}},
    "FluxControlInpaintPipeline": {"transformer": {"in_channels": 32, "out_channels": 16}},
    "StableDiffusion3InpaintPipeline": {
        "transformer": {"in_channels": 16, "out_channels": 16}, "vae": {"latent_channels": 16},
    },
}  # fmt: skip
SCHEDULERS: dict[str, Callable[[], Any]] = {  # of classes that take no other
    "LatentConsistencyModelImg2ImgPipeline": diffusers.LCMScheduler,
    "SanaSprintImg2ImgPipeline": diffusers.SCMScheduler,
}


def of_class(pipe: Any, name: str) -> Any:
    """Return a pipeline of a diffusers class on another one's parts, with what it wants besides."""
    built_class = getattr(diffusers, name)
    wanted = inspect.signature(built_class).parameters
    parts = {key: part for key, part in pipe.components.items() if key in wanted}
    if "requires_safety_checker" in wanted:
        parts["requires_safety_checker"] = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if name in SCHEDULERS:
            parts["scheduler"] = SCHEDULERS[name]()
        parts |= {key: part(pipe, name) for key, part in BESIDES.items() if key in wanted and key not in parts}
        for part, channels in CHANNELS.get(name, {}).items():
            parts[part] = _filled(type(parts[part]).from_config(_config(parts[part]) | channels))
    built = built_class(**{key: part.eval() if isinstance(part, nn.Module) else part for key, part in parts.items()})
    built.set_progress_bar_config(disable=True)
    return built


def _controlnet(pipe: Any, name: str) -> nn.Module:
    if "ControlNetUnion" in name:
        made = _like(
            pipe.unet, diffusers.ControlNetUnionModel, conditioning_embedding_out_channels=(8, 8), num_trans_channel=32,
            num_trans_head=2, num_proj_channel=32,
        )  # fmt: skip
    elif hasattr(pipe, "unet"):
        made = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8))
    elif name.startswith("StableDiffusion3"):
        made = diffusers.SD3ControlNetModel.from_transformer(
            pipe.transformer, num_layers=1, num_extra_conditioning_channels=int("Inpaint" in name)
        )
    elif name.startswith("Sana"):
        made = _like(pipe.transformer, diffusers.SanaControlNetModel, num_layers=1)
    elif name.startswith("ZImage"):
        made = diffusers.ZImageControlNetModel(
            control_layers_places=[0], control_refiner_layers_places=[0], dim=32,
            control_in_dim=9 if "Inpaint" in name else 4, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
        )  # fmt: skip
    else:
        made = diffusers.FluxControlNetModel.from_transformer(
            pipe.transformer, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2
        )
    return _filled(made)


BESIDES: dict[str, Callable[[Any, str], Any]] = {
    "controlnet": _controlnet,
    "adapter": lambda pipe, name: diffusers.T2IAdapter(channels=[32, 64], num_res_blocks=1, downscale_factor=2),
    "low_res_scheduler": lambda pipe, name: diffusers.DDPMScheduler(),
    "depth_estimator": lambda pipe, name: None,
    "feature_extractor": lambda pipe, name: None,
}


def _like(model: Any, kind: Any, **more: Any) -> nn.Module:
    """Return a network of a kind with what it shares of a model's configuration."""
    wanted = inspect.signature(kind.__init__).parameters
    return kind(**{key: value for key, value in _config(model).items() if key in wanted} | more)


def _config(model: Any) -> dict[str, Any]:
    return {key: value for key, value in model.config.items() if not key.startswith("_")}


def _filled(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def make(pipe: Any, num_steps: int = 2, strength: float = 0.5, size: int = 16, **more: Any) -> torch.Tensor:
    """Return the latents that a pipeline of such a class makes of one prompt; half of the schedule where it may."""
    given = {
        "prompt": "a face", "height": size, "width": size, "strength": strength, "use_resolution_binning": False,
        **_pictures(type(pipe), size),
    }  # fmt: skip
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
    depth = torch.linspace(0, 1, size * size).view(1, size, size)
    given = {
        "mask_image": mask, "control_image": image, "control_mask": mask, "depth_map": depth,
        **({"control_mode": [0]} if "Union" in name else {}),
    }  # fmt: skip
    return given | ({"image": image} if starts_from_one or not is_control else {})
