"""Full-size models with random weights: images per second plain, recorded and steered, and peak memory.

    python benchmarks/full_size.py      # SD 1.5, SDXL, SANA and FLUX on a GPU; without one it says so and stops
    python benchmarks/full_size.py --models sd15 --device cpu --dtype float32 --steps 1 --batch 1     # a check

Denoisers have their published configurations and are built on the device, without a download; batches are as in
conf/model. Text embeddings are random, so that no text encoder is needed. Latents are not decoded, which leaves out the
part that costs the same in all three ways. They run in one process, in turns, and each ratio is to the plain run of
the same round.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from timing import in_turns, machine, note, ratios, spread
from torch import Tensor

from icm_pipeline import SteeringVectors, record, steer
from icm_pipeline.backbones.registry import attach

Embed = Callable[..., Tensor]
NUM_STEERED = 6


def sd15(random: Embed, **smaller: Any) -> tuple[Any, dict[str, Any]]:
    unet = UNet2DConditionModel(**{"sample_size": 64, "cross_attention_dim": 768, **smaller})
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(8, 8, 8, 8), **_vae(4)), text_encoder=None, tokenizer=None, unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    return pipe, {"prompt_embeds": random(77, 768), "negative_prompt_embeds": random(77, 768)}


def sdxl(random: Embed, **smaller: Any) -> tuple[Any, dict[str, Any]]:
    """Build SDXL; smaller: another width of its blocks, of their heads and of the text, pooled or not."""
    width, pooled, size = smaller.pop("text_width", 2048), smaller.pop("pooled_width", 1280), 256
    channels = {"sample_size": 128, "block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20)}
    unet = UNet2DConditionModel(
        **{**channels, **smaller}, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10), cross_attention_dim=width,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=size,
        projection_class_embeddings_input_dim=pooled + 6 * size,
    )  # fmt: skip
    pipe = StableDiffusionXLPipeline(
        vae=AutoencoderKL(block_out_channels=(8, 8, 8, 8), **_vae(4)), text_encoder=None, text_encoder_2=None,
        tokenizer=None, tokenizer_2=None, unet=unet, add_watermarker=False,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
    )  # fmt: skip
    embeds = {"prompt_embeds": random(77, width), "negative_prompt_embeds": random(77, width)}
    return pipe, {**embeds, "pooled_prompt_embeds": random(pooled), "negative_pooled_prompt_embeds": random(pooled)}


def sana(random: Embed, **smaller: Any) -> tuple[Any, dict[str, Any]]:
    vae = AutoencoderDC(
        latent_channels=32, encoder_block_out_channels=(8,) * 6, decoder_block_out_channels=(8,) * 6,
        encoder_layers_per_block=(1,) * 6, decoder_layers_per_block=(1,) * 6, attention_head_dim=8,
        encoder_block_types="ResBlock", decoder_block_types="ResBlock", encoder_qkv_multiscales=((),) * 6,
        decoder_qkv_multiscales=((),) * 6,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, algorithm_type="dpmsolver++"
    )
    pipe = SanaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae,
        transformer=SanaTransformer2DModel(**smaller),
        scheduler=scheduler,
    )
    mask = torch.ones_like(random(300, 1)[..., 0])
    return pipe, {
        "prompt_embeds": random(300, 2304), "prompt_attention_mask": mask, "negative_prompt": None,
        "negative_prompt_embeds": random(300, 2304), "negative_prompt_attention_mask": mask,
        "use_resolution_binning": False, "complex_human_instruction": None,
    }  # fmt: skip


def flux(random: Embed, **smaller: Any) -> tuple[Any, dict[str, Any]]:
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKL(block_out_channels=(8, 8, 8, 8), **_vae(16)), text_encoder=None, tokenizer=None,
        text_encoder_2=None, tokenizer_2=None, transformer=FluxTransformer2DModel(guidance_embeds=True, **smaller),
    )  # fmt: skip
    return pipe, {"prompt_embeds": random(512, 4096), "pooled_prompt_embeds": random(768)}


MODELS = {"sd15": sd15, "sdxl": sdxl, "sana": sana, "flux": flux}
SMALLER: dict[str, dict[str, Any]] = {  # for a rehearsal
    "sd15": {"block_out_channels": (32, 32, 64, 64)},
    "sdxl": {"block_out_channels": (32, 32, 64), "attention_head_dim": (1, 1, 2)},
    "sana": {
        "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 16, "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 16, "cross_attention_dim": 32,
    },
    "flux": {
        "num_layers": 2, "num_single_layers": 3, "num_attention_heads": 2, "attention_head_dim": 16,
        "axes_dims_rope": (4, 6, 6),
    },
}  # fmt: skip
BATCH_SIZES = {"sd15": 8, "sdxl": 4, "sana": 4, "flux": 4}  # as in conf/model


def _vae(channels: int) -> dict[str, Any]:
    """Return the configuration of a small autoencoder: it only tells the latents' shape here."""
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    return {"down_block_types": down, "up_block_types": up, "latent_channels": channels, "norm_num_groups": 4}


