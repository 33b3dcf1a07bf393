"""Probes: scikit-learn is the oracle, planted directions are found, shuffled labels are at chance."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.localization import probes
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.localization.probes import LayerProbes, Split, fit_layer, shuffled_labels, split_samples

Data = tuple[NDArray[np.float32], NDArray[np.int64]]
NUM_STEPS = 2


def planted(n: int, d: int, num_options: int, strength: float, seed: int = 0) -> Data:
    """Return activations [n, T, d] in which every option adds its own direction, and labels [n]."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % num_options)
    directions = rng.normal(size=(num_options, NUM_STEPS, d)) / np.sqrt(d)
    x = rng.normal(size=(n, NUM_STEPS, d)) * rng.uniform(0.2, 5, d) + rng.normal(size=d) * 3
    return (x + strength * directions[labels]).astype(np.float32), labels


def imbalanced() -> Data:
    x, _ = planted(300, 20, 2, 0)
    labels = (np.arange(300) < 15).astype(np.int64)
    x[labels == 1] += 0.5
    return x, labels


def separable() -> Data:
    x, labels = planted(120, 10, 2, 0)
    x[..., 0] += 30 * labels[:, None]
    return x, labels


def with_constant_feature() -> Data:
    x, labels = planted(200, 12, 2, 4.0)
    x[..., 3] = 0.1
    x[..., 5] = 0.0
    return x, labels


def with_duplicated_rows() -> Data:
    x, labels = planted(60, 30, 3, 4.0)
    return np.tile(x, (4, 1, 1)), np.tile(labels, 4)


def wide_and_separable() -> Data:
    x, labels = planted(60, 130, 2, 0)
    x[..., 0] += 30 * labels[:, None]
    return np.tile(x, (2, 1, 1)), np.tile(labels, 2)


def far_from_zero() -> Data:
    x, labels = planted(200, 20, 2, 4.0)
    return x + np.float32(2000), labels


CASES = {
    "binary": lambda: planted(300, 24, 2, 4.0),
    "multinomial": lambda: planted(400, 24, 4, 4.0),
    "binary, more features than samples": lambda: planted(80, 200, 2, 4.0),
    "multinomial, more features than samples": lambda: planted(80, 200, 3, 4.0),
    "noise": lambda: planted(200, 24, 2, 0.0),
    "constant feature": with_constant_feature,
    "separable": separable,
    "imbalanced": imbalanced,
    "duplicated rows": with_duplicated_rows,
    "separable, more features than samples": wide_and_separable,
    "far from zero": far_from_zero,
}


def everything(labels: NDArray[np.int64]) -> Split:
    rows = np.arange(len(labels))
    return Split(rows, rows)


def oracle(x: NDArray[np.float64], labels: NDArray[np.int64], C: float = 1.0) -> tuple[NDArray, NDArray]:
    """Return scikit-learn's predictions and its weights in activation space [K, d]."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-9, max_iter=100_000))
    model.fit(x, labels)
    return model.predict(x), model[1].coef_ / model[0].scale_


def unit(vectors: NDArray) -> NDArray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def per_option(vectors: NDArray) -> NDArray:
    """Return a vector for each option: the two signs of a single one, else each less the mean of all."""
    return np.concatenate([-vectors, vectors]) if len(vectors) == 1 else vectors - vectors.mean(0)


def predict(x: NDArray[np.floating], weights: NDArray[np.floating], bias: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return option indices [T, n] for activations [T, n, d]."""
    logits = np.einsum("tnd,tkd->tnk", x, weights, optimize=True) + bias[:, None]
    return (logits[..., 0] > 0).astype(np.int64) if logits.shape[2] == 1 else logits.argmax(2)


def check_against_oracle(fitted: LayerProbes, x: NDArray[np.float32], labels: NDArray[np.int64], C: float) -> None:
    wide = np.moveaxis(x, 1, 0).astype(np.float64)
    predicted = predict(wide, fitted.weights, fitted.bias)
    for step in range(x.shape[1]):
        expected, weights = oracle(wide[step], labels, C)
        assert (predicted[step] == expected).mean() >= 0.999
        cosine = (unit(fitted.weights[step]) * unit(weights)).sum(-1)
        assert (cosine >= 0.999).all()
        np.testing.assert_allclose(fitted.weights[step], weights, rtol=0, atol=2e-3 * np.abs(weights).max())
        steered = (unit(fitted.directions["probe"][step]) * unit(per_option(weights))).sum(-1)
        assert (steered >= 0.999).all()


