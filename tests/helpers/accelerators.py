"""What people switch on to make a pipeline faster or smaller, or to change what it makes, and what then comes of
`steer` and `record`: the table of docs/accelerators.md, whose rows the tests run.

`python -m tests.helpers.accelerators` prints it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import accelerate
import diffusers
import torch

from tests.helpers.looking import make

WORKS, REFUSED = "works", "refused"
NUM_STEPS = 4
CPU = torch.device("cpu")
TITLES = ("what", "switched on by", "`steer`", "`record`", "`shares`", "what to know", "tested in tests/hooks")


@dataclass(frozen=True)
class Accelerator:
    name: str
    call: str
    """What switches it on, as docs show it."""
    steer: str
    record: str
    note: str
    """One sentence: what to know, or why it is refused."""
    enable: Callable[[Any], Mapping[str, Any] | None] | None = None
    """Switches it on, and returns further arguments of the pipeline's call; None for what is tested elsewhere."""
    pipeline: str = "sd"
    """The tiny one that it is tested on, a name of `pipelines.BUILDERS`."""
    package: str = ""
    """The module that it needs; without it the tests are skipped."""
    error: str = ""
    """A part of the refusal."""
    tested: str = "test_accelerators.py"
    """The file in tests/hooks."""
    shares: str = ""
    """What comes of `steer` with shares, which looks first; empty for the same as of `record`."""


def _compile_elsewhere(name: str, call: str) -> Accelerator:
    note = (
        "Hooking a layer for the first time compiles again; with shares every number of images to change would. "
        "`fullgraph=True` and sites behind a gate are refused."
    )
    return Accelerator(name, call, WORKS, WORKS, note, tested="test_compiled.py", shares=REFUSED)


def _cast(pipe: Any) -> None:
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def _torchao(pipe: Any) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(pipe.unet, Int8WeightOnlyConfig())


def _quanto(pipe: Any) -> None:
    from optimum.quanto import freeze, qint8, quantize

    quantize(pipe.unet, weights=qint8)
    freeze(pipe.unet)


def _quanto_activations(pipe: Any) -> None:
    from optimum.quanto import Calibration, freeze, qint8, quantize

    quantize(pipe.unet, weights=qint8, activations=qint8)
    with Calibration():
        make(pipe, num_steps=1)
    freeze(pipe.unet)


def _bitsandbytes(pipe: Any) -> None:
    """Put 4-bit layers in the linear ones' place, as diffusers does where there is a GPU."""
    from bitsandbytes.nn import Linear4bit

    for name, linear in list(pipe.unet.named_modules()):
        if type(linear) is torch.nn.Linear:
            has_bias = linear.bias is not None
            coarse = Linear4bit(linear.in_features, linear.out_features, has_bias, compute_dtype=torch.float32)
            coarse.load_state_dict(linear.state_dict())
            setattr(pipe.unet.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], coarse.to("cpu"))


def _sequential(pipe: Any) -> None:
    accelerate.cpu_offload(pipe.unet, CPU)  # what enable_sequential_cpu_offload does, which wants a GPU


def _group(offload_type: str) -> Callable[[Any], None]:
    def enable(pipe: Any) -> None:
        blocks = {"num_blocks_per_group": 1} if offload_type == "block_level" else {}
        pipe.unet.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type=offload_type, **blocks)

    return enable


def _slicing(pipe: Any) -> None:
    pipe.enable_attention_slicing(1)


def _processor(pipe: Any) -> None:
    pipe.unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor())


def _ip_adapter(pipe: Any) -> Mapping[str, Any]:
    """Load an adapter with random weights, and return embeddings of a picture to be given to each call."""
    unet, weights = pipe.unet, dict[str, torch.Tensor]()
    width = unet.config.cross_attention_dim
    for place, name in enumerate(name for name in unet.attn_processors if name.endswith("attn2.processor")):
        out = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"{2 * place + 1}.{part}.weight"] = torch.randn(out, width) / 8
    projection = {
        "proj.weight": torch.randn(4 * width, width), "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width),
    }  # fmt: skip
    unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": weights}])
    return {"ip_adapter_image_embeds": [torch.randn(2, 1, width)]}


def _add_lora(pipe: Any, name: str = "one") -> None:
    from peft import LoraConfig

    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False), name)


def _fused_lora(pipe: Any) -> None:
    _add_lora(pipe)
    pipe.fuse_lora(components=["unet"])


def _two_loras(pipe: Any) -> None:
    _add_lora(pipe, "one")
    _add_lora(pipe, "two")
    pipe.unet.set_adapters(["one", "two"], [0.7, 1.3])


def _cache(config: Any) -> Callable[[Any], None]:
    return lambda pipe: pipe.transformer.enable_cache(config)


