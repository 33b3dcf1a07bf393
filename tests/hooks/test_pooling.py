"""Small outputs: all rows at once and several layers together give what one layer's conditional rows give."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, Call, Site
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks import hooked as hooking
from icm_pipeline.hooks import pooling, recording
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.pooling import MOST, Watch, most_of, pool, pool_together
from icm_pipeline.hooks.recording import Recorder

NUM_STEPS = 4


def calls_of(num_steps: int, num_images: int = 2) -> StepClock:
    clock = StepClock(num_images)
    clock.start([1 - step / (2 * num_steps) for step in range(num_steps)])
    return clock


def begin(clock: StepClock, num_images: int = 2) -> None:
    call = Call(num_rows=2 * num_images, num_images=num_images, index=0)
    clock.begin_call(call, slice(num_images, 2 * num_images))


def recorded(backbone: Backbone, jobs: list[Job], steps: list[int]) -> dict[str, Tensor]:
    recorder = Recorder(steps)
    with hooked(backbone, backbone.layers, recorder, len(jobs)):
        denoise(backbone, jobs)
    return recorder.recording().activations


@pytest.mark.parametrize("steps", [[0, 1, 2, 3], [0, 3], [3, 1]])
def test_a_recording_of_layers_together_is_that_of_each_alone(
    backbone: Backbone, jobs: list[Job], steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooking, "SMALL_ON_CPU", 0)
    alone = recorded(backbone, jobs, steps)
    groups = list[int]()

    def pooled(tokens: list[Tensor]) -> Tensor:
        groups.append(len(tokens))
        return pool_together(tokens)

    monkeypatch.setattr(hooking, "SMALL_ON_CPU", 1 << 22)
    monkeypatch.setattr(recording, "pool_together", pooled)
    together = recorded(backbone, jobs, steps)
    assert max(groups) > 1
    assert sum(groups) == len(backbone.layers) * (len(steps) - 1)  # in the first call each alone
    assert list(together) == list(alone)
    for layer, means in together.items():
        torch.testing.assert_close(means, alone[layer], rtol=1e-6, atol=1e-7)


def test_an_output_that_is_written_into_while_it_is_held_never_waits() -> None:
    """Layer "b" gives a tensor that the block then adds to in place; "a" and "c" keep theirs."""
    recorder, clock, expected = Recorder(list(range(6))), calls_of(6), dict[str, list[Tensor]]()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for step in range(6):
            begin(clock)
            for layer in "abc":
                tokens = torch.randn(4, 5, 3, generator=generator)
                recorder.of_all_rows(tokens, Site(layer, "self_attention"), clock)
                expected.setdefault(layer, []).append(tokens[2:].mean(1))
                if layer == "b":
                    tokens.add_(1)
            clock.advance(step)
    found = recorder.recording().activations
    for layer, means in expected.items():
        torch.testing.assert_close(found[layer], torch.stack(means, 1))


def test_an_output_that_is_written_into_much_later_in_the_call_never_waits() -> None:
    recorder, clock, generator = Recorder([0, 1, 2]), calls_of(3), torch.Generator().manual_seed(0)
    layers, expected = [str(number) for number in range(MOST)], list[Tensor]()
    with torch.no_grad():
        for step in range(3):
            begin(clock)
            first = None
            for layer in layers:
                tokens = torch.randn(4, 5, 3, generator=generator)
                first = tokens if first is None else first
                recorder.of_all_rows(tokens, Site(layer, "self_attention"), clock)
            assert first is not None
            expected.append(first[2:].mean(1))
            first.zero_()
            clock.advance(step)
    torch.testing.assert_close(recorder.recording().activations["0"], torch.stack(expected, 1))


def test_pieces_of_an_output_count_as_one_also_where_the_first_would_wait() -> None:
    recorder, clock, generator = Recorder([0, 1, 2]), calls_of(3), torch.Generator().manual_seed(0)
    expected, site = list[Tensor](), Site("a", "feed_forward")
    with torch.no_grad():
        for step in range(3):
            begin(clock)
            whole = torch.randn(4, 6, 3, generator=generator)
            pieces = [whole] if step == 0 else whole.split(3, dim=1)
            for piece in pieces:
                recorder.of_all_rows(piece, site, clock)
            expected.append(whole[2:].mean(1))
            clock.advance(step)
    torch.testing.assert_close(recorder.recording().activations["a"], torch.stack(expected, 1))


def test_outputs_that_are_not_alike_are_pooled_apart() -> None:
    """Shapes change between layers, and the batch does between the calls."""
    recorder, clock, generator = Recorder([0, 1, 2, 3]), calls_of(4), torch.Generator().manual_seed(0)
    shapes, expected = {"a": (5, 3), "b": (5, 3), "c": (2, 7), "d": (5, 3)}, dict[str, list[Tensor]]()
    with torch.no_grad():
        for step in range(4):
            begin(clock)
            for layer, shape in shapes.items():
                more = 1 if step == 3 else 0  # another number of tokens than before
                tokens = torch.randn(4, shape[0] + more, shape[1], generator=generator)
                dtype = torch.bfloat16 if layer == "d" else torch.float32
                recorder.of_all_rows(tokens.to(dtype), Site(layer, "self_attention"), clock)
                expected.setdefault(layer, []).append(tokens.to(dtype).float()[2:].mean(1))
            clock.advance(step)
    found = recorder.recording().activations
    for layer, means in expected.items():
        torch.testing.assert_close(found[layer], torch.stack(means, 1))


def test_nothing_waits_where_a_gradient_is_asked_for() -> None:
    recorder, clock = Recorder([0, 1]), calls_of(2)
    for step in range(2):
        begin(clock)
        weights = torch.ones(3, requires_grad=True)
        recorder.of_all_rows(torch.ones(4, 5, 3) * weights, Site("a", "self_attention"), clock)
        clock.advance(step)
    means = recorder.recording().activations["a"]
    assert not means.requires_grad
    assert torch.equal(means, torch.ones(2, 2, 3))


def test_no_output_is_held_once_the_recording_has_left_the_device() -> None:
    recorder, clock, alive = Recorder([0, 1]), calls_of(2), list[weakref.ref[Tensor]]()
    with torch.no_grad():
        for step in range(2):
            begin(clock)
            tokens = torch.ones(4, 5, 3)
            alive.append(weakref.ref(tokens))
            recorder.of_all_rows(tokens, Site("a", "self_attention"), clock)
            clock.advance(step)
    del tokens
    recorder.leave_device()
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


@pytest.mark.parametrize(
    ("write", "stays"),
    [
        (lambda tokens: None, True),
        (lambda tokens: tokens[0].mul_(2), False),
        (lambda tokens: tokens.detach().numpy().fill(3), False),  # which torch does not count
        (lambda tokens: tokens.fill_(torch.nan), False),
    ],
)
def test_a_watch_tells_whose_outputs_stay(write: Callable[[Tensor], object], stays: bool) -> None:
    watch, tokens = Watch(), torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    watch.hold("a", tokens, tokens[:2], pool(tokens[:2]))
    write(tokens)
    assert [layer for layer, _ in watch.judge()] == ["a"] * stays
    assert watch.judge() == []


def test_a_watch_holds_no_more_outputs_than_may_wait() -> None:
    watch, alive = Watch(), list[weakref.ref[Tensor]]()
    for number in range(MOST + 3):
        tokens = torch.ones(1, 2, 3)
        alive.append(weakref.ref(tokens))
        watch.hold(str(number), tokens, tokens[:], pool(tokens))
    del tokens
    assert [ref() is None for ref in alive] == [True] * 3 + [False] * MOST
    assert len(watch.judge()) == MOST + 3


def test_large_outputs_are_held_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "HELD", 100)
    watch, alive = Watch(), list[weakref.ref[Tensor]]()
    for number in range(5):
        tokens = torch.ones(2, 2, 10)
        assert most_of(tokens) == 2
        alive.append(weakref.ref(tokens))
        watch.hold(str(number), tokens, tokens[:], pool(tokens))
    assert most_of(torch.ones(2, 100, 10)) == 1
    del tokens
    assert [ref() is None for ref in alive] == [True] * 3 + [False] * 2
    assert len(watch.judge()) == 5


def test_pooled_together_is_pooled_in_float32() -> None:
    tokens = [torch.full((2, 3000, 4), value, dtype=torch.bfloat16) for value in (1.0, -2.0)]
    sums = pool_together(tokens)
    assert sums.dtype == torch.float32
    assert torch.equal(sums, torch.tensor([3000.0, -6000.0])[:, None, None].expand(2, 2, 4))
