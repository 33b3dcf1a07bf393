"""Sites of the full-size architectures, counted on the meta device from their published configurations."""

from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.sites import find_sites
from tests.helpers.full_size import CASES


@pytest.mark.parametrize("name", CASES)
def test_a_full_size_model_has_the_sites_of_its_architecture(name: str) -> None:
    family, make, kinds, widths = CASES[name]
    with torch.device("meta"):
        denoiser = make()
    sites = find_sites(denoiser, family.sites)
    assert {kind: sum(site.kind == kind for site in sites) for kind in family.sites} == kinds
    found: dict[int, int] = {}
    for site in sites:
        if site.kind == "self_attention":
            width = _width(denoiser.get_submodule(site.module))
            found[width] = found.get(width, 0) + 1
    assert found == widths


def _width(attention: Any) -> int:
    if isinstance(attention, nn.Linear):  # Lumina's output map of both attentions
        return attention.out_features
    projection = getattr(attention, "to_out", None) or getattr(attention, "out_layer", None)  # Kandinsky 5's
    if isinstance(projection, nn.Linear):
        return projection.out_features
    return int(projection[0].out_features if isinstance(projection, nn.ModuleList) else attention.out_dim)


def test_flux_runs_its_double_blocks_before_its_single_ones() -> None:
    with torch.device("meta"):
        layers = [site.layer for site in find_sites(FluxTransformer2DModel(), FLUX.sites)]
    attention = [layer for layer in layers if layer.endswith(".attn")]
    assert attention == [f"transformer_blocks.{i}.attn" for i in range(19)] + [
        f"single_transformer_blocks.{i}.attn" for i in range(38)
    ]
