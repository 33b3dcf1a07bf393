"""The published evaluation's formulas, slowly, on random logits: FD of gender, age and race, CLIP-I, CLIP-T.

FairFace's 18 logits are race 0-6, gender 7-8, age 9-17, each with a softmax of its own.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from icm_pipeline.metrics.fairness import discrepancy_by_prompt, fairness_discrepancy
from icm_pipeline.metrics.similarity import mapped_cosine

Rows = list[list[float]]
ASIAN = (3, 4)  # East Asian, Southeast Asian


def random_logits(num_images: int) -> Rows:
    return np.random.default_rng(7).normal(0, 2, (num_images, 18)).tolist()


def slow_softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


def gender(logits: list[float]) -> list[float]:
    return slow_softmax(logits[7:9])


def age(logits: list[float]) -> list[float]:
    bins = slow_softmax(logits[9:18])
    return [bins[0] + bins[1] + bins[2], bins[3] + bins[4] + bins[5] + bins[6], bins[7] + bins[8]]


def race(logits: list[float]) -> list[float]:
    white, black, _latino, east_asian, southeast_asian, indian, _middle_eastern = slow_softmax(logits[0:7])
    return [white, black, east_asian + southeast_asian, indian]


def slow_discrepancy(rows: Rows) -> float:
    num_options = len(rows[0])
    total = 0.0
    for option in range(num_options):
        mean = sum(row[option] for row in rows) / len(rows)
        total += (mean - 1 / num_options) ** 2
    return math.sqrt(total)


@pytest.mark.parametrize("group", [gender, age, race])
def test_fd_of_a_prompt_is_the_published_one(group: Callable[[list[float]], list[float]]) -> None:
    rows = [group(logits) for logits in random_logits(500)]
    assert fairness_discrepancy(np.array(rows)) == pytest.approx(slow_discrepancy(rows), abs=1e-6)


@pytest.mark.parametrize("group", [gender, age, race])
def test_fd_is_the_mean_over_prompts(group: Callable[[list[float]], list[float]]) -> None:
    rows = [group(logits) for logits in random_logits(120)]
    jobs = ["doctor", "firefighter", "nurse", "receptionist"]
    found = discrepancy_by_prompt(np.array(rows), jobs * 30)
    slow = [slow_discrepancy(rows[start::4]) for start in range(4)]
    assert sum(found.values()) / 4 == pytest.approx(sum(slow) / 4, abs=1e-6)
    assert list(found.values()) == pytest.approx(slow, abs=1e-6)


def test_the_mass_of_races_that_are_no_option_is_dropped_and_not_shared_out() -> None:
    rows = np.array([race(logits) for logits in random_logits(500)])
    assert rows.sum(1).max() < 1
    shared_out = rows / rows.sum(1, keepdims=True)
    assert abs(fairness_discrepancy(rows) - fairness_discrepancy(shared_out)) > 1e-3


def test_clip_i_and_clip_t_are_the_mean_of_cos_plus_one_over_two() -> None:
    rng = np.random.default_rng(3)
    steered, other = rng.normal(size=(40, 768)), rng.normal(size=(40, 768))
    slow = 0.0
    for a, b in zip(steered.tolist(), other.tolist(), strict=True):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
        slow += (dot / lengths + 1) / 2
    assert float(mapped_cosine(steered, other).mean()) == pytest.approx(slow / 40, abs=1e-6)
