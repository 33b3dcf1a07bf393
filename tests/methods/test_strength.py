"""Alphas as users give them: a number of any library, or several; what is none is refused."""

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from icm_pipeline.methods.strength import checked_alpha


@pytest.mark.parametrize(
    "alpha",
    [
        3, 3.0, Fraction(3), np.float32(3), np.float64(3), np.int64(3), np.array(3.0), torch.tensor(3),
        torch.tensor(3.0, requires_grad=True).half(), torch.nn.Parameter(torch.tensor(3.0)),
    ],
    ids=lambda alpha: f"{type(alpha).__name__} {getattr(alpha, 'dtype', '')}",
)  # fmt: skip
def test_a_number_of_any_library_is_a_float(alpha: Any) -> None:
    assert checked_alpha(alpha) == 3.0
    assert type(checked_alpha(alpha)) is float
    assert checked_alpha([alpha, -1]) == [3.0, -1.0]


@pytest.mark.parametrize("alpha", [(0, 2.5), np.array([0, 2.5]), torch.tensor([0, 2.5]), [0, np.float32(2.5)]])
def test_several_are_a_list_of_floats(alpha: Any) -> None:
    assert checked_alpha(alpha) == [0.0, 2.5]


@pytest.mark.parametrize(
    "alpha",
    [
        True, "3", "strong", math.nan, math.inf, np.float32("nan"), np.bool_(True), torch.tensor(True), 1j,
        torch.tensor(math.inf), [1.0, "2"], [1.0, True], [1.0, math.nan], np.ones((2, 2)), object(), {"woman": 3.0},
    ],
    ids=lambda alpha: type(alpha).__name__,
)  # fmt: skip
def test_what_is_no_finite_number_is_refused(alpha: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"alpha={alpha!r} is no number: give one that is finite")):
        checked_alpha(alpha)
