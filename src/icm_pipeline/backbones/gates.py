"""Where the AdaLN gate of a block comes from, by the way the block computes it."""

from typing import Any

from torch import Tensor, nn

from icm_pipeline.backbones.base import BackboneError, Gate


def _block_with_table(layer: str) -> str:
    if layer.endswith(".attn2"):
        raise BackboneError(
            f"There is no gate behind {layer}: in such a block only self-attention and feed-forward have one. Use the "
            "layer itself."
        )
    return layer.rpartition(".")[0]


def _is_feed_forward(layer: str) -> bool:
    return layer.endswith((".ff", ".feed_forward"))


def _from_table(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, layer: str) -> Tensor:
    """Return the gate out of scale_shift_table [6, d] + timestep [b, 6 d]: shift, scale, gate of attention, of ff."""
    timestep = kwargs["timestep"] if "timestep" in kwargs else args[4]
    modulation = block.scale_shift_table[None] + timestep.reshape(len(timestep), 6, -1)
    row = 5 if _is_feed_forward(layer) else 2
    return modulation[:, row : row + 1]


def _from_norm(norm: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, layer: str) -> Tensor:
    """Return the gate out of AdaLayerNormZero's output: x, gate of attention, shift, scale, gate of ff, ..."""
    position = 4 if _is_feed_forward(layer) else 6 if layer.endswith(".attn2") else 1
    return output[position].unsqueeze(1)


TABLE_GATE = Gate(source=_block_with_table, before=True, find=_from_table)
NORM_GATE = Gate(source=lambda layer: f"{layer.rpartition('.')[0]}.norm1", before=False, find=_from_norm)
