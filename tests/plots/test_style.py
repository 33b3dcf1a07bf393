"""Names and colours: there is one for every kind of layer."""

from icm_pipeline.backbones.base import SITE_KINDS
from icm_pipeline.plots.comparison import describe
from icm_pipeline.plots.style import KIND_COLORS, KIND_NAMES
from tests.plots.test_comparison import USUAL


def test_every_kind_of_layer_has_a_name_and_a_colour_of_its_own() -> None:
    kinds = {*SITE_KINDS, "mixed"}
    assert set(KIND_NAMES) == set(KIND_COLORS) == kinds
    assert len(set(KIND_NAMES.values())) == len(set(KIND_COLORS.values())) == len(kinds)


def test_steering_behind_a_gate_is_described() -> None:
    assert describe({**USUAL, "kind": "gated_self_attention"}).startswith("best 2 gated self-attention")
