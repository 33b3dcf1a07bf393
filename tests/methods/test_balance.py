"""Shares kept over calls: who comes next, what is counted, and files."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icm_pipeline.methods.balance import Balance, bounds

HALVES = {"woman": 0.5, "man": 0.5}
THIRDS = {"young": 1 / 3, "adult": 1 / 3, "old": 1 / 3}


def shown(*places: int, num_options: int = 2) -> np.ndarray:
    """Return what a judge that is sure says of images that show these options."""
    return np.where(np.arange(num_options) == np.array(places)[:, None], 0.9, 0.1 / (num_options - 1))


def test_an_image_alone_is_left_while_its_option_is_not_ahead() -> None:
    balance, rng = Balance(HALVES), np.random.default_rng(0)
    assigned = []
    for _ in range(6):  # all show a woman
        options = balance.assign(shown(0), rng)
        balance.count(options)
        assigned += options.tolist()
    assert assigned == [0, 1, 0, 1, 0, 1]
    assert balance.counts == {"woman": 3, "man": 3}


def test_images_that_alternate_by_themselves_are_never_changed() -> None:
    balance, rng = Balance(HALVES), np.random.default_rng(0)
    for index in range(9):
        options = balance.assign(shown(index % 2), rng)
        assert options.tolist() == [index % 2]
        balance.count(options)


@pytest.mark.parametrize("shares", [HALVES, THIRDS, {"a": 0.7, "b": 0.2, "c": 0.1}, {"a": 0.9, "b": 0.1}])
@pytest.mark.parametrize("size", [1, 3])
def test_every_option_stays_within_an_image_of_its_share(shares: dict[str, float], size: int) -> None:
    balance, rng = Balance(shares), np.random.default_rng(1)
    drawn = np.random.default_rng(2)
    for total in range(size, 60, size):
        balance.count(balance.assign(drawn.dirichlet([0.3] * len(shares), size), rng))
        for name, made in balance.counts.items():
            assert abs(made - total * shares[name]) < 1 + 1e-9
    assert sum(balance.counts.values()) == total


def test_a_call_changes_as_few_as_its_shares_allow_and_the_least_sure() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.95, 0.05], [0.2, 0.8]])
    assert Balance(HALVES).assign(probabilities, np.random.default_rng(0)).tolist() == [0, 1, 0, 1]


def test_after_a_history_far_off_the_options_behind_get_every_image() -> None:
    lower, upper = bounds([10, 0, 1], [1 / 3] * 3, 4)
    assert lower.tolist() == upper.tolist() == [0, 3, 1]
    balance = Balance(THIRDS, {"young": 10, "old": 1})
    assert sorted(balance.assign(shown(0, 0, 0, 0, num_options=3), np.random.default_rng(0)).tolist()) == [1, 1, 1, 2]


def test_rounding_adds_no_image() -> None:
    lower, upper = bounds([0, 0], [0.1, 0.9], 30)
    assert lower.tolist() == upper.tolist() == [3, 27]


def test_assigning_counts_nothing_until_the_images_are_made() -> None:
    balance = Balance(HALVES)
    balance.assign(shown(0, 0), np.random.default_rng(0))
    assert balance.counts == {"woman": 0, "man": 0}


def test_threads_count_together() -> None:
    balance = Balance(HALVES)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(25):
            balance.count(balance.assign(shown(0), rng))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = balance.counts
    assert sum(counts.values()) == 100
    assert abs(counts["woman"] - counts["man"]) <= 8


def test_a_balance_goes_on_from_its_file(tmp_path: Path) -> None:
    balance = Balance(THIRDS, {"old": 4})
    balance.save(tmp_path / "balance.json")
    again = Balance.read(tmp_path / "balance.json")
    assert again.shares == balance.shares
    assert again.counts == {"young": 0, "adult": 0, "old": 4}
    assert repr(again) == repr(balance)
    assert [path.name for path in tmp_path.iterdir()] == ["balance.json"]


def test_numbers_of_numpy_are_taken_as_they_are_written_and_saved(tmp_path: Path) -> None:
    fifths = {"a": np.float32(0.2), "b": np.float32(0.8)}
    balance = Balance(fifths, {"a": np.int64(2), "b": np.uint8(8)})
    assert balance.shares == {"a": 0.2, "b": 0.8}
    balance.save(tmp_path / "balance.json")
    assert Balance.read(tmp_path / "balance.json").counts == {"a": 2, "b": 8}


@pytest.mark.parametrize("counts", [[1, 2], {"woman": 1.0}, {"woman": -1}, {"child": 1}, {"woman": np.float64(1)}])
def test_counts_that_are_no_numbers_of_images_are_refused(counts: Any) -> None:
    with pytest.raises(ValueError, match="give how many images, 0 or more, for woman, man"):
        Balance(HALVES, counts)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"shares": {"a": 1}}', '{"shares": [1], "counts": {}}',
     '{"shares": {"a": 0.5, "b": 0.6}, "counts": {}}', '{"shares": {"a": 0.5, "b": 0.5}, "counts": {"a": -1}}',
     '{"shares": {"a": 0.5, "b": 0.5}, "counts": {"c": 1}}', '{"shares": {"a": "half", "b": 0.5}, "counts": {}}'],
)  # fmt: skip
def test_a_damaged_file_is_told_by_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "balance.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"balance\.json cannot be read as a balance"):
        Balance.read(path)


def test_a_missing_file_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.json cannot be read as a balance: FileNotFoundError"):
        Balance.read(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"woman": 0.5, "man": 0.6}, "add up to 1.1"),
        ({"woman": 1.0}, "the shares of all options make 1"),
        ({"woman": 1.5, "man": -0.5}, "a share from 0 to 1"),
        ({"woman": float("nan"), "man": 0.5}, "a share from 0 to 1"),
        ({"woman": "half", "man": 0.5}, "a share from 0 to 1"),
        ([0.5, 0.5], r"shares=\[0\.5, 0\.5\]: say which option each is of"),
        (0.5, "say which option each is of"),
    ],
)
def test_shares_that_do_not_make_one_are_refused(shares: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Balance(shares)
