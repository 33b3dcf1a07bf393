"""Names and colours: one for every kind of layer, names that tell layers apart, as many labels as fit."""

import itertools

from icm_pipeline.config.choices import KIND_NAMES, SITE_KINDS
from icm_pipeline.report.figures.style import KIND_COLORS, short_name, short_names, spread_ticks
from icm_pipeline.report.wording import describe
from tests.helpers.results import steering


def test_every_kind_of_layer_has_a_name_and_a_colour_of_its_own() -> None:
    kinds = {*SITE_KINDS, "mixed"}
    assert set(KIND_NAMES) == set(KIND_COLORS) == kinds
    assert len(set(KIND_NAMES.values())) == len(set(KIND_COLORS.values())) == len(kinds)


def test_steering_behind_a_gate_is_described() -> None:
    assert describe(steering(kind="gated_self_attention")).startswith("best 2 gated self-attention")


def test_no_block_of_a_transformer_loses_its_number() -> None:
    assert short_name("transformer_blocks.0.attn1") == "transformer block 0"
    assert short_name("single_transformer_blocks.7.attn") == "single 7"
    assert short_name("down_blocks.1.attentions.0.transformer_blocks.0.attn1") == "down 1.0"
    assert short_name("up_blocks.1.attentions.2.transformer_blocks.3.attn1") == "up 1.2 block 3"


def test_names_that_would_be_equal_say_what_sets_them_apart() -> None:
    layers = ["transformer_blocks.0.attn", "transformer_blocks.0.attn2", "transformer_blocks.1.attn"]
    assert short_names(layers) == ["transformer block 0 attn", "transformer block 0 attn2", "transformer block 1"]
    block = "down_blocks.1.attentions.0.transformer_blocks.0"
    assert short_names([block, f"{block}.attn1"]) == ["down 1.0 whole", "down 1.0 attn1"]


def test_all_blocks_of_a_module_have_their_numbers() -> None:
    blocks = [f"mid_block.attentions.0.transformer_blocks.{number}.attn1" for number in (0, 1, 10)]
    alone = "up_blocks.1.attentions.0.transformer_blocks.0.attn1"
    assert short_names([*blocks, alone]) == ["mid 0 block 0", "mid 0 block 1", "mid 0 block 10", "up 1.0"]


def test_labels_keep_their_distance_and_the_wanted_come_first() -> None:
    assert spread_ticks(5, [3], 1) == [0, 1, 2, 3, 4]
    ticks = spread_ticks(70, [33, 34, 50], 3)
    assert {33, 50} <= set(ticks)
    assert 34 not in ticks
    assert all(later - earlier >= 3 for earlier, later in itertools.pairwise(ticks))
