"""A pipeline of a diffusers class with few random weights: a denoiser and a scheduler, made of their own defaults.

Layers and heads are reduced to two each, and all else stays as the denoiser's class has it by default. Texts are
embeddings as wide as its configuration says, so there is no text encoder; nothing is decoded. Many classes cannot be
built so, as their defaults do not fit each other or their pipeline wants its other parts.
"""

import inspect
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import diffusers
import torch
from torch import nn

from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.backbones.registry import known_families
from icm_pipeline.config.choices import EMBEDDED
from icm_pipeline.text import did_you_mean
from icm_pipeline.zoo.paths import ZOO

SMALL = {  # values of a denoiser's configuration, where it has them
    **dict.fromkeys(("num_layers", "num_single_layers", "num_refiner_layers", "num_mmdit_layers"), 2),
    **dict.fromkeys(("num_single_dit_layers", "n_layers", "n_refiner_layers", "num_attention_heads", "n_heads"), 2),
    **dict.fromkeys(("num_cross_attention_heads", "num_visual_blocks", "num_text_blocks", "n_kv_heads"), 2),
    "num_kv_heads": 1, "sample_size": 32, "approximator_layers": 1, "approximator_hidden_dim": 64,
}  # fmt: skip
HEADS = ("num_attention_heads", "n_heads")
WIDE = ("dim", "hidden_size")  # as wide as all heads
AS_WIDE = ("caption_projection_dim", "cross_attention_dim")  # as the denoiser is, where it projects the text itself
SMALL_UNET = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2, "attention_head_dim": 8, "norm_num_groups": 8, "sample_size": 16,
    "cross_attention_dim": 32,
}  # fmt: skip
WIDTHS = (
    "joint_attention_dim", "caption_channels", "encoder_hid_dim", "cross_attention_dim", "text_embed_dim",
    "cap_feat_dim", "caption_projection_dim", "text_dim",
)  # fmt: skip
DENOISERS = ("transformer", "unet", "prior")
LENGTH = 6  # of texts in tokens
LARGEST = 100_000_000  # parameters


def random_pipeline(class_name: str) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """Return a class's pipeline and the arguments that give it texts, with the shape of one.

    Raises BackboneError, with the reason, for a class that is none of diffusers' or that cannot be built so.
    """
    pipeline_class = _pipeline_class(class_name)
    try:
        hints = get_type_hints(pipeline_class.__init__)
        name = next(name for name in DENOISERS if name in hints)
        denoiser = _denoiser(_model_class(hints[name]))
        parts: dict[str, Any] = {
            each.name: None
            for each in list(inspect.signature(pipeline_class.__init__).parameters.values())[1:]
            if each.default is each.empty
        }
        parts |= {name: denoiser, "scheduler": _scheduler(hints["scheduler"])}
        if "requires_safety_checker" in inspect.signature(pipeline_class.__init__).parameters:
            parts["requires_safety_checker"] = False
        pipe = pipeline_class(**parts)
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(
            f"No tiny {class_name} can be built from its classes' defaults ({type(error).__name__}: {error}). Save one "
            "of any size with save_pretrained, and check its folder."
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe, _texts(pipeline_class, denoiser.config)


def _pipeline_class(class_name: str) -> Any:
    found: Any = getattr(diffusers, class_name, None)
    if hasattr(found, "_backends"):  # what diffusers has in the place of a class that lacks a library
        raise BackboneError(f"{class_name} needs {', '.join(found._backends)}, which is not installed.")
    names = [name for name in dir(diffusers) if name.endswith("Pipeline")]
    if inspect.isclass(found) and issubclass(found, diffusers.ModularPipeline):
        plain = class_name.replace("Modular", "")
        instead = f" {plain} has the same denoiser, and can be." if plain in names else ""
        raise BackboneError(
            f"{class_name} is modular: its user puts its blocks together, so it is not built here.{instead} Of your "
            "own attach(pipe) says whether it is known."
        )
    if not (inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline)):
        raise BackboneError(
            f"{class_name} is neither a folder nor a pipeline of diffusers {diffusers.__version__}."
            f"{_of_family(class_name) or did_you_mean(class_name, names)}"
        )
    return found


def _of_family(name: str) -> str:
    """Return a hint for the name of a family or of an embedded model; empty for others."""
    instead = next((family.pipelines[0] for family in known_families() if family.name == name and family.pipelines), "")
    instead = f"{EMBEDDED}{name}" if (ZOO / name / "model_index.json").is_file() else instead
    return f" Give {instead}." if instead else ""


def _denoiser(model_class: Any) -> Any:
    """Build a denoiser whose zero-initialised outputs and gates hide nothing of what happens before them."""
    config = dict(SMALL_UNET) if model_class.__name__ == "UNet2DConditionModel" else _small(model_class)
    with torch.device("meta"):
        size = sum(value.numel() for value in model_class(**config).parameters())
    if size > LARGEST:
        raise BackboneError(
            f"A {model_class.__name__} of two layers has {size:,} parameters by its defaults: save a smaller pipeline "
            "with save_pretrained, and check its folder."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = model_class(**config)
        for parameter in denoiser.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return denoiser.eval()


def _small(model_class: Any) -> dict[str, Any]:
    """Return a configuration of two layers and two heads, as wide as these are."""
    parameters = inspect.signature(model_class.__init__).parameters
    default = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
    config = {name: value for name, value in SMALL.items() if name in default}
    heads = next((default[name] for name in HEADS if name in default), None)
    config |= {name: 2 * (default[name] // heads) for name in WIDE if heads and default.get(name)}
    if "attention_head_dim" in default and {"caption_channels", "caption_projection_dim"} & default.keys():
        config |= {name: 2 * default["attention_head_dim"] for name in AS_WIDE if name in default}
    return config


def _model_class(hint: Any) -> Any:
    """Return the class of a part, of several the first."""
    classes = [each for each in (hint, *get_args(hint)) if isinstance(each, type) and hasattr(each, "from_config")]
    return classes[0]


def _scheduler(hint: Any) -> Any:
    """Build the scheduler that a pipeline is written for, DDIM where it takes any."""
    classes = [each for each in (hint, *get_args(hint)) if hasattr(each, "set_timesteps")]
    return (classes[0] if classes else diffusers.DDIMScheduler)()


def _texts(pipeline_class: Any, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width = next((config[name] for name in WIDTHS if isinstance(config.get(name), int)), None)
    names = [name for name in inspect.signature(pipeline_class.__call__).parameters if _is_text(name)]
    if width is None or not names:
        raise BackboneError(
            f"How wide the texts of a {pipeline_class.__name__} are is not known: save one with save_pretrained, and "
            "check its folder."
        )
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        pooled = config.get("pooled_projection_dim", width)
        shapes[name] = (LENGTH,) if "mask" in name else (pooled,) if "pooled" in name else (LENGTH, width)
    return shapes


def _is_text(name: str) -> bool:
    return "prompt" in name and ("embeds" in name or "mask" in name) and "negative" not in name and "image" not in name