@pytest.mark.parametrize("case", CASES)
def test_probes_agree_with_scikit_learn(case: str) -> None:
    x, labels = CASES[case]()
    fitted = fit_layer(x, labels, everything(labels), C=1.0, max_iter=1000)
    check_against_oracle(fitted, x, labels, 1.0)


@pytest.mark.parametrize("C", [0.01, 100.0])
def test_probes_agree_with_scikit_learn_for_other_penalties(C: float) -> None:
    x, labels = planted(200, 16, 3, 3.0)
    check_against_oracle(fit_layer(x, labels, everything(labels), C, 1000), x, labels, C)


def test_problems_solved_together_equal_problems_solved_alone() -> None:
    x, labels = planted(150, 20, 3, 3.0)
    together = fit_layer(x, labels, everything(labels), 1.0, 1000)
    for step in range(NUM_STEPS):
        alone = fit_layer(x[:, step : step + 1], labels, everything(labels), 1.0, 1000)
        np.testing.assert_allclose(together.weights[step], alone.weights[0], atol=3e-4)


@pytest.mark.parametrize("num_options", [2, 4])
def test_a_planted_direction_is_read_from_held_out_samples(num_options: int) -> None:
    x, labels = planted(400, 16, num_options, 25.0)
    split = split_samples(labels, 0.25, np.random.default_rng(0))
    assert (fit_layer(x, labels, split, 1.0, 1000).accuracy > 0.9).all()


@pytest.mark.parametrize("num_options", [2, 4])
def test_shuffled_labels_are_at_chance(num_options: int) -> None:
    x, labels = planted(800, 16, num_options, 25.0)
    shuffled = np.random.default_rng(1).permutation(labels)
    split = split_samples(shuffled, 0.5, np.random.default_rng(0))
    accuracy = fit_layer(x, shuffled, split, 1.0, 1000).accuracy
    assert (np.abs(accuracy - 1 / num_options) < 0.08).all()


@pytest.mark.parametrize("seed", range(20))
def test_shuffling_keeps_every_option_on_both_sides(seed: int) -> None:
    x, labels = planted(60, 8, 2, 25.0)
    labels = np.where(np.arange(60) < 2, 2, labels)  # an option of two samples, one on each side
    split = split_samples(labels, 0.5, np.random.default_rng(0))
    shuffled = shuffled_labels(labels, split, np.random.default_rng(seed))
    for rows in (split.train, split.test):
        assert np.bincount(shuffled[rows]).tolist() == np.bincount(labels[rows]).tolist()
    assert (shuffled != labels).any()
    fitted = fit_layer(x, shuffled, split, 1.0, 1000)
    assert all(np.isfinite(directions).all() and directions.shape[1] == 3 for directions in fitted.directions.values())


def test_held_out_samples_do_not_enter_the_fit() -> None:
    x, labels = planted(200, 10, 2, 3.0)
    split = split_samples(labels, 0.25, np.random.default_rng(0))
    changed = x.copy()
    changed[split.test] = 1000.0
    first, second = (fit_layer(data, labels, split, 1.0, 1000) for data in (x, changed))
    assert np.array_equal(first.weights, second.weights)
    assert all(np.array_equal(first.directions[name], second.directions[name]) for name in first.directions)
    assert np.array_equal(first.mean_norm, second.mean_norm)


