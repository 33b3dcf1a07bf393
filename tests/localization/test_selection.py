"""Selection: the rule decides, ties keep the network's order, and what does not exist is refused."""

import pytest

from icm_pipeline.localization.selection import LayerScore, rank, select_layers

SCORES = [
    LayerScore("down.attn1", "self_attention", 0.70),
    LayerScore("down.attn2", "cross_attention", 0.99),
    LayerScore("mid.attn1", "self_attention", 0.90),
    LayerScore("up.0.attn1", "self_attention", 0.80),
    LayerScore("up.0.attn2", "cross_attention", 0.60),
    LayerScore("up.1.attn1", "self_attention", 0.80),
]
BEST_FIRST = ["mid.attn1", "up.0.attn1", "up.1.attn1", "down.attn1"]


def select(
    rule: str, k: int = 2, kind: str = "self_attention", names: list[str] | None = None, seed: int = 0
) -> list[str]:
    return select_layers(SCORES, kind, rule, k, names or [], seed)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_top_takes_the_best_k_of_the_kind(k: int) -> None:
    assert select("top", k) == BEST_FIRST[:k]


@pytest.mark.parametrize("k", [1, 4])
def test_worst_takes_the_worst_k_of_the_kind(k: int) -> None:
    assert select("worst", k) == BEST_FIRST[::-1][:k]


def test_top_and_worst_do_not_share_layers_while_there_are_enough() -> None:
    assert not set(select("top", 2)) & set(select("worst", 2))


def test_all_takes_every_layer_of_the_kind_best_first() -> None:
    assert select("all", k=1) == BEST_FIRST


def test_another_kind_has_other_layers() -> None:
    assert select("top", 1, kind="cross_attention") == ["down.attn2"]


@pytest.mark.parametrize("seed", range(5))
def test_random_takes_k_different_layers_of_the_kind(seed: int) -> None:
    chosen = select("random", 3, seed=seed)
    assert len(set(chosen)) == 3
    assert set(chosen) <= set(BEST_FIRST)


def test_random_depends_on_the_seed_and_on_nothing_else() -> None:
    draws = [tuple(select("random", 2, seed=seed)) for seed in range(20)]
    assert draws == [tuple(select("random", 2, seed=seed)) for seed in range(20)]
    assert len(set(draws)) > 1


def test_named_takes_the_names_in_their_order_from_any_kind() -> None:
    assert select("named", names=["up.0.attn2", "mid.attn1"]) == ["up.0.attn2", "mid.attn1"]


def test_a_name_given_twice_is_taken_once() -> None:
    assert select("named", names=["mid.attn1", "mid.attn1"]) == ["mid.attn1"]


def test_unknown_names_are_refused_and_the_layers_listed() -> None:
    with pytest.raises(ValueError, match=r"mid\.attn3") as caught:
        select("named", names=["mid.attn1", "mid.attn3"])
    assert all(row.layer in str(caught.value) for row in SCORES)


def test_named_without_names_is_refused() -> None:
    with pytest.raises(ValueError, match="because empty"):
        select("named", names=[])


@pytest.mark.parametrize("rule", ["top", "worst", "random"])
def test_more_layers_than_there_are_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match=r"layers\.k=5 is more than the 4 self_attention layers"):
        select(rule, 5)


def test_a_kind_without_probed_layers_is_refused_with_the_kinds_there_are() -> None:
    with pytest.raises(ValueError, match="cross_attention, self_attention"):
        select("top", 1, kind="feed_forward")


def test_no_scores_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="no probed layer"):
        select_layers([], "self_attention", "top", 1, [], 0)


def test_an_unknown_rule_is_refused_with_the_rules_there_are() -> None:
    with pytest.raises(ValueError, match="top, worst, random, all, named"):
        select("middle")


def test_ranking_is_by_score_and_keeps_the_networks_order_among_equals() -> None:
    assert [row.layer for row in rank(SCORES)] == ["down.attn2", *BEST_FIRST, "up.0.attn2"]
