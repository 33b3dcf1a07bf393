"""Hooks: looking changes nothing, changes reach the conditional half only, and nothing stays behind."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError, Call, Site
from icm_pipeline.backbones.formats import read_tokens
from icm_pipeline.backbones.sites import find_sites
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from tests.helpers.hooks import add_one, look, num_hooks
from tests.helpers.models import NUM_STEPS

SELF = "mid_block.attentions.0.transformer_blocks.0.attn1"


def at_guidance(backbone: Backbone, scale: float) -> Backbone:
    assert backbone.sampling is not None
    return replace(backbone, sampling=replace(backbone.sampling, guidance_scale=scale))


def test_looking_changes_nothing_bitwise(backbone: Backbone, jobs: list[Job]) -> None:
    plain = denoise(backbone, jobs)
    with hooked(backbone, backbone.layers, look, len(jobs)):
        assert torch.equal(denoise(backbone, jobs), plain)


def test_a_hook_that_returns_tokens_changes_the_latents(backbone: Backbone, jobs: list[Job]) -> None:
    plain = denoise(backbone, jobs)
    with hooked(backbone, [SELF], add_one, len(jobs)):
        assert not torch.equal(denoise(backbone, jobs), plain)


def test_the_plain_result_is_back_after_the_context(backbone: Backbone, jobs: list[Job]) -> None:
    plain, before = denoise(backbone, jobs), dict(vars(backbone.pipe.scheduler))
    with hooked(backbone, [SELF], add_one, len(jobs)):
        assert num_hooks(backbone) == 2
    assert num_hooks(backbone) == 0
    assert vars(backbone.pipe.scheduler).keys() == before.keys()
    assert torch.equal(denoise(backbone, jobs), plain)


def test_nothing_stays_behind_after_an_exception_in_the_pipeline(backbone: Backbone, jobs: list[Job]) -> None:
    plain = denoise(backbone, jobs)

    def failing(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        if clock.step == 2:
            raise RuntimeError("in the middle")
        return tokens + 1

    with pytest.raises(RuntimeError, match="in the middle"), hooked(backbone, [SELF], failing, len(jobs)):
        denoise(backbone, jobs)
    assert num_hooks(backbone) == 0
    assert not {"step", "set_timesteps"} & vars(backbone.pipe.scheduler).keys()
    assert torch.equal(denoise(backbone, jobs), plain)


def test_an_unknown_layer_is_refused_with_the_list_and_leaves_nothing(backbone: Backbone) -> None:
    with (
        pytest.raises(BackboneError, match="nowhere") as caught,
        hooked(backbone, [SELF, "nowhere"], look, 1),
    ):
        pytest.fail("the context must not be entered")
    assert all(site.layer in str(caught.value) for site in backbone.sites)
    assert num_hooks(backbone) == 0
    assert not {"step", "set_timesteps"} & vars(backbone.pipe.scheduler).keys()


def test_contexts_can_be_nested(backbone: Backbone, jobs: list[Job]) -> None:
    plain, seen = denoise(backbone, jobs), []

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        seen.append(clock.step)

    with hooked(backbone, [SELF], note, len(jobs)):
        with hooked(backbone, [SELF], look, len(jobs)):
            denoise(backbone, jobs)
        denoise(backbone, jobs)
    assert seen == 2 * list(range(NUM_STEPS))
    assert not {"step", "set_timesteps"} & vars(backbone.pipe.scheduler).keys()
    assert torch.equal(denoise(backbone, jobs), plain)


def test_a_scheduler_someone_else_wrapped_is_given_back_wrapped(backbone: Backbone, jobs: list[Job]) -> None:
    scheduler, calls = backbone.pipe.scheduler, []
    original = scheduler.step

    def counting(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return original(*args, **kwargs)

    scheduler.step = counting
    try:
        with hooked(backbone, [SELF], look, 1):
            pass
        assert scheduler.step is counting
    finally:
        vars(scheduler).pop("step", None)


def test_the_clock_counts_steps_and_starts_again_with_every_run(backbone: Backbone, jobs: list[Job]) -> None:
    steps: list[int] = []

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        steps.append(clock.step)

    with hooked(backbone, [SELF], note, 1) as clock:
        denoise(backbone, jobs[:1])
        assert clock.num_calls == clock.num_steps == NUM_STEPS
        assert clock.step == NUM_STEPS - 1
        denoise(backbone, jobs[:1])
    assert steps == 2 * list(range(NUM_STEPS))


def test_the_clock_counts_a_scheduler_that_calls_more_often_than_it_has_steps(
    backbone: Backbone, jobs: list[Job]
) -> None:
    from diffusers import PNDMScheduler

    ddim, steps = backbone.pipe.scheduler, []
    backbone.pipe.scheduler = PNDMScheduler(skip_prk_steps=True)

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        steps.append(clock.step)

    try:
        with hooked(backbone, [SELF], note, 1):
            denoise(backbone, jobs[:1])
    finally:
        backbone.pipe.scheduler = ddim
    assert steps == [0, 1, 1, 2, 3]


def test_a_hook_sees_exactly_the_conditional_rows(backbone: Backbone, jobs: list[Job]) -> None:
    whole, shown = [], []
    module = backbone.denoiser.get_submodule(SELF)
    handle = module.register_forward_hook(lambda module, args, output: whole.append(output.clone()))

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        shown.append(tokens.clone())

    try:
        with hooked(backbone, [SELF], note, len(jobs)):
            denoise(backbone, jobs)
    finally:
        handle.remove()
    assert all(len(output) == 2 * len(jobs) for output in whole)
    assert all(torch.equal(tokens, output[len(jobs) :]) for tokens, output in zip(shown, whole, strict=True))
    assert not torch.equal(whole[-1][len(jobs) :], whole[-1][: len(jobs)])


def test_without_guidance_every_row_is_conditional(backbone: Backbone, jobs: list[Job]) -> None:
    unguided, shapes = at_guidance(backbone, 1.0), []

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        shapes.append(len(tokens))

    with hooked(unguided, [SELF], note, len(jobs)):
        denoise(unguided, jobs)
    assert shapes == [len(jobs)] * NUM_STEPS


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_a_change_leaves_the_unconditional_rows_alone(
    backbone: Backbone, jobs: list[Job], guidance_scale: float
) -> None:
    chosen = at_guidance(backbone, guidance_scale)
    before: list[Tensor] = []
    after: list[Tensor] = []
    module = backbone.denoiser.get_submodule(SELF)
    first = module.register_forward_hook(lambda module, args, output: before.append(output.clone()))
    try:
        with hooked(chosen, [SELF], add_one, len(jobs)):
            last = module.register_forward_hook(lambda module, args, output: after.append(output.clone()))
            denoise(chosen, jobs)
            last.remove()
    finally:
        first.remove()
    half = len(jobs) if guidance_scale > 1 else 0
    for old, new in zip(before, after, strict=True):
        assert torch.equal(new[:half], old[:half])
        assert torch.equal(new[half:], old[half:] + 1)


def test_another_number_of_images_than_expected_is_refused(backbone: Backbone, jobs: list[Job]) -> None:
    with (
        pytest.raises(BackboneError, match=r"3 image\(s\) were expected and the pipeline makes 4"),
        hooked(backbone, [SELF], look, 3),
    ):
        denoise(backbone, jobs)


@pytest.mark.parametrize("output", [(torch.zeros(2, 3, 4),), torch.zeros(2, 3, 4, 4), None])
def test_an_output_that_is_no_token_tensor_is_refused_by_layer(output: object) -> None:
    with pytest.raises(BackboneError, match="attn1"):
        read_tokens(output, Site("attn1", "self_attention"), Call(2, 2, 0))


def test_a_batch_of_four_equals_four_batches_of_one(backbone: Backbone, jobs: list[Job]) -> None:
    together = denoise(backbone, jobs)
    alone = torch.cat([denoise(backbone, [job]) for job in jobs])
    scale = float(together.abs().max())  # random weights give latents of about 60
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * scale)


def test_another_seed_or_prompt_is_another_picture(backbone: Backbone, jobs: list[Job]) -> None:
    job = jobs[0]
    variants = [job, replace(job, seed=job.seed + 1), replace(job, prompt="dog")]
    first, *others = denoise(backbone, variants)
    assert all((first - other).abs().max() > 1e-3 for other in others)


def test_decoding_pairs_pictures_with_their_jobs(backbone: Backbone, jobs: list[Job]) -> None:
    latents = denoise(backbone, jobs)
    samples = decode(backbone, jobs, latents)
    assert [sample.job for sample in samples] == jobs
    assert all(sample.image.size == (16, 16) for sample in samples)
    alone = decode(backbone, jobs[2:3], latents[2:3])[0].image
    assert max(abs(a - b) for a, b in zip(samples[2].image.tobytes(), alone.tobytes(), strict=True)) <= 1


def test_sites_are_found_by_kind_in_the_networks_order(backbone: Backbone) -> None:
    layers = [site.layer for site in backbone.sites if site.kind == "self_attention"]
    stages = [layer.split(".")[0] for layer in layers]
    assert stages == sorted(stages, key=["down_blocks", "mid_block", "up_blocks"].index)
    assert all(layer.endswith("attn1") for layer in layers)
    assert len(backbone.sites) == 3 * len(layers) == 3 * 7


def test_a_pattern_must_match_a_whole_name(backbone: Backbone) -> None:
    with pytest.raises(BackboneError, match="matches no module"):
        find_sites(backbone.denoiser, {"self_attention": "attn1"})


def test_an_unknown_kind_of_site_is_refused(backbone: Backbone) -> None:
    with pytest.raises(BackboneError, match="choose from self_attention"):
        find_sites(backbone.denoiser, {"selfattention": r".*attn1"})


def test_a_call_outside_of_the_pipeline_is_refused_unless_the_images_are_told(
    backbone: Backbone, jobs: list[Job]
) -> None:
    own = at_guidance(backbone, 3.0)
    other = type(own.pipe)(**own.pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    shapes: list[int] = []

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        shapes.append(len(tokens))

    with pytest.raises(BackboneError, match="give num_images"), hooked(own, [SELF], note):
        denoise(replace(own, pipe=other), jobs)
    with pytest.raises(BackboneError, match="give num_images"), hooked(own, [SELF], note):
        denoise(own, jobs)
        shapes.clear()
        denoise(replace(own, pipe=other), jobs[:1])  # of the run before nothing is left
    assert not shapes
    with hooked(own, [SELF], note, len(jobs)):
        denoise(replace(own, pipe=other), jobs)
    assert shapes == [len(jobs)] * NUM_STEPS


def test_a_loop_of_ones_own_is_shown_the_conditional_half(backbone: Backbone) -> None:
    pipe, shapes = backbone.pipe, list[int]()
    text = torch.zeros(2, 4, pipe.unet.config.cross_attention_dim)

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        shapes.append(len(tokens))

    def loop(begin: bool = True) -> None:
        latents = torch.zeros(1, 4, 8, 8)
        if begin:
            pipe.scheduler.set_timesteps(3)
        for timestep in pipe.scheduler.timesteps:
            noise = pipe.unet(torch.cat([latents, latents]), timestep, encoder_hidden_states=text).sample
            latents = pipe.scheduler.step(noise[:1], timestep, latents).prev_sample

    with torch.inference_mode():
        with hooked(backbone, [SELF], note, 1) as clock:
            loop()
        assert (shapes, clock.num_steps, clock.step) == ([1, 1, 1], 3, 2)
        with pytest.raises(BackboneError, match="begin the run"), hooked(backbone, [SELF], note, 1):
            loop(begin=False)


def test_a_scheduler_that_is_replaced_inside_the_context_is_named_as_the_cause(
    backbone: Backbone, jobs: list[Job]
) -> None:
    pipe, scheduler = backbone.pipe, backbone.pipe.scheduler
    try:
        with (
            pytest.raises(BackboneError, match=r"scheduler .* was replaced"),
            hooked(backbone, [SELF], look, len(jobs)),
        ):
            pipe.scheduler = type(scheduler).from_config(scheduler.config)
            denoise(backbone, jobs)
    finally:
        pipe.scheduler = scheduler


@pytest.mark.parametrize("change", [lambda tokens: tokens[:1], lambda tokens: tokens.double()])
def test_a_hook_that_returns_another_shape_or_dtype_is_refused(
    backbone: Backbone, jobs: list[Job], change: Callable[[Tensor], Tensor]
) -> None:
    def wrong(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        return change(tokens)

    unguided = at_guidance(backbone, 1.0)
    with pytest.raises(BackboneError, match=rf"{SELF} was given \(4, "), hooked(unguided, [SELF], wrong, len(jobs)):
        denoise(unguided, jobs)


def test_any_module_that_gives_tokens_can_be_a_layer(backbone: Backbone, jobs: list[Job]) -> None:
    block = SELF.removesuffix(".attn1")
    more = backbone.with_layers([SELF, block])
    assert [site for site in more.sites if site not in backbone.sites] == [Site(block, "other")]
    plain = denoise(backbone, jobs)
    with hooked(more, [block], add_one, len(jobs)):
        assert not torch.equal(denoise(more, jobs), plain)
    with pytest.raises(BackboneError, match="nowhere"):
        backbone.with_layers(["nowhere"])


def test_a_hook_of_all_rows_that_gives_another_shape_is_refused(backbone: Backbone, jobs: list[Job]) -> None:
    class Shorter:
        def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
            raise AssertionError("small outputs are shown with all their rows")

        def of_all_rows(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
            return tokens[:, 1:]

    with (
        hooked(backbone, [SELF], Shorter(), len(jobs)),
        pytest.raises(BackboneError, match=r"was given \(8, \d+, 64\) in torch.float32 and returned .* the same shape"),
    ):
        denoise(backbone, jobs)