@pytest.mark.parametrize("name", ["probe", "mean_difference", "pattern"])
@pytest.mark.parametrize("num_options", [2, 3])
def test_a_planted_axis_is_the_direction_of_its_option(name: str, num_options: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(600) % num_options
    x = rng.normal(size=(600, 1, 10)).astype(np.float32)
    x[np.arange(600), 0, labels] += 4
    directions = fit_layer(x, labels, everything(labels), 1.0, 1000).directions[name][0]
    for option in range(num_options):
        expected = np.zeros(10)
        expected[:num_options] = -1 / num_options
        expected[option] += 1
        assert directions[option] @ unit(expected) > 0.95


@pytest.mark.parametrize("name", ["probe", "mean_difference", "pattern"])
def test_the_planted_axis_is_found_with_the_true_labels_and_not_with_shuffled_ones(name: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 2
    x = rng.normal(size=(2000, 1, 64)).astype(np.float32)
    x[:, 0, 0] += 2 * labels
    true, shuffled = (
        fit_layer(x, given, everything(labels), 1.0, 1000).directions[name][0, 1, 0]
        for given in (labels, rng.permutation(labels))
    )
    assert true > 0.9
    assert abs(shuffled) < 0.5


@pytest.mark.parametrize("counts", [[240, 40], [240, 40, 20]])
def test_each_direction_is_what_its_name_says(counts: list[int]) -> None:
    """By hand, on correlated features of very different scales and with options that few samples show.

    A strong penalty keeps the pattern apart from the difference of two means, which it is without one.
    """
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    mixing = rng.normal(size=(8, 8)) * np.geomspace(0.1, 20, 8)
    x = ((rng.normal(size=(len(labels), 1, 8)) + np.eye(8)[labels][:, None]) @ mixing + 5).astype(np.float32)
    wide = x[:, 0].astype(np.float64)
    _, weights = oracle(wide, labels, C=0.001)
    logits = wide @ weights.T
    means = np.array([wide[labels == option].mean(0) for option in range(len(counts))])
    covariance = (logits - logits.mean(0)).T @ (wide - wide.mean(0)) / (len(wide) - 1)
    expected = {
        "probe": unit(per_option(weights)),
        "mean_difference": unit(means - means.mean(0)),
        "pattern": unit(per_option(covariance)),
    }
    directions = fit_layer(x, labels, everything(labels), 0.001, 1000).directions
    assert directions.keys() == expected.keys()
    for name, vectors in expected.items():
        np.testing.assert_allclose(directions[name][0], vectors, atol=2e-3)
        assert all(np.abs(vectors - other).max() > 0.05 for key, other in expected.items() if key != name)


@pytest.mark.parametrize("case", CASES)
def test_directions_have_unit_length(case: str) -> None:
    x, labels = CASES[case]()
    for directions in fit_layer(x, labels, everything(labels), 1.0, 1000).directions.values():
        assert directions.shape == (NUM_STEPS, labels.max() + 1, x.shape[2])
        np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1.0, atol=1e-6)


def test_two_options_are_the_two_signs_of_one_direction() -> None:
    x, labels = planted(200, 10, 2, 3.0)
    for directions in fit_layer(x, labels, everything(labels), 1.0, 1000).directions.values():
        np.testing.assert_allclose(directions[:, 0], -directions[:, 1], atol=1e-6)


def test_a_constant_feature_gets_no_weight() -> None:
    x, labels = with_constant_feature()
    fitted = fit_layer(x, labels, everything(labels), 1.0, 1000)
    assert np.abs(fitted.weights[..., [3, 5]]).max() < 1e-6


def test_the_mean_norm_is_the_mean_length_of_training_activations() -> None:
    x, labels = planted(100, 10, 2, 3.0)
    split = split_samples(labels, 0.25, np.random.default_rng(0))
    expected = [np.mean([np.linalg.norm(x[i, step].astype(float)) for i in split.train]) for step in range(NUM_STEPS)]
    np.testing.assert_allclose(fit_layer(x, labels, split, 1.0, 1000).mean_norm, expected, rtol=1e-5)


def test_accuracy_counts_held_out_samples_only() -> None:
    x, labels = planted(200, 50, 2, 1.0)
    split = split_samples(labels, 0.25, np.random.default_rng(0))
    fitted = fit_layer(x, labels, split, 1.0, 1000)
    predicted = predict(np.moveaxis(x, 1, 0).astype(float), fitted.weights, fitted.bias)
    assert fitted.accuracy == pytest.approx((predicted == labels)[:, split.test].mean(1))


def test_the_activations_given_are_not_written_to() -> None:
    x, labels = with_constant_feature()
    before = x.copy()
    fit_layer(x, labels, everything(labels), 1.0, 1000)
    assert np.array_equal(x, before)


@pytest.mark.parametrize("counts", [[100, 100], [190, 10], [50, 30, 20]])
def test_a_split_keeps_every_options_share(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    split = split_samples(labels, 0.2, np.random.default_rng(0))
    assert np.bincount(labels[split.test]).tolist() == [count // 5 for count in counts]
    assert sorted([*split.train, *split.test]) == list(range(sum(counts)))


def test_the_generator_decides_the_split() -> None:
    labels = np.arange(100) % 2
    first, again, other = (split_samples(labels, 0.2, np.random.default_rng(seed)).test for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_groups_stay_together() -> None:
    groups, labels = np.arange(200) % 10, np.arange(200) // 10 % 2
    split = split_samples(labels, 0.2, np.random.default_rng(0), groups)
    assert not set(groups[split.train]) & set(groups[split.test])
    assert len(set(groups[split.test])) == 2
    assert len(split.train) + len(split.test) == 200


def test_without_groups_a_prompt_stands_on_both_sides() -> None:
    groups, labels = np.arange(200) % 10, np.arange(200) // 10 % 2
    split = split_samples(labels, 0.2, np.random.default_rng(0))
    assert set(groups[split.train]) & set(groups[split.test])


def test_an_option_with_one_sample_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="No training sample shows option 1"):
        split_samples(np.array([0] * 9 + [1]), 0.2, np.random.default_rng(0))


def test_an_option_that_lives_in_one_group_cannot_be_split() -> None:
    labels, groups = np.array([0] * 40 + [1] * 10), np.arange(50) // 10
    with pytest.raises(ValueError, match="sample shows option 1"):
        split_samples(labels, 0.2, np.random.default_rng(0), groups)


def held_out_agreement(x: NDArray[np.float32], labels: NDArray[np.int64], C: float) -> tuple[float, float]:
    """Return the share of held-out predictions equal to scikit-learn's and the least cosine of directions."""
    split = split_samples(labels, 0.2, np.random.default_rng(0))
    fitted = fit_layer(x, labels, split, C, 1000)
    same, cosines = [], []
    for step in range(x.shape[1]):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-9, max_iter=100_000))
        model.fit(x[split.train, step].astype(np.float64), labels[split.train])
        predicted = predict(x[split.test, step][None], fitted.weights[[step]], fitted.bias[[step]])[0]
        same += (predicted == model.predict(x[split.test, step])).tolist()
        cosines += (unit(fitted.weights[step]) * unit(model[1].coef_ / model[0].scale_)).sum(-1).tolist()
    return float(np.mean(same)), min(cosines)


@pytest.mark.parametrize("C", [0.0003, 1.0])
def test_real_activations_give_scikit_learns_held_out_predictions(backbone: Backbone, C: float) -> None:
    jobs = [Job(f"{seed:03d}", "a portrait of a person", 0, seed) for seed in range(24)]
    recorder = Recorder([0, 1, 2, 3])
    with hooked(backbone, backbone.layers, recorder, len(jobs)):
        denoise(backbone, jobs)
    for activations in list(recorder.recording().activations.values())[::5]:
        same, cosine = held_out_agreement(activations.numpy(), np.arange(24) % 2, C)
        assert same >= 0.999
        assert cosine >= 0.999


def test_probes_that_do_not_converge_say_so() -> None:
    x, labels = planted(200, 24, 4, 4.0)
    assert not fit_layer(x, labels, everything(labels), 1.0, 1).converged.any()
    assert fit_layer(x, labels, everything(labels), 1.0, 1000).converged.all()


@pytest.mark.parametrize(("num_options", "width"), [(2, 24), (3, 24), (2, 200), (3, 200)])
@pytest.mark.parametrize("C", [0.01, 1.0])
def test_scikit_learns_solver_gives_the_probes_of_the_batched_one(num_options: int, width: int, C: float) -> None:
    x, labels = planted(240, width, num_options, 4.0)
    split = split_samples(labels, 0.25, np.random.default_rng(0))
    batched, library = (fit_layer(x, labels, split, C, 1000, solver=solver) for solver in ("batched", "scikit_learn"))
    assert library.converged.all()
    wide = np.moveaxis(x, 1, 0).astype(np.float64)
    predicted, expected = (predict(wide, probes.weights, probes.bias) for probes in (library, batched))
    assert (predicted == expected).mean() >= 0.99
    np.testing.assert_allclose(library.accuracy, batched.accuracy, atol=1 / len(split.test))
    np.testing.assert_allclose(library.mean_norm, batched.mean_norm, rtol=1e-6)
    for name, directions in batched.directions.items():
        assert (directions * library.directions[name]).sum(-1).min() > 0.999


def test_scikit_learns_solver_is_the_library_itself() -> None:
    x, labels = planted(240, 24, 3, 4.0)
    fitted = fit_layer(x, labels, everything(labels), 1.0, 1000, solver="scikit_learn")
    for step in range(NUM_STEPS):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
        model.fit(x[:, step].astype(np.float64), labels)
        np.testing.assert_allclose(fitted.weights[step], model[1].coef_ / model[0].scale_, rtol=1e-4, atol=1e-6)
        assert fitted.accuracy[step] == model.score(x[:, step], labels)


def test_scikit_learns_solver_says_which_probes_did_not_converge() -> None:
    x, labels = planted(200, 24, 4, 4.0)
    assert not fit_layer(x, labels, everything(labels), 1.0, 1, solver="scikit_learn").converged.any()


def test_layers_solved_together_are_as_if_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does with the steps of several layers, here on the CPU."""
    monkeypatch.setitem(probes.BLOCK_BYTES, "cpu", 2**30)
    layers = [Pooled(torch.from_numpy(planted(300, 24, 2, 4.0, seed)[0])) for seed in range(3)]
    labels = planted(300, 24, 2, 4.0)[1]
    problem = probes._problem(labels, everything(labels), 1.0, 1000, "cpu", "batched")
    together = probes._fit_together(layers, problem, "cpu")
    for layer, found in zip(layers, together, strict=True):
        [alone] = probes._fit_together([layer], problem, "cpu")
        np.testing.assert_allclose(found.weights, alone.weights, rtol=2e-3, atol=2e-4)
        np.testing.assert_array_equal(found.accuracy, alone.accuracy)
        assert found.directions.keys() == alone.directions.keys()


def test_many_layers_come_in_order_on_the_cpu() -> None:
    layers = {f"layer {seed}": Pooled(torch.from_numpy(planted(300, 24, 2, 4.0, seed)[0])) for seed in range(5)}
    labels = planted(300, 24, 2, 4.0)[1]
    found = list(probes.fit_layers(layers.__getitem__, layers, labels, everything(labels), 1.0, 1000))
    for layer, fitted in zip(layers.values(), found, strict=True):
        expected = fit_layer(layer, labels, everything(labels), 1.0, 1000)
        np.testing.assert_array_equal(fitted.weights, expected.weights)


def test_on_another_device_activations_go_where_the_problem_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """`meta` stands for a device that is neither the CPU nor CUDA: it holds no numbers, so the solver stands aside."""
    seen: list[torch.device] = []

    def solved(layers: list[Pooled], problem: probes._Problem, device: str) -> list[None]:
        seen.extend((layers[0].values.device, problem.train.device))
        return [None]

    monkeypatch.setattr(probes, "_fit_together", solved)
    monkeypatch.setattr(torch.nn.functional, "one_hot", lambda values: values[:, None])
    x, labels = planted(30, 4, 2, 4.0)
    list(probes.fit_layers(lambda name: Pooled(torch.from_numpy(x)), ["a"], labels, everything(labels), 1.0, 9, "meta"))
    assert {device.type for device in seen} == {"meta"}


def test_on_cuda_layers_of_one_shape_share_a_block_that_is_not_exceeded(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[list[int]] = []

    def solved(layers: list[Pooled], problem: object, device: str) -> list[int]:
        groups.append([layer.shape[2] for layer in layers])
        return groups[-1]

    for name, stand_in in (
        ("_problem", lambda *args: None), ("_sent", lambda pooled, device: pooled), ("_fit_together", solved),
        ("block_size", lambda *args: 5),
    ):  # fmt: skip
        monkeypatch.setattr(probes, name, stand_in)
    labels, widths = np.arange(6) % 2, {"a": 3, "b": 3, "c": 3, "d": 4, "e": 3}
    read = {name: Pooled(torch.zeros(6, 2, width)) for name, width in widths.items()}
    found = list(probes.fit_layers(read.__getitem__, widths, labels, everything(labels), 1.0, 9, "cuda"))
    assert groups == [[3, 3], [3], [4], [3]]
    assert found == list(widths.values())
