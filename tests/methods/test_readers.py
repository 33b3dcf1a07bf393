"""Readers: a file gives them back, and a look finds the one that reads its step, on another schedule too."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from icm_pipeline.methods.readers import Reader, load_readers, reader_at, reader_for, save_readers
from icm_pipeline.methods.vectors import SteeringVectors, load_vectors


def levels_of(num_steps: int) -> list[float]:
    """Return the noise levels of a schedule whose levels are evenly spread as angles."""
    return [math.sin(math.pi / 2 * (1 - step / num_steps)) for step in range(num_steps)]


def readers_of(accuracies: Sequence[float], num_steps: int = 20) -> tuple[Reader, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        Reader(step, levels_of(num_steps)[step], {f"mid.{step}": torch.randn(2, 4, generator=generator),
               "up": torch.randn(2, 3, generator=generator)}, torch.randn(2, generator=generator), accuracy)
        for step, accuracy in enumerate(accuracies)
    )  # fmt: skip


def assert_same(one: Sequence[Reader], other: Sequence[Reader]) -> None:
    assert len(one) == len(other)
    for ours, theirs in zip(one, other, strict=True):
        assert replace(ours, weights={}, bias=theirs.bias) == replace(theirs, weights={})
        assert torch.equal(ours.bias, theirs.bias)
        assert ours.layers == theirs.layers
        assert all(torch.equal(ours.weights[layer], theirs.weights[layer]) for layer in ours.layers)


def test_a_file_gives_back_what_was_put_in(tmp_path: Path) -> None:
    readers = readers_of([0.6, 0.8])
    save_readers(readers, tmp_path / "readers.safetensors")
    assert_same(load_readers(tmp_path / "readers.safetensors"), readers)


def test_the_file_of_vectors_carries_them_and_one_without_loads_with_none(tmp_path: Path) -> None:
    plain = SteeringVectors({"mid": torch.ones(1, 2, 4)}, {"mid": torch.ones(1)}, (0,), (1.0,), ("a", "b"), "m", "x")
    for readers in ((), readers_of([0.6, 0.8])):
        replace(plain, readers=readers).save(tmp_path / "vectors.safetensors")
        assert_same(load_vectors(tmp_path / "vectors.safetensors").readers, readers)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readers.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as readers"):
        load_readers(tmp_path / "readers.safetensors")


def test_probabilities_are_those_of_the_logits() -> None:
    (reader,) = readers_of([0.6])
    seen = {layer: torch.randn(5, weights.shape[1]) for layer, weights in reader.weights.items()}
    logits = sum(seen[layer] @ weights.T for layer, weights in reader.weights.items()) + reader.bias
    assert reader.probabilities(seen) == pytest.approx(torch.softmax(logits, 1).numpy(), abs=1e-5)
    with pytest.raises(ValueError, match="3 wide and its activations 4: it was made on another model"):
        reader.probabilities({**seen, "up": torch.zeros(5, 4)})


def test_a_look_is_read_by_the_reader_of_its_last_step() -> None:
    readers = readers_of([0.6, 0.7, 0.8, 0.95])
    assert reader_for(readers, 3, levels_of(20)) == (3, readers[2])
    assert reader_for(readers, np.int64(3), levels_of(20)) == (3, readers[2])  # type: ignore[arg-type]


def test_a_run_of_another_length_is_read_by_noise_level() -> None:
    readers = readers_of([0.6, 0.7, 0.8, 0.95])
    assert reader_for(readers, 5, levels_of(40)) == (5, readers[2])
    assert reader_for(readers, "auto", levels_of(40)) == (7, readers[3])
    assert reader_for(readers, "auto", levels_of(10)) == (2, readers[3])


def test_auto_takes_the_first_that_is_good_enough() -> None:
    readers = readers_of([0.6, 0.9, 0.8, 0.95])
    assert reader_for(readers, "auto", levels_of(20)) == (2, readers[1])


def test_auto_reads_no_earlier_than_asked_and_by_no_poorer_reader() -> None:
    readers = readers_of([0.6, 0.9, 0.8, 0.95])
    assert reader_for(readers, "auto", levels_of(20), 2) == (4, readers[3])
    with pytest.raises(ValueError, match=r"look=auto: steering begins at step 4 of this run's 20, .* step 1, 3\)"):
        reader_for(readers, "auto", levels_of(20), 4)


def test_auto_leaves_out_readers_of_other_noise_levels_than_the_runs() -> None:
    with pytest.raises(ValueError, match=r"look=auto: .* this run's 2, and no reader that foretells 90%"):
        reader_for(readers_of([0.6, 0.7, 0.8, 0.95]), "auto", levels_of(2))
    readers = readers_of([0.6] * 3 + [0.95] * 7)
    assert reader_for(readers, "auto", levels_of(2)) == (2, readers[9])


def test_auto_says_what_there_is_where_none_is_good_enough() -> None:
    message = r"no reader foretells 90% .* 0\.60 after 1, 0\.85 after 2 steps\).*method\.look=null"
    with pytest.raises(ValueError, match=message):
        reader_for(readers_of([0.6, 0.85]), "auto", levels_of(20))


@pytest.mark.parametrize("look", [0, 21, True, "early", 2.5])
def test_a_look_that_is_no_step_of_the_run_is_refused(look: object) -> None:
    with pytest.raises(ValueError, match="give a number of steps from 1 to 20"):
        reader_for(readers_of([0.6, 0.85]), look, levels_of(20))  # type: ignore[arg-type]


def test_a_step_that_no_reader_was_made_for_is_refused() -> None:
    with pytest.raises(ValueError, match="look=9: the readers were made for 1 to 4 of this run's 20 steps"):
        reader_for(readers_of([0.6, 0.7, 0.8, 0.95]), 9, levels_of(20))


def test_vectors_without_readers_are_refused() -> None:
    with pytest.raises(ValueError, match="The vectors hold no readers"):
        reader_for((), "auto", levels_of(20))


def test_a_run_like_that_of_the_readers_reads_the_first_good_one_that_is_no_earlier_than_steering() -> None:
    readers = readers_of([0.95, 0.8, 0.96, 0.97])
    assert [reader_at(readers, "auto", first).step for first in (0, 1, 3)] == [0, 2, 3]
    assert reader_at(readers, 2).step == 1
    with pytest.raises(ValueError, match="look=9: there are readers after 1, 2, 3, 4 steps"):
        reader_at(readers, 9)
    with pytest.raises(ValueError, match="look=auto"):
        reader_at(readers[:2], "auto", 1)
