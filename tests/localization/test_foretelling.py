"""Foretelling: it finds the step from which an image is told, and is as sure as it is right."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from icm_pipeline.generation.jobs import steps_to_read
from icm_pipeline.localization import foretelling
from icm_pipeline.localization.foretelling import Foretelling, fit_foretellings, layers_to_read
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.machine.threads import limited_threads

Labels = NDArray[np.int64]
KINDS = {"first": "self_attention", "second": "self_attention", "third": "feed_forward"}
NUM_STEPS, WIDTH = 3, 12


def planted(labels: Labels, strength: tuple[float, ...], where: str = "second") -> dict[str, torch.Tensor]:
    """Return noise {layer: [n, steps, width]} on a large mean, in which one layer tells the options apart."""
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(len(labels), NUM_STEPS, WIDTH, generator=generator) * 3 + 50 for name in KINDS}
    for option in range(int(labels.max()) + 1):
        rows = torch.from_numpy(labels == option)
        drawn[where][rows, :, option] += 3 * torch.tensor(strength)
    return drawn


def found(
    activations: dict[str, torch.Tensor], labels: Labels, steps: tuple[int, ...] = (0, 1, 2), seed: int = 0,
    groups: Labels | None = None,
) -> list[Foretelling]:  # fmt: skip
    read: Callable[[str], Pooled] = lambda layer: Pooled(activations[layer])  # noqa: E731
    return list(fit_foretellings(read, layers_to_read(KINDS), steps, labels, seed=seed, groups=groups))


def drawn_labels(n: int = 240, num_options: int = 2) -> Labels:
    return np.random.default_rng(0).integers(0, num_options, n)


def logits_of(one: Foretelling, activations: dict[str, torch.Tensor], step: int) -> torch.Tensor:
    parts = [activations[layer][:, step].double() @ weights.double().T for layer, weights in one.weights.items()]
    return torch.stack(parts).sum(0) + one.bias.double()


@pytest.mark.parametrize("num_options", [2, 3])
def test_the_planted_step_is_found(num_options: int) -> None:
    labels = drawn_labels(num_options=num_options)
    activations = planted(labels, (0, 0, 6))
    first, _, last = found(activations, labels)
    assert first.accuracy < 1 / num_options + 0.1
    assert last.accuracy > 0.97
    assert set(last.weights) == {"first", "second"}
    right = logits_of(last, activations, 2).argmax(1).numpy() == labels
    assert right.mean() > 0.97  # on raw activations, whatever their mean


def test_self_attention_is_read_and_other_layers_only_where_there_is_none() -> None:
    assert layers_to_read(KINDS) == ["first", "second"]
    assert layers_to_read({"a": "cross_attention", "b": "feed_forward"}) == ["a", "b"]


def test_labels_that_say_nothing_are_foretold_at_chance_and_without_being_sure() -> None:
    labels = drawn_labels(400)
    for one in found(planted(drawn_labels(400), (0, 0, 0)), labels):
        assert abs(one.accuracy - 0.5) < 0.1
        assert one.calibration_error < 0.15  # 80 images a bin are right in 50 % give or take 6


def test_it_is_as_sure_as_it_is_right_on_images_it_never_saw() -> None:
    labels = np.random.default_rng(1).integers(0, 2, 1200)
    activations, seen = planted(labels, (1.0,) * 3), slice(0, 300)
    one = found({name: values[seen] for name, values in activations.items()}, labels[seen], (1,))[0]
    probabilities = torch.softmax(logits_of(one, activations, 1)[300:], 1)
    right = float((probabilities.argmax(1).numpy() == labels[300:]).mean())
    assert abs(float(probabilities.amax(1).mean()) - right) < 0.05
    assert abs(one.accuracy - right) < 0.06
    assert one.calibration_error < 0.1


def test_images_of_unknown_label_count_for_nothing() -> None:
    labels = drawn_labels()
    activations = planted(labels, (0, 1, 2))
    unseen = [3, 40, 77]
    labels[unseen] = -1
    expected = found(activations, labels)
    for values in activations.values():
        values[unseen] = torch.nan
    for ours, theirs in zip(found(activations, labels), expected, strict=True):
        assert torch.equal(ours.bias, theirs.bias)
        assert ours.accuracy == theirs.accuracy


def test_the_seed_decides_and_the_number_of_threads_does_not() -> None:
    labels = drawn_labels(120)
    activations = planted(labels, (0.5, 1, 1.5))
    results = []
    for threads in (1, 2):
        with limited_threads(threads):
            results.append(found(activations, labels))
    for one, other in zip(*results, strict=True):
        assert one.accuracy == other.accuracy
        assert all(torch.equal(one.weights[layer], other.weights[layer]) for layer in one.weights)
    accuracies = {tuple(one.accuracy for one in found(activations, labels, seed=seed)) for seed in range(4)}
    assert len(accuracies) > 1


def test_images_of_a_group_never_foretell_each_other() -> None:
    """Twins that share their noise and their label are foretold by each other only where they may part."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 4)
    labels = np.repeat(rng.integers(0, 2, 60), 4)
    noise = torch.from_numpy(rng.normal(size=(60, NUM_STEPS, 200)).astype(np.float32)).repeat_interleave(4, 0)
    activations = dict.fromkeys(KINDS, noise)
    assert found(activations, labels, (0,))[0].accuracy > 0.95
    assert found(activations, labels, (0,), groups=groups)[0].accuracy < 0.7


def test_what_cannot_be_foretold_is_refused() -> None:
    labels = np.zeros(40, np.int64)
    activations = planted(labels, (0, 0, 0))
    labels[0] = 1
    with pytest.raises(ValueError, match=r"at least 2 images of every option, found: 0 39, 1 1\."):
        found(activations, labels)
    labels[:4] = 1
    with pytest.raises(ValueError, match="All images that show 1 come from one prompt or a few"):
        found(activations, labels, groups=np.repeat(np.arange(10), 4))
    activations["first"][7, 1, 0] = torch.nan
    with pytest.raises(ValueError, match="recorded step 1 hold NaN"):
        found(activations, labels, (1,))


def test_only_the_first_half_of_a_run_is_read() -> None:
    assert steps_to_read([0, 3, 9, 10, 19], 20) == [0, 1, 2]
    assert steps_to_read([10, 12], 20) == []


def test_little_memory_takes_one_step_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = drawn_labels(80)
    activations = planted(labels, (0, 1, 2))
    expected = [one.accuracy for one in found(activations, labels)]
    monkeypatch.setattr(foretelling, "MEMORY", 1)
    assert [one.accuracy for one in found(activations, labels)] == expected
