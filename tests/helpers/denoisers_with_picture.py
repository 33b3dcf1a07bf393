"""Pipelines that begin from a picture, as a denoiser and a scheduler and what sees the picture: rows by their class."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import diffusers

from tests.helpers.denoisers import TINY
from tests.helpers.pipelines import autoencoder, movq
from tests.helpers.stand_ins import Averaging, Untold, pooled_too
from tests.helpers.tiny import LENGTH, WIDTH, Tiny, embedded, picture

_PICTURE = {"image": picture(64, 64), "strength": 0.5}
_MASKED = {**_PICTURE, "mask_image": picture(64, 64).convert("L")}
_MASKED_SMALL = {"image": [picture(8, 8)] * 4, "mask_image": [picture(8, 8).convert("L")] * 4, "strength": 0.5}
_CONTROL = {"control_image": picture(64, 64)}


def _row(name: str, pipeline: str, more: Mapping[str, Any], **changes: Any) -> Tiny:
    tiny = TINY[name]
    changes["parts"] = {**tiny.parts, **changes.get("parts", {})}
    return replace(tiny, pipeline=pipeline, more={**tiny.more, **more}, **changes)


def _denoiser(name: str, **changes: Any) -> tuple[str, Mapping[str, Any]]:
    kind, config = TINY[name].denoiser
    return kind, {**config, **changes}


_SEEN = {"vae": lambda: autoencoder(4, shift=0.1)}
_SEEN_BY_QWEN = {"vae": lambda: Averaging(2)}
_SEEN_BY_MOVQ = {"movq": movq}


def _qwen_controlnet(**more: Any) -> Any:
    config = TINY["qwen_image"].denoiser[1]
    return diffusers.QwenImageControlNetModel(**{**config, "num_layers": 1, **more})


def _hunyuan_controlnet() -> Any:
    config = TINY["hunyuan_dit"].denoiser[1]
    given = {name: value for name, value in config.items() if name != "num_layers"}
    return diffusers.HunyuanDiT2DControlNetModel(**given, transformer_num_layers=config["num_layers"])


_QWEN = dict(parts=_SEEN_BY_QWEN, size=32)
_UPSCALED = dict(
    denoiser=_denoiser("deepfloyd_if", in_channels=6, class_embed_type="timestep"),
    parts={"image_noising_scheduler": diffusers.DDPMScheduler},
)
_ROWS = (
    _row("chroma", "ChromaImg2ImgPipeline", _PICTURE, parts=_SEEN, size=16),
    _row("chroma", "ChromaInpaintPipeline", _MASKED, parts=_SEEN, size=16, published={"guidance_embeds": False}),
    _row("qwen_image", "QwenImageImg2ImgPipeline", _PICTURE, **_QWEN),
    _row("qwen_image", "QwenImageInpaintPipeline", _MASKED, **_QWEN),
    _row("qwen_image", "QwenImageControlNetPipeline", _CONTROL, size=32,
         parts={**_SEEN_BY_QWEN, "controlnet": _qwen_controlnet}),
    _row("qwen_image", "QwenImageControlNetInpaintPipeline", {**_CONTROL, "control_mask": picture(64, 64).convert("L")},
         size=32, parts={**_SEEN_BY_QWEN, "controlnet": lambda: _qwen_controlnet(extra_condition_channels=4)}),
    _row("qwen_image_edit", "QwenImageEditPipeline", {}),
    _row("qwen_image_edit", "QwenImageEditInpaintPipeline", _MASKED),
    _row("qwen_image_edit", "QwenImageEditPlusPipeline", {}, num_images=1),
    _row("bria_fibo", "BriaFiboEditPipeline", {"image": picture(64, 64)}, wording='{{"edit_instruction": "{}"}}',
         parts={"vae": lambda: Averaging(4, 16)}),
    _row("longcat_image", "LongCatImageEditPipeline", {"image": picture(16, 16)}, num_images=1,
         parts={"vae": lambda: Averaging(7, 16), "text_processor": Untold},
         attributes={"_encode_prompt": lambda prompts, image: embedded(prompts, (LENGTH, WIDTH))}),
    _row("cogview4", "CogView4ControlPipeline", _CONTROL, denoiser=_denoiser("cogview4", in_channels=8), size=16,
         parts=_SEEN),
    _row("flux_kontext", "FluxKontextInpaintPipeline", {**_MASKED, "image": picture(16, 16)}),
    _row("flux2_klein", "Flux2KleinInpaintPipeline", _MASKED),
    _row("hunyuan_dit", "HunyuanDiTControlNetPipeline", _CONTROL, size=16,
         parts={**_SEEN, "controlnet": _hunyuan_controlnet}),
    _row("kandinsky3", "Kandinsky3Img2ImgPipeline", {**_PICTURE, "image": picture(16, 16)}, parts=_SEEN_BY_MOVQ),
    _row("kandinsky5", "Kandinsky5I2IPipeline", {"image": [picture(64, 64)] * 4},
         denoiser=_denoiser("kandinsky5", visual_cond=True), parts={"vae": lambda: autoencoder(4, levels=4)}),
    _row("kolors", "KolorsImg2ImgPipeline", {**_PICTURE, "image": picture(16, 16)}, parts=_SEEN, size=16, text={},
         attributes={"encode_prompt": pooled_too}),  # its call gives no pooled embeddings on
    _row("deepfloyd_if", "IFImg2ImgPipeline", {**_PICTURE, "image": [picture(8, 8)] * 4}),
    _row("deepfloyd_if", "IFInpaintingPipeline", _MASKED_SMALL),
    _row("deepfloyd_if", "IFSuperResolutionPipeline", {"image": [picture(4, 4)] * 4}, **_UPSCALED),
    _row("deepfloyd_if", "IFImg2ImgSuperResolutionPipeline",
         {"image": [picture(4, 4)] * 4, "original_image": [picture(8, 8)] * 4, "strength": 0.5}, **_UPSCALED),
    _row("deepfloyd_if", "IFInpaintingSuperResolutionPipeline",
         {**_MASKED_SMALL, "image": [picture(4, 4)] * 4, "original_image": [picture(8, 8)] * 4}, **_UPSCALED),
)  # fmt: skip
WITH_PICTURE = {tiny.pipeline: tiny for tiny in _ROWS}