def _deepcache(pipe: Any) -> None:
    from DeepCache import DeepCacheSDHelper

    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=2, cache_branch_id=0)
    helper.enable()


def _cache_dit(pipe: Any) -> None:
    import cache_dit

    cache_dit.enable_cache(pipe)


def _tomesd(pipe: Any) -> None:
    import tomesd

    tomesd.apply_patch(pipe, ratio=0.5, use_rand=False)


def _context_parallel(pipe: Any) -> None:
    pipe.unet._parallel_config = SimpleNamespace(context_parallel_config=object())  # as enable_parallelism leaves it


BROADCAST = diffusers.PyramidAttentionBroadcastConfig(
    spatial_attention_block_skip_range=2, spatial_attention_timestep_skip_range=(0, 1001),
    spatial_attention_block_identifiers=["transformer_blocks"], current_timestep_callback=lambda: 500,
)  # fmt: skip
_TAYLOR: dict[str, Any] = {"cache_interval": 2, "disable_cache_before_step": 1}
_KEPT = "What it keeps of a layer is from before the shift, so every step is shifted; recordings would be of others."
_SKIPS = "It skips layers: a shift would miss some steps and live on in others, and recordings be of other steps."

ACCELERATORS = (
    _compile_elsewhere("torch.compile, whole", "`pipe.unet.compile()`, `torch.compile(pipe.unet)`"),
    _compile_elsewhere("torch.compile, blocks", "`pipe.unet.compile_repeated_blocks()`"),
    Accelerator(
        "layerwise casting to float8", "`pipe.unet.enable_layerwise_casting(...)`", WORKS, WORKS,
        "Hooks see the compute dtype. `fold` is refused: a bias kept in float8 is too coarse.", _cast,
    ),
    Accelerator("torchao", "`quantize_(pipe.unet, Int8WeightOnlyConfig())`", WORKS, WORKS,
                "Activations stay plain tensors.", _torchao, package="torchao"),
    Accelerator("quanto", "`quantize(pipe.unet, weights=qint8)`", WORKS, WORKS,
                "Activations stay plain tensors.", _quanto, package="optimum.quanto"),
    Accelerator("quanto, activations too", "`quantize(pipe.unet, weights=qint8, activations=qint8)`", WORKS, WORKS,
                "A layer that is shifted gives a plain tensor, which the next layer quantizes again.",
                _quanto_activations, package="optimum.quanto"),
    Accelerator("bitsandbytes", "`BitsAndBytesConfig(load_in_4bit=True)`", WORKS, WORKS,
                "Run on the CPU with 4-bit layers put in by hand.", _bitsandbytes, package="bitsandbytes"),
    Accelerator("model offload", "`pipe.enable_model_cpu_offload()`", WORKS, WORKS,
                "Run with the CPU as the device: hooks are taken off and put on again as on a GPU.",
                lambda pipe: pipe.enable_model_cpu_offload(device="cpu")),
    Accelerator("sequential offload", "`pipe.enable_sequential_cpu_offload()`", WORKS, WORKS,
                "Run with the CPU as the device.", _sequential),
    Accelerator("group offload, by layer", '`enable_group_offload(offload_type="leaf_level")`', WORKS, WORKS,
                "Run from CPU memory to CPU memory; streams untested.", _group("leaf_level")),
    Accelerator("group offload, by block", '`enable_group_offload(offload_type="block_level")`', WORKS, WORKS,
                "As by layer.", _group("block_level")),
    Accelerator("fused projections", "`pipe.fuse_qkv_projections()`", WORKS, WORKS,
                "Attention layers as ever; `attn.to_q` and its like no longer run, and naming one is an error.",
                lambda pipe: pipe.fuse_qkv_projections()),
    Accelerator("fused projections of FLUX", "`pipe.transformer.fuse_qkv_projections()`", WORKS, WORKS,
                "As above. SD3 with qk_norm and dual attention fails in diffusers itself.",
                lambda pipe: pipe.transformer.fuse_qkv_projections(), "flux"),
    Accelerator("attention backends", '`pipe.unet.set_attention_backend("_native_math")`', WORKS, WORKS,
                "flash, sage and xformers need a GPU: untested, but attention is hooked from outside.",
                lambda pipe: pipe.unet.set_attention_backend("_native_math")),
    Accelerator("attention slicing", "`pipe.enable_attention_slicing()`", WORKS, WORKS, "", _slicing),
    Accelerator("other attention processors", "`pipe.unet.set_attn_processor(...)`", WORKS, WORKS, "", _processor),
    Accelerator("channels last", "`pipe.unet.to(memory_format=torch.channels_last)`", WORKS, WORKS, "",
                lambda pipe: pipe.unet.to(memory_format=torch.channels_last)),
    Accelerator("FreeU", "`pipe.enable_freeu(...)`", WORKS, WORKS, "",
                lambda pipe: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)),
    Accelerator("IP-Adapter", "`pipe.load_ip_adapter(...)`", WORKS, WORKS,
                "`attn2` gives text and picture together.", _ip_adapter),
    Accelerator("LoRA", "`pipe.load_lora_weights(...)`", WORKS, WORKS,
                "Vectors that were fitted without it know other activations.", _add_lora, package="peft"),
    Accelerator("LoRA, fused", "`pipe.fuse_lora()`", WORKS, WORKS, "", _fused_lora, package="peft"),
    Accelerator("two LoRAs", '`pipe.set_adapters(["one", "two"], [0.7, 1.3])`', WORKS, WORKS, "", _two_loras,
                package="peft"),
    Accelerator("PyramidAttentionBroadcast", "`enable_cache(PyramidAttentionBroadcastConfig(...))`", WORKS, REFUSED,
                _KEPT, _cache(BROADCAST), "flux", error="PyramidAttentionBroadcast is enabled"),
    Accelerator("TaylorSeer", "`enable_cache(TaylorSeerCacheConfig())`", WORKS, REFUSED, _KEPT,
                _cache(diffusers.TaylorSeerCacheConfig(**_TAYLOR)), "flux", error="TaylorSeerCache is enabled"),
    Accelerator("TaylorSeer, lite", "`TaylorSeerCacheConfig(use_lite_mode=True)`", REFUSED, REFUSED, _SKIPS,
                _cache(diffusers.TaylorSeerCacheConfig(use_lite_mode=True, **_TAYLOR)), "flux",
                error="TaylorSeerCache is enabled"),
    Accelerator("FirstBlockCache", "`enable_cache(FirstBlockCacheConfig(...))`", REFUSED, REFUSED, _SKIPS,
                _cache(diffusers.FirstBlockCacheConfig(threshold=0.9)), "flux", error="FirstBlockCache is enabled"),
    Accelerator("MagCache", "`enable_cache(MagCacheConfig(...))`", REFUSED, REFUSED, _SKIPS,
                _cache(diffusers.MagCacheConfig(num_inference_steps=NUM_STEPS, mag_ratios=torch.ones(NUM_STEPS))),
                "flux", error="MagCache is enabled"),
    Accelerator("SeaCache", "`enable_cache(SeaCacheConfig())`", REFUSED, REFUSED, _SKIPS,
                _cache(diffusers.SeaCacheConfig()), "flux", error="SeaCache is enabled"),
    Accelerator("FasterCache", "`enable_cache(FasterCacheConfig(...))`", REFUSED, REFUSED,
                "It skips attention and, with guidance, whole halves of a call.",
                _cache(diffusers.FasterCacheConfig(is_guidance_distilled=True, current_timestep_callback=lambda: 500)),
                "flux", error="FasterCache is enabled"),
    Accelerator("TextKVCache", "`enable_cache(TextKVCacheConfig())`", WORKS, WORKS,
                "The text's keys and values alone are kept, which are the same in every step.",
                _cache(diffusers.TextKVCacheConfig()), "flux"),
    Accelerator("DeepCache", "`DeepCacheSDHelper(pipe).enable()`", REFUSED, REFUSED, _SKIPS, _deepcache,
                package="DeepCache", error="DeepCache is enabled"),
    Accelerator("cache-dit", "`cache_dit.enable_cache(pipe)`", REFUSED, REFUSED, _SKIPS, _cache_dit, "flux",
                package="cache_dit", error="cache-dit is enabled"),
    Accelerator("TeaCache", "its patch of the denoiser's class", REFUSED, REFUSED,
                "It skips layers. Known by the mark that its patch leaves.", tested="test_caches.py"),
    Accelerator("tomesd", "`tomesd.apply_patch(pipe)`", WORKS, WORKS,
                "A shift reaches every merged token; a recorded mean counts one once, however many it stands for, and "
                "`record` says so.", _tomesd, package="tomesd"),
    Accelerator("context parallelism", "`enable_parallelism(config=ContextParallelConfig(...))`", REFUSED, REFUSED,
                "A process has a part of the tokens. Known by its mark; no group of processes was run.",
                _context_parallel, error="Context parallelism is enabled"),
)  # fmt: skip


def markdown() -> str:
    """Return the table in Markdown."""
    rows = [TITLES, ("---",) * len(TITLES)]
    rows += [
        (*(each.name, each.call, each.steer, each.record), each.shares or each.record, each.note or "-", each.tested)
        for each in ACCELERATORS
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(markdown())
