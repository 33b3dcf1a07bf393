"""Shares that a judge who errs saw are corrected to the true ones."""

import numpy as np
import pytest

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.metrics.prevalence import confusion_rates, corrected_discrepancy, corrected_shares
from icm_pipeline.metrics.redrawn import drawn_again, estimated

RATES = np.array([[0.9, 0.1], [0.25, 0.75]])


def judged(truth: Ints, rates: Floats, rng: np.random.Generator) -> Ints:
    return np.array([rng.choice(len(rates), p=rates[option]) for option in truth])


def test_two_options_are_corrected_as_rogan_and_gladen_say() -> None:
    seen = np.array([0.5, 0.5])
    prevalence = (0.5 + 0.75 - 1) / (0.9 + 0.75 - 1)  # (apparent + specificity - 1) / (sensitivity + specificity - 1)
    assert corrected_shares(seen, RATES) == pytest.approx([prevalence, 1 - prevalence])


@pytest.mark.parametrize("truth", [[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
def test_true_shares_come_back_from_what_a_judge_of_known_rates_sees(truth: list[float]) -> None:
    rates = np.array([[0.8, 0.1, 0.1], [0.05, 0.9, 0.05], [0.2, 0.2, 0.6]])
    assert corrected_shares(np.array(truth) @ rates, rates) == pytest.approx(truth, abs=1e-6)


def test_shares_that_no_truth_gives_are_brought_to_the_nearest_there_are() -> None:
    assert corrected_shares(np.array([0.99, 0.01]), RATES) == pytest.approx([1, 0])
    assert corrected_shares(np.array([0.1, 0.9]), RATES) == pytest.approx([0, 1])


def test_rates_are_counted_from_images_that_were_called_something() -> None:
    truth, said = np.array([0, 0, 0, 1, 1]), np.array([0, 1, -1, 1, 1])
    assert confusion_rates(truth, said, 2).tolist() == [[0.5, 0.5], [0, 1]]
    assert confusion_rates(truth, said, 2, np.array([3.0, 1, 9, 1, 1]))[0].tolist() == [0.75, 0.25]
    with pytest.raises(ValueError, match="No labelled image of option 1"):
        confusion_rates(truth, np.array([0, 0, 0, -1, -1]), 2)


def fall_of(shares: tuple[float, float], rng: np.random.Generator) -> tuple[float, tuple[float, float]]:
    """Return how far FD truly falls, and its interval from labelled and judged images."""
    target, prompts = np.array([0.5, 0.5]), np.repeat([0, 1], 40)
    known = np.repeat([0, 1], 150)
    said = judged(known, RATES, rng)
    sides = [judged((rng.random(80) < share).astype(int), RATES, rng) for share in shares]
    images, labelled = drawn_again(prompts, 60, rng), drawn_again(known, 60, rng)
    falls = []
    for own, weights in zip(images, labelled, strict=True):
        rates = confusion_rates(known, said, 2, weights)
        falls.append(np.subtract(*(corrected_discrepancy(side, prompts, rates, target, own) for side in sides)))
    rates = confusion_rates(known, said, 2)
    found = float(np.subtract(*(corrected_discrepancy(side, prompts, rates, target) for side in sides)))
    true = float(np.subtract(*(np.sqrt(2) * abs(share - 0.5) for share in shares)))
    return true, estimated(found, np.array(falls), 80).interval_95


@pytest.mark.parametrize("shares", [(0.9, 0.6), (0.8, 0.8)])
def test_the_interval_of_a_corrected_fall_covers_the_truth(shares: tuple[float, float]) -> None:
    rng = np.random.default_rng(3)
    covered = [low <= true <= high for true, (low, high) in (fall_of(shares, rng) for _ in range(200))]
    assert 0.9 <= np.mean(covered) <= 1


def test_fd_as_judged_is_further_from_the_truth_than_corrected() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(4000) < 0.9).astype(int)
    said, target = judged(truth, RATES, rng), np.array([0.5, 0.5])
    prompts = np.zeros(4000, int)
    plain, corrected = (corrected_discrepancy(said, prompts, rates, target) for rates in (np.eye(2), RATES))
    true = np.sqrt(2) * 0.4
    assert abs(corrected - true) < 0.03 < abs(plain - true)
