"""method=leace and method=midsteer: what a linear probe reads is gone, or is the drawn option's."""

import csv
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from icm_pipeline.arrays import Ints
from icm_pipeline.config.schema import Settings
from icm_pipeline.localization.probes import Split, fit_layer, split_samples
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.erasing import fit_erasure, fit_switch, roots, shrunk_covariance
from icm_pipeline.methods.leace import erased
from icm_pipeline.methods.learnt import alphas_of, push
from icm_pipeline.methods.midsteer import switched
from icm_pipeline.methods.tuning import Tuned
from icm_pipeline.pipeline.keys import Keys
from tests.helpers.running import Run, pixels


def planted(num_options: int, n: int = 1200) -> tuple[Tensor, Ints]:
    """Return correlated activations [n, 1, 8] in which each option is a direction of its own, and labels."""
    rng = torch.Generator().manual_seed(0)
    labels = np.random.default_rng(0).integers(0, num_options, n)
    mixed = torch.randn(n, 8, generator=rng) @ torch.randn(8, 8, generator=rng)
    return (mixed + 6 * torch.eye(8)[labels])[:, None] + 3, labels


def accuracy(x: Tensor, labels: Ints) -> float:
    split: Split = split_samples(labels, 0.3, np.random.default_rng(0))
    return float(fit_layer(x.float().numpy(), labels, split, 1.0, 1000).accuracy[0])


def numbers(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values[0].float() for name, values in found.items()}


def test_a_probe_is_at_chance_after_leace_and_is_not_without_or_with_shuffled_labels() -> None:
    for num_options in (2, 3):
        x, labels = planted(num_options)
        assert accuracy(x, labels) > 0.8
        without = erased(x, numbers(fit_erasure(x, labels)))
        assert accuracy(without, labels) < 1 / num_options + 0.06
        shuffled = np.random.default_rng(1).permutation(labels)
        assert accuracy(erased(x, numbers(fit_erasure(x, shuffled))), labels) > 0.8


def test_each_options_direction_of_leace_points_from_the_mean_over_options_to_its_own() -> None:
    x, labels = planted(3)
    found = fit_erasure(x, labels)
    means = torch.stack([x[labels == option, 0].mean(0) for option in range(3)])
    expected = torch.nn.functional.normalize(means - means.mean(0), dim=1)
    torch.testing.assert_close(found["direction"][0], expected)
    torch.testing.assert_close(found["norm"][0], x[:, 0].norm(dim=1).mean())


def test_what_is_erased_has_no_covariance_with_the_labels_and_erasing_again_changes_nothing() -> None:
    x, labels = planted(3)
    found = numbers(fit_erasure(x, labels))
    without = erased(x, found)
    shown = torch.nn.functional.one_hot(torch.from_numpy(labels)).float()
    left = (without[:, 0] - without[:, 0].mean(0)).mT @ (shown - shown.mean(0)) / len(x)
    assert left.abs().max() < 1e-4
    torch.testing.assert_close(erased(without, found), without, atol=1e-3, rtol=1e-3)
    assert found["left"].shape == (8, 2)


def test_leace_changes_activations_less_than_taking_out_the_difference_of_means() -> None:
    """In the metric of the covariance, which whitening makes the plain one."""
    x, labels = planted(2)
    centre = x[labels == 1, 0].mean(0) - x[labels == 0, 0].mean(0)
    centre = centre / centre.norm()
    plain = x[:, 0] - ((x[:, 0] - x[:, 0].mean(0)) @ centre)[:, None] * centre
    without = erased(x, numbers(fit_erasure(x, labels)))[:, 0]
    _, whitening = roots(shrunk_covariance(x[:, 0]))
    assert ((without - x[:, 0]) @ whitening).square().sum() < ((plain - x[:, 0]) @ whitening).square().sum()


def test_images_without_a_label_count_for_nothing_in_leace() -> None:
    x, labels = planted(2)
    strange = torch.cat([x, torch.full((50, 1, 8), 1e3)])
    found = fit_erasure(strange, np.concatenate([labels, np.full(50, -1)]))
    for name, expected in fit_erasure(x, labels).items():
        torch.testing.assert_close(found[name], expected)


