"""Vectors from recordings and labels: what is planted is found, what does not fit is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from icm_pipeline.hooks.recording import Recording
from icm_pipeline.methods.fitting import fit_vectors

OPTIONS = ("woman", "man")
LEVELS = [1.0, 0.7, 0.3]


def planted(num_images: int, seed: int, strength: float = 4.0) -> tuple[Recording, list[str | None]]:
    """Return a recording in which one layer tells the options along its first axis and the other does not."""
    generator = torch.Generator().manual_seed(seed)
    telling, noise = (torch.randn(num_images, 3, 6, generator=generator) for _ in range(2))
    answers = torch.randint(0, 2, (num_images,), generator=generator)
    telling[:, :, 0] += strength * (2 * answers[:, None] - 1)
    kinds = {"telling": "self_attention", "noise": "cross_attention"}
    recording = Recording(kinds, [0, 2, 4], LEVELS, {"telling": telling, "noise": noise})
    return recording, [OPTIONS[answer] for answer in answers.tolist()]


def test_the_planted_direction_and_layer_are_found() -> None:
    (first, some), (second, others) = planted(60, 0), planted(80, 1)
    vectors = fit_vectors([first, second], [*some, *others], OPTIONS, model="mine", attribute="gender")
    assert vectors.best(1).layers == ["telling"]
    assert vectors.scores["telling"] > 0.95
    assert 0.3 < vectors.scores["noise"] < 0.7
    directions = vectors.directions["telling"]
    assert directions.shape == (3, 2, 6)
    assert (directions[:, 1, 0] > 0.9).all()
    torch.testing.assert_close(directions[:, 0], -directions[:, 1])
    assert (vectors.steps, vectors.noise_levels, vectors.options) == ((0, 2, 4), tuple(LEVELS), OPTIONS)
    assert (vectors.model, vectors.attribute, vectors.kinds) == ("mine", "gender", first.kinds)
    assert vectors.mean_norms["noise"] == pytest.approx(
        torch.cat([first.activations["noise"], second.activations["noise"]]).norm(dim=-1).mean(0).tolist(), rel=0.05
    )


def test_images_without_a_label_count_for_nothing() -> None:
    recording, labels = planted(100, 0)
    broken = replace(recording, activations={k: v.clone() for k, v in recording.activations.items()})
    unseen = [3, 40, 77]
    for values in broken.activations.values():
        values[unseen] = 1e6
    known = [None if index in unseen else label for index, label in enumerate(labels)]
    ours, theirs = (fit_vectors([each], known, OPTIONS) for each in (broken, recording))
    for layer in ours.layers:
        assert torch.equal(ours.directions[layer], theirs.directions[layer])


def test_the_same_seed_gives_the_same_split_and_another_another() -> None:
    recording, labels = planted(50, 0, strength=0.5)
    scores = [fit_vectors([recording], labels, OPTIONS, seed=seed).scores["telling"] for seed in (0, 0, 1, 2, 3)]
    assert scores[0] == scores[1]
    assert len(set(scores)) > 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"options": ("woman",)}, "give two or more"),
        ({"options": ("woman", "man", "man")}, "each once"),
        ({"options": ("woman", "boy")}, r"not: \['man'\]"),
        ({"options": ("woman", "man", "child")}, "No image shows child"),
        ({"direction": "north"}, "probe, mean_difference, pattern"),
        ({"labels": ["woman"]}, "1 labels were given for 40 recorded images"),
        ({"recordings": []}, "nothing was recorded"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], message: str) -> None:
    recording, labels = planted(40, 0)
    given: dict[str, Any] = {"recordings": [recording], "labels": labels, "options": OPTIONS} | changed
    with pytest.raises(ValueError, match=message):
        fit_vectors(**given)


@pytest.mark.parametrize("other", [{"steps": [0, 2, 5]}, {"noise_levels": [1.0, 0.7, 0.2]}, {"activations": {}}])
def test_recordings_of_different_runs_are_refused(other: dict[str, Any]) -> None:
    recording, labels = planted(40, 0)
    with pytest.raises(ValueError, match="differ in their layers or steps"):
        fit_vectors([recording, replace(recording, **other)], labels, OPTIONS)


def test_scores_are_of_held_out_images_only() -> None:
    rng = np.random.default_rng(0)
    recording, _ = planted(40, 0)
    wide = replace(recording, activations={"wide": torch.randn(40, 3, 400)}, kinds={"wide": "self_attention"})
    labels = [OPTIONS[answer] for answer in rng.permutation([0, 1] * 20)]
    assert fit_vectors([wide], labels, OPTIONS).scores["wide"] < 0.85  # fitted images would give 1


@pytest.mark.parametrize(("max_iter", "told"), [(1000, False), (1, True)])
def test_probes_that_do_not_reach_their_minimum_are_told(
    max_iter: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    recording, labels = planted(60, 0, strength=0.3)
    fit_vectors([recording], labels, OPTIONS, C=100.0, max_iter=max_iter)
    assert ("did not converge in max_iter=1 " in caplog.text) is told


def test_the_vectors_carry_readers_of_early_steps() -> None:
    recording, labels = planted(80, 0)
    (reader,) = fit_vectors([recording], labels, OPTIONS).readers
    assert (reader.step, reader.noise_level) == (0, 1.0)
    assert reader.accuracy > 0.95
    seen = {layer: recording.activations[layer][:, 0] for layer in reader.layers}
    found = [OPTIONS[option] for option in reader.probabilities(seen).argmax(1)]
    assert np.mean([one == other for one, other in zip(found, labels, strict=True)]) > 0.95


def test_of_few_images_or_late_steps_there_are_no_readers() -> None:
    recording, labels = planted(16, 0)
    assert fit_vectors([recording], labels, OPTIONS).readers == ()
    recording, labels = planted(80, 0)
    assert fit_vectors([replace(recording, steps=[10, 12, 14])], labels, OPTIONS).readers == ()


def test_of_few_images_of_an_option_there_is_a_warning_and_of_enough_there_is_none(
    recwarn: pytest.WarningsRecorder,
) -> None:
    recording, labels = planted(60, 0)
    fit_vectors([recording], labels, OPTIONS)
    assert not [each for each in recwarn if each.category is UserWarning]
    few = [label if label == "woman" or labels[:index].count("man") < 6 else None for index, label in enumerate(labels)]
    with pytest.warns(UserWarning, match=r"6 image\(s\) show the rarest option: with fewer than 10 of each"):
        fit_vectors([recording], few, OPTIONS)
