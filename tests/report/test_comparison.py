"""Ways of steering in words: what is usual stays unsaid, what is unusual is told."""

from typing import Any

import pytest

from icm_pipeline.report.figures import comparison
from icm_pipeline.report.wording import describe
from tests.helpers.results import compared, steering


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "best 2 self-attention, alpha 1.5"),
        ({"method": "none"}, "no steering"),
        ({"rule": "random", "kind": "cross_attention"}, "random 2 cross-attention, alpha 1.5"),
        ({"rule": "all"}, "all 2 self-attention, alpha 1.5"),
        ({"rule": "named", "kind": "mixed"}, "2 named mixed, alpha 1.5"),
        ({"alpha_unit": "activation"}, "best 2 self-attention, alpha 1.5 (activation units)"),
        ({"direction": "mean_difference"}, "best 2 self-attention, alpha 1.5, mean difference direction"),
        ({"first_step": 3}, "best 2 self-attention, alpha 1.5, steps 3 to the end"),
        ({"last_step": 9}, "best 2 self-attention, alpha 1.5, steps 0 to 9"),
        ({"assignment": "batch"}, "best 2 self-attention, alpha 1.5, drawn per batch"),
    ],
)
def test_a_way_of_steering_is_described_by_what_sets_it_apart(change: dict[str, Any], words: str) -> None:
    assert describe(steering(**change)) == words


@pytest.mark.parametrize("method", ["icm", "none"])
def test_settings_behind_the_steering_are_told_after_it(method: str) -> None:
    words = describe(steering(method=method), ["probe.C=1", "seed=2"])
    assert words == describe(steering(method=method)) + ", probe.C=1, seed=2"


def test_many_labels_leave_out_what_all_points_share() -> None:
    rows = [compared(told=("probe.C=1",) * (alpha == 2), steering=steering(alpha=alpha)) for alpha in range(1, 8)]
    labels, shared = comparison._labels(rows)
    assert (labels[:3], shared) == (["alpha 1", "alpha 2, probe.C=1", "alpha 3"], ["best 2"])
    few, nothing = comparison._labels(rows[:3])
    assert (few[0], nothing) == ("best 2, alpha 1", [])


def test_a_point_that_nothing_sets_apart_keeps_its_whole_label() -> None:
    rows = [compared(told=(f"probe.C={c}",) if c else ()) for c in range(7)]
    assert comparison._labels(rows)[0][:2] == ["best 2, alpha 1.5", "probe.C=1"]
