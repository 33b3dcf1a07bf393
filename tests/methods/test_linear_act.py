"""method=linear_act: maps match quantiles, and move the mean of an image's tokens."""

import numpy as np
import pytest
import torch

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.methods.linear_act import fit_transport, quantiles, transport, transported
from tests.helpers.running import Run, pixels


def test_the_map_between_two_linear_images_of_one_sample_is_found_exactly() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    slope, intercept = transport(x, 2.5 * x[torch.randperm(50)] - 1)
    torch.testing.assert_close(slope, torch.full((3,), 2.5))
    torch.testing.assert_close(intercept, torch.full((3,), -1.0))


def test_the_map_matches_quantiles_of_samples_of_unequal_number_and_the_mean_alone_does_not() -> None:
    rng = torch.Generator().manual_seed(0)
    source, target = torch.randn(4000, 1, generator=rng), 3 + 0.5 * torch.randn(1500, 1, generator=rng)
    slope, intercept = transport(source, target)
    moved = slope * source + intercept
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    torch.testing.assert_close(moved.quantile(levels), target.quantile(levels), atol=0.06, rtol=0)
    shifted = source + target.mean() - source.mean()
    assert (shifted.quantile(levels) - target.quantile(levels)).abs().max() > 0.5


def test_as_many_quantiles_as_samples_are_the_samples_and_fewer_lie_between_them() -> None:
    x = torch.tensor([3.0, 1.0, 2.0, 4.0])
    assert quantiles(x, 4).tolist() == [1, 2, 3, 4]
    assert quantiles(x, 2).tolist() == [1.5, 3.5]


def test_a_channel_that_never_varies_is_only_shifted() -> None:
    slope, intercept = transport(torch.ones(5, 1), torch.arange(5.0)[:, None])
    assert (slope.item(), intercept.item()) == (1.0, 1.0)


@pytest.mark.parametrize(("how", "expected"), [("linear", 2 * 0.2 + 1), ("mean", 0.2 + 1)])
def test_tokens_move_with_their_mean_and_not_beyond_what_was_seen(how: str, expected: float) -> None:
    numbers = {
        "slope": torch.tensor([[1.0], [2.0]]), "intercept": torch.tensor([[0.0], [1.0]]), "mean": torch.zeros(1),
        "target": torch.tensor([[0.0], [1.0]]), "low": -torch.ones(1), "high": torch.ones(1),
    }  # fmt: skip
    tokens, towards = torch.tensor([[[0.1], [0.3]]] * 2), torch.tensor([0, 1])
    moved = transported(tokens, numbers, towards, 1.0, how)
    torch.testing.assert_close(moved.mean(1).flatten(), torch.tensor([0.2, expected]))
    torch.testing.assert_close(moved[:, 1] - moved[:, 0], tokens[:, 1] - tokens[:, 0])
    half = transported(tokens, numbers, towards, 0.5, how)
    torch.testing.assert_close(half - tokens, (moved - tokens) / 2)
    beyond = transported(tokens + 5, numbers, towards, 1.0, how)
    assert torch.equal(beyond, tokens + 5) == (how == "linear")
    below = transported(tokens - 5, numbers, towards, 1.0, how)
    assert torch.equal(below, tokens - 5) == (how == "linear")


def test_each_option_has_maps_of_its_own_at_every_step() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = np.arange(90) % 3 - 1
    x = torch.randn(90, 2, 4, generator=rng)
    x[:, 1] += torch.from_numpy(labels)[:, None].clamp_min(0)
    found = fit_transport(x, labels)
    assert found["slope"].shape == found["target"].shape == (2, 2, 4)
    moved = found["slope"][1, 1] * x[:, 1] + found["intercept"][1, 1]
    torch.testing.assert_close(moved.mean(0), x[labels == 1, 1].mean(0), atol=0.05, rtol=0)


def test_maps_lead_from_all_images_those_that_show_no_option_too_and_hold_where_there_are_some() -> None:
    labels = np.arange(90) % 3 - 1
    x = torch.randn(90, 2, 4, generator=torch.Generator().manual_seed(0))
    x[labels < 0] -= 4
    found = fit_transport(x, labels)
    for step in range(2):
        for option in range(2):
            slope, intercept = transport(x[:, step], x[labels == option, step])
            torch.testing.assert_close(found["slope"][step, option], slope)
            torch.testing.assert_close(found["intercept"][step, option], intercept)
            torch.testing.assert_close(found["target"][step, option], x[labels == option, step].mean(0))
    torch.testing.assert_close(found["mean"], x.mean(0))
    assert torch.equal(found["low"], x.min(0).values) and torch.equal(found["high"], x.max(0).values)


def test_it_runs_through_the_stages_and_another_map_is_refused(run: Run) -> None:
    linear, mean = (run("steer", "method=linear_act", f"method.params.map={how}") for how in ("linear", "mean"))
    assert len({str(sorted(pixels(folder).items())) for folder in (linear, mean, run("originals"))}) == 3
    with pytest.raises(ConfigError, match=r"method\.params\.map=cubic is not known; choose from linear, mean"):
        run("steer", "method=linear_act", "method.params.map=cubic")