def random_vectors(recording: Any, layers: list[str]) -> SteeringVectors:
    directions = {
        layer: torch.randn(len(recording.steps), 2, recording.activations[layer].shape[-1]) for layer in layers
    }
    return SteeringVectors(
        directions={layer: torch.nn.functional.normalize(values, dim=-1) for layer, values in directions.items()},
        mean_norms={layer: torch.ones(len(recording.steps)) for layer in layers},
        steps=tuple(recording.steps), noise_levels=tuple(recording.noise_levels), options=("a", "b"), model="random",
        attribute="random",
    )  # fmt: skip


def measure(name: str, args: argparse.Namespace) -> None:
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    batch = args.batch or BATCH_SIZES[name]

    def random(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, device=device, dtype=dtype)

    torch.set_default_dtype(dtype)
    with device:
        pipe, inputs = MODELS[name](random, **(SMALLER[name] if args.tiny else {}))
    torch.set_default_dtype(torch.float32)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)  # schedulers compute on the CPU
    pipe.set_progress_bar_config(disable=True)
    backbone = attach(pipe)
    attention = [site.layer for site in backbone.sites if site.kind == "self_attention"]
    steered = attention[:: max(1, len(attention) // NUM_STEERED)][:NUM_STEERED]
    memory: dict[str, float] = {}
    size = {"height": 64, "width": 64} if args.tiny else {}

    def generated(way: str, context: Callable[[], AbstractContextManager[Any]]) -> Any:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with context() as seen:
            pipe(**inputs, **size, num_inference_steps=args.steps, output_type="latent")
        memory[way] = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
        return seen

    vectors = random_vectors(generated("recorded", lambda: record(pipe)).recordings[0], steered)  # also warms up
    contexts: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "plain": nullcontext,
        f"recorded at {len(backbone.sites)} sites": lambda: record(pipe),
        f"recorded at {len(attention)} self-attention layers": lambda: record(pipe, attention),
        f"steered in {len(steered)} layers": lambda: steer(pipe, vectors, option="a", alpha=1.0),
    }
    seconds = in_turns({way: partial(generated, way, context) for way, context in contexts.items()}, args.rounds)
    for way, values in seconds.items():
        ratio = spread(ratios(values, seconds["plain"]))
        print(f"| {name}, {batch} | {way} | {batch / median(values):.3f} | {ratio} | {memory[way]:.1f} |", flush=True)
        note(
            args.figures, part="full_size", model=name, batch=batch, steps=args.steps, dtype=args.dtype, way=way,
            images_a_second=batch / median(values), ratios=ratios(values, seconds["plain"]), peak_gib=memory[way],
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, help="images at once, for every model; default: as in conf/model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: narrow layers and 64 px")
    parser.add_argument("--figures", type=Path, help="a file that the figures are appended to, as JSON")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no GPU here: nothing was measured. Run this where torch.cuda.is_available().")
    print(
        f"{machine()}\n{args.device}, {args.dtype}, {args.steps} steps, {args.rounds} rounds: median (least to most)\n"
    )
    print("| model, batch | way | images a second | time, plain = 1 | peak GiB |\n|---|---|---|---|---|")
    with torch.inference_mode():
        for name in args.models:
            measure(name, args)
            if args.device == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
