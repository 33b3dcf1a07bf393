"""Only what nobody else holds may be written into."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, Site
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks import owned
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.owned import is_own

LINEAR = nn.Linear(4, 4)
HELD: list[Any] = []


def hold(part: Any) -> Any:
    HELD.append(part)
    return part


def flat(x: Tensor) -> Tensor:
    return torch.addmm(LINEAR.bias, x.flatten(0, 1), LINEAR.weight)


FRESH = {
    "a linear layer": lambda x: LINEAR(x),
    "a sum": lambda x: x + 1,
    "dropout of a fresh tensor": lambda x: nn.functional.dropout(LINEAR(x), training=False),
    "a view of what is gone": lambda x: flat(x).view(2, 3, 4),
}
SHARED = {
    "its input": lambda x: x,
    "dropout of its input": lambda x: nn.functional.dropout(x, training=False),
    "a view of its input": lambda x: x.view(2, 3, 4),
    "a part of its input": lambda x: x[:1],
    "what it keeps": lambda x: hold(LINEAR(x)),
    "what it keeps a part of": lambda x: (y := LINEAR(x), hold(y[0]))[0],
    "a view of what it keeps": lambda x: hold(flat(x)).view(2, 3, 4),
    "what numpy holds": lambda x: torch.from_numpy(hold(LINEAR(x).numpy().copy())),
    "a buffer": lambda x: torch.frombuffer(hold(bytearray(96)), dtype=torch.float32).view(2, 3, 4),
    "what it keeps the memory of": lambda x: (y := LINEAR(x), hold(y.untyped_storage()))[0],
    "one row, expanded": lambda x: LINEAR(x)[:1].expand(2, 3, 4),
    "a weight": lambda x: LINEAR.weight,
    "two tensors": lambda x: (LINEAR(x), x),
}


class Returning(nn.Module):
    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.forward = make


@pytest.fixture(autouse=True)
def counted_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test may have left torch's compiler looking at every frame, and then callers hold what they pass on."""
    monkeypatch.setattr(owned, "_FRESH", owned._count_fresh())


CASES = [pytest.param(make, make in FRESH.values(), id=name) for name, make in (FRESH | SHARED).items()]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(("make", "expected"), CASES)
def test_only_a_fresh_tensor_is_own(make: Callable[[Tensor], Tensor], expected: bool, mode: Callable) -> None:
    seen: list[bool] = []

    def after(module: nn.Module, args: object, output: Tensor) -> None:
        seen.append(is_own(output))

    module = Returning(make)
    module.register_forward_hook(after)
    with mode():
        x = torch.randn(2, 3, 4)
        module(x)
    HELD.clear()
    assert seen == [expected]


def test_what_needs_gradients_is_not_own() -> None:
    seen: list[bool] = []
    module = nn.Linear(4, 4)
    module.register_forward_hook(lambda module, args, output: seen.append(is_own(output)))
    module(torch.randn(2, 3, 4))
    assert seen == [False]


def test_a_hook_that_keeps_an_output_keeps_it_as_it_was() -> None:
    module = nn.Linear(4, 4)
    kept: list[Tensor] = []
    seen: list[bool] = []
    module.register_forward_hook(lambda module, args, output: kept.append(output))
    module.register_forward_hook(lambda module, args, output: seen.append(is_own(output)))
    with torch.no_grad():
        module(torch.randn(2, 3, 4))
    assert seen == [False]


class AddOne:
    """A hook that counts how it was asked."""

    def __init__(self) -> None:
        self.copied = self.written = 0

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        self.copied += 1
        return tokens + 1

    def write_into(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
        self.written += 1
        tokens.add_(1)


def test_a_backbones_layers_are_written_into_and_give_the_same_picture(backbone: Backbone, jobs: list[Job]) -> None:
    def add_one(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        return tokens + 1

    in_place = AddOne()
    with hooked(backbone, backbone.layers, add_one, len(jobs)):
        expected = denoise(backbone, jobs)
    with hooked(backbone, backbone.layers, in_place, len(jobs)):
        assert torch.equal(denoise(backbone, jobs), expected)
    assert in_place.copied == 0
    assert in_place.written > 0


def test_a_hook_that_keeps_what_it_sees_makes_the_next_one_copy(backbone: Backbone, jobs: list[Job]) -> None:
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(tokens: Tensor, site: Site, clock: StepClock) -> None:
        kept.append((tokens, tokens.clone()))

    layers, in_place = backbone.layers[:2], AddOne()
    with hooked(backbone, layers, keep, len(jobs)), hooked(backbone, layers, in_place, len(jobs)):
        denoise(backbone, jobs)
    assert in_place.written == 0
    assert all(torch.equal(seen, copy) for seen, copy in kept)
