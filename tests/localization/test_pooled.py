"""Activations in half the bytes: nothing that a probe looks at is lost."""

import numpy as np
import pytest
import torch
from torch import Tensor

from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.localization.probes import Split, fit_layer

EVERY = torch.arange(200)


def drawn(seed: int = 0) -> Tensor:
    return torch.randn(200, 3, 16, generator=torch.Generator().manual_seed(seed))


HARD = {
    "as they come": lambda x: x,
    "one feature a million times the others": lambda x: x * torch.cat([torch.tensor([1e6]), torch.ones(15)]),
    "means far from zero": lambda x: x + 300 * torch.arange(16),
    "far beyond float16": lambda x: x * 1e9,
    "far below float16": lambda x: x * 1e-12,
    "steps of other sizes": lambda x: x * torch.tensor([1e-4, 1.0, 1e4])[:, None],
    "one image far from all": lambda x: x + 1e4 * (EVERY == 7)[:, None, None],
}


@pytest.mark.parametrize("make", HARD.values(), ids=HARD)
def test_a_number_is_off_by_a_2048th_of_its_distance_from_the_mean(make) -> None:
    x = make(drawn())
    back = Pooled.halved(x).rows(EVERY).movedim(0, 1)
    mean = x.double().mean(0)
    rounding = 4 * torch.finfo(torch.float32).eps * mean.abs()  # of the mean, which is kept in float32
    assert ((back - x).abs() <= (x - mean).abs() / 2048 + rounding + 1e-6 * x.std(0)).all()


def test_it_takes_half_the_bytes() -> None:
    halved = Pooled.halved(torch.randn(500, 3, 16))
    assert sum(each.nbytes for each in halved.tensors().values()) < 0.51 * 500 * 3 * 16 * 4


def test_constant_features_stay_constant() -> None:
    x = drawn()
    x[..., 3], x[..., 5] = 7.25, 0
    back = Pooled.halved(x).rows(EVERY)
    assert (back[..., 3] == 7.25).all()
    assert (back[..., 5] == 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    x = drawn()
    x[3, 1, 2] = bad
    with pytest.raises(FloatingPointError, match="NaN, infinity"):
        Pooled.halved(x)


@pytest.mark.parametrize("halved", [False, True])
def test_some_images_at_some_steps(halved: bool) -> None:
    x, rows = drawn(), torch.tensor([5, 190, 0])
    pooled = Pooled.halved(x) if halved else Pooled(x)
    whole = pooled.rows(EVERY)
    part = pooled.rows(rows, 1, 3)
    assert torch.equal(part, whole[1:3][:, rows])
    part.zero_()  # a copy
    assert torch.equal(pooled.rows(EVERY), whole)


@pytest.mark.parametrize("make", HARD.values(), ids=HARD)
def test_probes_are_those_of_the_whole_numbers(make) -> None:
    labels = np.arange(200) % 2
    x = drawn()
    x[:, :, :4] += torch.from_numpy(labels).float()[:, None, None]
    x = make(x)
    split = Split(np.arange(150), np.arange(150, 200))
    whole = fit_layer(x.numpy(), labels, split, 1.0, 1000)
    half = fit_layer(Pooled.halved(x), labels, split, 1.0, 1000)
    np.testing.assert_array_equal(half.accuracy, whole.accuracy)
    for name, directions in whole.directions.items():
        cosine = (directions * half.directions[name]).sum(-1)
        assert cosine.min() > 0.9999, name
