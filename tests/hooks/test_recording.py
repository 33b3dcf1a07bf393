"""Recording: pooled activations equal an obvious reference, for the recorded steps and no others."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError, Call, Site
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks import hooked as hooking
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder

NUM_STEPS = 4


def record(backbone: Backbone, jobs: list[Job], steps: list[int]) -> dict[str, Tensor]:
    recorder = Recorder(steps)
    with hooked(backbone, backbone.layers, recorder, len(jobs)):
        denoise(backbone, jobs)
    return recorder.recording().activations


def record_slowly(backbone: Backbone, jobs: list[Job]) -> dict[str, Tensor]:
    """Keep every whole output of every module and pool afterwards, one number at a time over tokens."""
    outputs: dict[str, list[Tensor]] = {site.layer: [] for site in backbone.sites}
    handles = [
        backbone.denoiser.get_submodule(layer).register_forward_hook(
            lambda module, args, output, layer=layer: outputs[layer].append(output.double().clone())
        )
        for layer in outputs
    ]
    try:
        denoise(backbone, jobs)
    finally:
        for handle in handles:
            handle.remove()
    pooled = {}
    for layer, by_step in outputs.items():
        rows = [[sum(output[len(jobs) + i]) / output.shape[1] for output in by_step] for i in range(len(jobs))]
        pooled[layer] = torch.stack([torch.stack(row) for row in rows])
    return pooled


def test_recording_equals_a_slow_reference(backbone: Backbone, jobs: list[Job]) -> None:
    fast, slow = record(backbone, jobs, list(range(NUM_STEPS))), record_slowly(backbone, jobs)
    assert fast.keys() == slow.keys()
    for layer, values in fast.items():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.double(), slow[layer], rtol=1e-5, atol=1e-6)


def calls(num_steps: int) -> Iterator[StepClock]:
    """Yield a clock in each call of a run of two images with guidance, one call a step."""
    clock = StepClock(2)
    clock.start([1 - step / (2 * num_steps) for step in range(num_steps)])
    for step in range(num_steps):
        clock.begin_call(Call(num_rows=4, num_images=2, index=0), slice(2, 4))
        yield clock
        clock.advance(step)


@pytest.mark.parametrize("steps", [[0, 1, 2, 3], [0, 3], [3, 1]])
def test_a_recording_by_all_rows_of_small_outputs_is_that_by_conditional_rows(
    backbone: Backbone, jobs: list[Job], steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooking, "SMALL_ON_CPU", 0)
    by_conditional = record(backbone, jobs, steps)
    shown = list[str]()

    def of_all_rows(self: Recorder, tokens: Tensor, site: Site, clock: StepClock) -> None:
        shown.append(site.layer)
        whole(self, tokens, site, clock)

    whole = Recorder.of_all_rows
    monkeypatch.setattr(Recorder, "of_all_rows", of_all_rows)
    monkeypatch.setattr(hooking, "SMALL_ON_CPU", 1 << 30)
    by_all = record(backbone, jobs, steps)
    assert set(shown) == set(backbone.layers)
    assert list(by_all) == list(by_conditional)
    for layer, means in by_all.items():
        torch.testing.assert_close(means, by_conditional[layer], rtol=1e-6, atol=1e-7)


def test_an_output_that_is_written_into_later_was_pooled_before() -> None:
    recorder, generator, expected = Recorder([0, 1, 2, 3]), torch.Generator().manual_seed(0), list[Tensor]()
    with torch.no_grad():
        for clock in calls(4):
            tokens = torch.randn(4, 5, 3, generator=generator)
            expected.append(tokens[2:].mean(1))
            recorder.of_all_rows(tokens, Site("a", "self_attention"), clock)
            tokens.mul_(0)
    torch.testing.assert_close(recorder.recording().activations["a"], torch.stack(expected, 1))


def test_pieces_of_small_outputs_count_as_one() -> None:
    recorder, generator, expected = Recorder([0, 1, 2]), torch.Generator().manual_seed(0), list[Tensor]()
    for clock in calls(3):
        whole = torch.randn(4, 6, 3, generator=generator)
        for piece in [whole] if clock.step == 0 else whole.split(3, dim=1):
            recorder.of_all_rows(piece, Site("a", "feed_forward"), clock)
        expected.append(whole[2:].mean(1))
    torch.testing.assert_close(recorder.recording().activations["a"], torch.stack(expected, 1))


def test_what_is_pooled_of_all_rows_needs_no_gradient() -> None:
    recorder, weights = Recorder([0, 1]), torch.ones(3, requires_grad=True)
    for clock in calls(2):
        recorder.of_all_rows(torch.ones(4, 5, 3) * weights, Site("a", "self_attention"), clock)
    means = recorder.recording().activations["a"]
    assert not means.requires_grad
    assert torch.equal(means, torch.ones(2, 2, 3))


def test_a_bottleneck_is_a_site_only_if_asked_for_and_its_whole_map_is_what_the_block_gave(
    backbone: Backbone, jobs: list[Job]
) -> None:
    assert "bottleneck" not in {site.kind for site in backbone.sites}
    more, maps = backbone.with_bottleneck(), list[Tensor]()
    assert more.site("mid_block").kind == "bottleneck"
    recorder, pooled = Recorder([0, 2], whole=True), Recorder([0, 2])
    handle = more.denoiser.mid_block.register_forward_hook(
        lambda module, args, output: maps.append(output[len(jobs) :].flatten(2).mT.flatten(1).clone())
    )
    try:
        with hooked(more, ["mid_block"], recorder, len(jobs)):
            denoise(more, jobs)
    finally:
        handle.remove()
    whole = recorder.recording().activations["mid_block"]
    assert torch.equal(whole, torch.stack([maps[0], maps[2]], dim=1))
    with hooked(more, ["mid_block"], pooled, len(jobs)):
        denoise(more, jobs)
    width = pooled.recording().activations["mid_block"].shape[-1]
    torch.testing.assert_close(whole.unflatten(2, (-1, width)).mean(2), pooled.recording().activations["mid_block"])


def test_a_bottleneck_can_be_changed_and_a_model_without_one_says_so(backbone: Backbone, jobs: list[Job]) -> None:
    more = backbone.with_bottleneck()
    plain = denoise(more, jobs)
    with hooked(more, ["mid_block"], lambda tokens, site, clock: tokens.clone(), len(jobs)):
        assert torch.equal(denoise(more, jobs), plain)
    with hooked(more, ["mid_block"], lambda tokens, site, clock: 2 * tokens, len(jobs)):
        assert not torch.allclose(denoise(more, jobs), plain)
    without = replace(backbone, family=replace(backbone.family, bottleneck=""))
    with pytest.raises(BackboneError, match="random has no bottleneck"):
        without.with_bottleneck()


def test_recording_changes_nothing_bitwise(backbone: Backbone, jobs: list[Job]) -> None:
    plain = denoise(backbone, jobs)
    with hooked(backbone, backbone.layers, Recorder([0, 2]), len(jobs)):
        assert torch.equal(denoise(backbone, jobs), plain)


def test_a_subset_of_steps_is_that_subset_of_the_whole(backbone: Backbone, jobs: list[Job]) -> None:
    whole, some = record(backbone, jobs, [0, 1, 2, 3]), record(backbone, jobs, [1, 3])
    for layer, values in some.items():
        assert torch.equal(values, whole[layer][:, [1, 3]])


def test_steps_differ_from_one_another(backbone: Backbone, jobs: list[Job]) -> None:
    for values in record(backbone, jobs, [0, 3]).values():
        assert not torch.allclose(values[:, 0], values[:, 1])


def test_activations_do_not_depend_on_what_shares_the_batch(backbone: Backbone, jobs: list[Job]) -> None:
    together = record(backbone, jobs, [0, 1, 2, 3])
    alone = [record(backbone, [job], [0, 1, 2, 3]) for job in jobs]
    for layer, values in together.items():
        torch.testing.assert_close(values, torch.cat([one[layer] for one in alone]), rtol=0, atol=1e-5)


def test_a_step_that_was_never_reached_is_an_error(backbone: Backbone, jobs: list[Job]) -> None:
    with pytest.raises(ValueError, match=r"never reached \[4\]"):
        record(backbone, jobs[:1], [0, NUM_STEPS])


def test_reaching_none_of_the_steps_is_an_error_too(backbone: Backbone, jobs: list[Job]) -> None:
    with pytest.raises(ValueError, match=r"never reached \[4\]"):
        record(backbone, jobs[:1], [NUM_STEPS])


def test_activations_that_are_not_finite_are_an_error_that_names_the_layer() -> None:
    recorder = Recorder([0])
    recorder(torch.full((1, 2, 3), float("inf")), Site("mid.attn1", "self_attention"), StepClock(1))
    with pytest.raises(FloatingPointError, match=r"mid\.attn1"):
        recorder.recording()


def test_half_precision_tokens_are_pooled_in_float32() -> None:
    recorder = Recorder([0])
    tokens = torch.full((1, 4096, 1), 30.0, dtype=torch.float16)  # its sum is beyond float16
    recorder(tokens, Site("mid.attn1", "self_attention"), StepClock(1))
    assert recorder.recording().activations["mid.attn1"].item() == 30.0


def test_a_step_with_more_than_one_call_keeps_the_last() -> None:
    recorder, site, clock = Recorder([0]), Site("mid.attn1", "self_attention"), StepClock(1)
    recorder(torch.ones(1, 2, 3), site, clock)
    clock.begin_call(Call(1, 1, 1), slice(0, None))
    recorder(2 * torch.ones(1, 2, 3), site, clock)
    assert torch.equal(recorder.recording().activations["mid.attn1"], torch.full((1, 1, 3), 2.0))


def test_each_call_is_divided_by_its_own_number_of_tokens() -> None:
    """Some pipelines shrink the feature maps of their early steps."""
    recorder, site, clock = Recorder([0, 1]), Site("mid.attn1", "self_attention"), StepClock(1)
    clock.start([1.0, 0.5])
    for step, num_tokens in enumerate((16, 64)):
        clock.stand_at(step)
        clock.begin_call(Call(1, 1, 0), slice(0, None))
        recorder(torch.ones(1, num_tokens, 3), site, clock)
    assert torch.equal(recorder.recording().activations["mid.attn1"], torch.ones(1, 2, 3))


def test_a_layer_that_runs_piece_by_piece_is_recorded_whole(backbone: Backbone, jobs: list[Job]) -> None:
    whole = record(backbone, jobs, [0, 3])
    blocks = [module for module in backbone.denoiser.modules() if hasattr(module, "set_chunk_feed_forward")]
    for block in blocks:
        block.set_chunk_feed_forward(4, 1)
    try:
        pieces = record(backbone, jobs, [0, 3])
    finally:
        for block in blocks:
            block.set_chunk_feed_forward(None)
    for layer, values in whole.items():
        torch.testing.assert_close(pieces[layer], values, rtol=1e-4, atol=1e-4)


def test_a_recording_says_its_steps_their_noise_levels_and_the_kinds(backbone: Backbone, jobs: list[Job]) -> None:
    recorder = Recorder([1, 3])
    with hooked(backbone, backbone.layers, recorder, 1):
        denoise(backbone, jobs[:1])
    recording, scheduler = recorder.recording(), backbone.pipe.scheduler
    expected = [float((1 - scheduler.alphas_cumprod[int(scheduler.timesteps[step])]) ** 0.5) for step in (1, 3)]
    assert recording.steps == [1, 3]
    assert recording.noise_levels == pytest.approx(expected)
    assert recording.kinds == {site.layer: site.kind for site in backbone.sites}
