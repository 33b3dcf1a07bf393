"""The sites of a denoiser: modules found by pattern, in the network's order."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import nn

from icm_pipeline.backbones.base import GATED, BackboneError, Site
from icm_pipeline.backbones.modules import uncompiled, walk
from icm_pipeline.config.choices import SITE_KINDS

# The order in which a denoiser runs through its parts.
PARTS = (
    "down_blocks", "mid_block", "up_blocks", "blocks", "transformer_blocks", "joint_transformer_blocks",
    "double_stream_blocks", "visual_transformer_blocks", "single_transformer_blocks", "single_stream_blocks", "layers",
)  # fmt: skip
# Modules whose tokens are the text's, where text comes in by joint attention and where by cross-attention.
JOINT_TEXT = (
    r"(context_embedder\w*|txt_in|txt_norm|(context|text)_refiner|"
    r".*\.(ff_context|norm1_context|norm2_context|txt_\w+|add_[qkv]_proj|norm_added_[qk]|to_add_out))(\..*)?"
)
CROSS_TEXT = (
    r"(caption_projection|caption_norm|encoder_hid_proj|.*\.attn2\.(to_k|to_v|norm_k|norm_cross|processor)"
    r"|.*\.add_[kv]_proj)(\..*)?"
)


def find_sites(denoiser: nn.Module, patterns: Mapping[str, str]) -> tuple[Site, ...]:
    """Return the modules whose whole name matches a kind's pattern, in the order the network runs through its blocks.

    Raises BackboneError for an unknown kind or a pattern that matches nothing.
    """
    names = tuple(dict.fromkeys(name for name, _ in walk(uncompiled(denoiser))))
    return _sites_of(names, tuple(patterns.items()), type(denoiser).__name__)


@lru_cache(maxsize=16)  # every `steer` and `record` asks of the same denoiser again
def _sites_of(names: Sequence[str], patterns: Sequence[tuple[str, str]], denoiser: str) -> tuple[Site, ...]:
    sites: list[Site] = []
    for kind, pattern in patterns:
        if kind not in SITE_KINDS:
            raise BackboneError(f"model.sites has the kind {kind!r}; choose from {', '.join(SITE_KINDS)}.")
        matches = re.compile(pattern).fullmatch
        found = [name for name in names if matches(name)]
        if not found:
            raise BackboneError(f"model.sites.{kind}={pattern!r} matches no module of {denoiser}.")
        sites += [Site(name + GATED if kind.startswith("gated_") else name, kind) for name in found]
    return tuple(sorted(sites, key=lambda site: _depth_order(site.layer)))


def _depth_order(layer: str) -> tuple[Any, ...]:
    part = PARTS.index(layer.split(".")[0]) if layer.split(".")[0] in PARTS else len(PARTS)
    return (part, *[(0, int(word), "") if word.isdigit() else (1, 0, word) for word in re.split(r"[._]", layer)])