def test_midsteers_coordinates_are_counted_from_the_mean_of_all_images_and_are_one_at_an_options_own() -> None:
    x, labels = planted(3)
    labels[:200] = -1
    found = fit_switch(x, labels)
    means = torch.stack([x[labels == option, 0].mean(0) for option in range(3)])
    torch.testing.assert_close(found["mean"], x.mean(0))
    torch.testing.assert_close(found["centre"][0], means - x[:, 0].mean(0))
    held = (means - found["mean"][0]).double() @ found["reader"][0].mT
    torch.testing.assert_close(held.diagonal(), torch.ones(3).double(), atol=1e-3, rtol=0)


def test_the_shrunk_covariance_has_the_samples_trace_and_is_theirs_for_many_samples() -> None:
    x, _ = planted(2, 20_000)
    own = torch.cov(x[:, 0].mT, correction=0)
    torch.testing.assert_close(shrunk_covariance(x[:, 0]), own, rtol=1e-2, atol=0.05)
    few = shrunk_covariance(x[:5, 0])
    torch.testing.assert_close(few.trace(), torch.cov(x[:5, 0].mT, correction=0).trace())
    assert torch.linalg.eigvalsh(few).min() > 0
    root, whitening = roots(few)
    torch.testing.assert_close(root @ root, few, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(root @ whitening, torch.eye(8), atol=1e-3, rtol=1e-3)


def test_midsteer_turns_the_mean_of_one_option_into_that_of_another_and_leaves_the_drawn_one() -> None:
    x, labels = planted(2)
    found = numbers(fit_switch(x, labels))
    means = torch.stack([x[labels == option].mean(0) for option in (0, 1)])
    moved = switched(means, found, torch.tensor([1, 1]), 1.0)
    torch.testing.assert_close(moved[0], means[1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(moved[1], means[1], atol=1e-3, rtol=1e-3)
    further = switched(means, found, torch.tensor([1, 1]), 2.0)
    torch.testing.assert_close(further[0] - means[0], 2 * (moved[0] - means[0]))


def test_midsteers_tokens_move_together() -> None:
    x, labels = planted(2)
    found, tokens = numbers(fit_switch(x, labels)), x[:8].reshape(2, 4, 8)
    moved = switched(tokens, found, torch.tensor([0, 1]), 1.0) - tokens
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), atol=1e-4, rtol=1e-4)
    mean = tokens.mean(1, keepdim=True)
    by_mean = switched(mean, found, torch.tensor([0, 1]), 1.0) - mean
    torch.testing.assert_close(moved[:, :1], by_mean, atol=1e-4, rtol=1e-4)
    assert by_mean.abs().max() > 0.1


def test_both_run_through_the_stages_and_erasure_alone_draws_nothing(run: Run) -> None:
    plain = pixels(run("originals"))
    assert pixels(run("steer", "method=midsteer")) != plain
    alone, pushed = run("steer", "method=leace", "alpha=0"), run("steer", "method=leace", "alpha=2")
    assert len({str(sorted(pixels(folder).items())) for folder in (alone, pushed)} - {str(sorted(plain.items()))}) == 2
    for folder, drawn in ((alone, {""}), (pushed, {"woman", "man"})):
        with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
            assert {row["option"] for row in csv.DictReader(file)} == drawn
    assert run("fit", "method=leace", "alpha=0") == run("fit", "method=leace", "alpha=2")


def test_each_option_is_pushed_by_its_own_alpha_where_one_was_searched(settings_with: Callable[..., Settings]) -> None:
    settings = settings_with("alpha=3")
    found = {"direction": torch.eye(2), "norm": torch.tensor(2.0)}
    options = torch.tensor([1, 0, 1])
    pushed = push(found, options, alphas_of(MethodInputs(settings, {})), "relative")
    torch.testing.assert_close(pushed, 6 * torch.eye(2)[options])
    searched = {"woman": Tuned(1.0), "man": Tuned(5.0)}
    alphas = alphas_of(MethodInputs(settings, {}, tuned=searched))
    own = push(found, options, alphas, "activation")
    torch.testing.assert_close(own, torch.tensor([[0.0, 5.0], [1.0, 0.0], [0.0, 5.0]]))


def test_settings_that_a_method_does_not_read_change_no_key_of_it(compose_settings: Callable[..., Settings]) -> None:
    def key(*words: str) -> str:
        return Keys(compose_settings("method=leace", "alpha=3", *words)).key("steer")

    assert key() == key("method.norm_preserving=true") == key("method.vector=mean")
    assert len({key(), key("alpha=4"), key("method.first_step=2"), key("method.assignment=image")}) == 4
