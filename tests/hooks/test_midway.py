"""Runs that begin or end midway, and loops of one's own: every step is told as it is, or refused."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import icm_pipeline
from icm_pipeline.backbones.base import BackboneError, Site
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.pipelines import built
from tests.helpers.with_picture import make, of_class

SELF = "mid_block.attentions.0.transformer_blocks.0.attn1"


@pytest.fixture(scope="module")
def xl() -> Any:
    return built("sdxl")


def told(pipe: Any, run: Any, num_images: int | None = None) -> list[tuple[int, float]]:
    """Return the step and the noise level at which a run showed each call of the first layer."""
    seen: list[tuple[int, float]] = []

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        seen.append((clock.step, round(clock.noise_level, 3)))

    backbone = icm_pipeline.attach(pipe)
    with torch.no_grad(), icm_pipeline.hooked(backbone, backbone.layers[:1], note, num_images):
        run()
    return seen


def vectors_of(width: int, levels: Sequence[float], window: tuple[int, int | None]) -> SteeringVectors:
    drawn = torch.randn(len(levels), 1, width, generator=torch.Generator().manual_seed(0))
    return SteeringVectors(
        directions={SELF: torch.nn.functional.normalize(drawn, dim=-1)}, mean_norms={SELF: torch.ones(len(levels))},
        steps=tuple(range(len(levels))), noise_levels=tuple(levels), options=("a",), model="m", attribute="a",
        strength=Strength(3.0, "activation", *window),
    )  # fmt: skip


def loop(
    pipe: Any,
    places: slice = slice(None),
    num_steps: int = 8,
    guided: bool = True,
    begin: bool = True,
    stop: int | None = None,
) -> None:
    """Denoise one image in a loop of one's own."""
    text, latents = torch.zeros(1 + guided, 4, pipe.unet.config.cross_attention_dim), torch.zeros(1, 4, 8, 8)
    if begin:
        pipe.scheduler.set_timesteps(num_steps)
    for timestep in pipe.scheduler.timesteps[places]:
        noise = pipe.unet(torch.cat([latents] * (1 + guided)), timestep, encoder_hidden_states=text).sample
        latents = pipe.scheduler.step(noise[:1], timestep, latents).prev_sample


def test_a_picture_to_picture_run_is_told_its_place_in_the_whole_schedule(pipe: Any) -> None:
    """DDIM has no begin_index; the levels are those of Stable Diffusion's timesteps 376, 251, 126 and 1."""
    whole, other = of_class(pipe, "StableDiffusionPipeline"), of_class(pipe, "StableDiffusionImg2ImgPipeline")
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    whole.scheduler = other.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **betas)
    seen = told(other, lambda: make(other, 8))
    assert seen == [(4, 0.733), (5, 0.573), (6, 0.373), (7, 0.041)]
    assert told(whole, lambda: make(other, 8), num_images=1) == seen  # the given pipeline's parts in another one


@pytest.mark.parametrize(
    "scheduler", ["PNDM", "EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep", "DDPM", "UniPCMultistep"]
)
def test_every_scheduler_tells_where_a_run_begins(pipe: Any, scheduler: str) -> None:
    import diffusers

    own, other = pipe.scheduler, of_class(pipe, "StableDiffusionImg2ImgPipeline")
    more = {"skip_prk_steps": True} if scheduler == "PNDM" else {}
    other.scheduler = getattr(diffusers, f"{scheduler}Scheduler").from_config(own.config, **more)
    whole = of_class(pipe, "StableDiffusionPipeline")
    whole.scheduler = other.scheduler
    every = told(whole, lambda: make(whole, 8))
    half = told(other, lambda: make(other, 8))
    assert half == every[-len(half) :]
    assert half[0][0] == (3 if scheduler == "PNDM" else 4)  # which repeats a timestep before


def test_what_is_recorded_midway_says_the_steps_that_ran(pipe: Any) -> None:
    other, whole = of_class(pipe, "StableDiffusionImg2ImgPipeline"), list[Tensor]()
    with icm_pipeline.record(other, layers=[SELF]) as seen:
        handle = pipe.unet.get_submodule(SELF).register_forward_hook(lambda m, a, output: whole.append(output))
        make(other, 8)
        handle.remove()
    (recording,) = seen.recordings
    assert recording.steps == [4, 5, 6, 7]
    assert recording.noise_levels == pytest.approx([0.875, 0.694, 0.398, 0.015], abs=1e-3)
    torch.testing.assert_close(recording.activations[SELF][0], torch.stack([output[1].mean(0) for output in whole]))


def test_vectors_and_windows_of_the_whole_schedule_meet_a_run_midway(pipe: Any) -> None:
    other, shifts = of_class(pipe, "StableDiffusionImg2ImgPipeline"), list[Tensor]()
    levels = [level for _, level in told(pipe, lambda: make(pipe, 8))]
    vectors = vectors_of(64, levels, (5, 6))
    module, outputs = pipe.unet.get_submodule(SELF), list[Tensor]()
    first = module.register_forward_hook(lambda m, a, output: outputs.append(output))
    with icm_pipeline.steer(other, vectors, "a"):
        last = module.register_forward_hook(lambda m, a, output: shifts.append(output[1] - outputs[-1][1]))
        make(other, 8)
    first.remove()
    last.remove()
    for step, shift in zip(range(4, 8), shifts, strict=True):
        expected = 3 * vectors.directions[SELF][step, 0] if step in (5, 6) else torch.zeros(64)
        torch.testing.assert_close(shift, expected.expand_as(shift), rtol=0, atol=1e-5)


def test_a_window_that_no_step_of_the_run_falls_in_is_refused_when_the_run_ends(pipe: Any, xl: Any) -> None:
    other, levels = of_class(pipe, "StableDiffusionImg2ImgPipeline"), [0.9] * 8
    early, late = vectors_of(64, levels, (0, 3)), vectors_of(64, levels, (6, None))
    for run in (lambda: make(other, 8), lambda: make(other, 8, strength=0.0)):
        steered = icm_pipeline.steer(other, early, "a")
        with pytest.raises(ValueError, match=r"Of 8 steps this run took .*, and none of 0 to 3"), steered:
            run()
            pytest.fail("the call must not return its image")
    with pytest.raises(ValueError, match="took steps 0 to 3, and none of 6 to 7"), icm_pipeline.steer(xl, late, "a"):
        make(xl, 8, denoising_end=0.5)
    with icm_pipeline.steer(xl, late, "a"):
        make(xl, 8)
    steered = icm_pipeline.steer(pipe, late, "a", num_images=1)
    with pytest.raises(ValueError, match="took steps 0 to 3, and none of 6 to 7"), torch.no_grad(), steered:
        loop(pipe, slice(4))
        loop(pipe)


def test_a_run_that_was_interrupted_is_not_judged_by_its_window(pipe: Any) -> None:
    late = vectors_of(64, [0.9] * 4, (3, None))

    def fail(pipe: Any, step: int, timestep: Any, inputs: Any) -> Any:
        raise KeyboardInterrupt

    def interrupt(pipe: Any, step: int, timestep: Any, inputs: Any) -> Any:
        pipe._interrupt = True
        return inputs

    plain = make(pipe, 4)
    with icm_pipeline.steer(pipe, late, "a"):
        with pytest.raises(KeyboardInterrupt):
            make(pipe, 4, callback_on_step_end=fail)
        make(pipe, 4, callback_on_step_end=interrupt)
        assert not torch.equal(make(pipe, 4), plain)


def test_an_ensemble_in_one_context_is_counted_through(xl: Any) -> None:
    refiner = of_class(xl, "StableDiffusionXLImg2ImgPipeline")

    def both() -> None:
        latents = make(xl, 8, denoising_end=0.5)
        make(refiner, 8, image=latents, denoising_start=0.5)

    assert [step for step, _ in told(xl, both, num_images=1)] == list(range(8))
    with icm_pipeline.record(xl, layers=[SELF], num_images=1) as seen:
        both()
    assert [recording.steps for recording in seen.recordings] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(BackboneError, match="give num_images"):  # what was told of the cut run holds for it alone
        told(xl, both)


def test_recording_steps_that_a_cut_run_never_took_says_so(xl: Any) -> None:
    with icm_pipeline.record(xl, layers=[SELF], steps=[1, 6]) as seen:
        make(xl, 8, denoising_end=0.5)
    assert seen.cut_short == 1
    with pytest.raises(ValueError, match=r"Of the recorded steps \[1, 6\] the run never reached \[6\]"):
        _ = seen.recordings


def test_a_loop_of_ones_own_may_begin_midway(pipe: Any) -> None:
    every = told(pipe, lambda: loop(pipe), num_images=1)
    assert told(pipe, lambda: loop(pipe, slice(6, None)), num_images=1) == every[6:]
    assert told(pipe, lambda: loop(pipe, slice(6, None), guided=False), num_images=1) == every[6:]
    with torch.no_grad(), icm_pipeline.record(pipe, layers=[SELF], num_images=1) as seen:
        loop(pipe, slice(6, None))
    assert seen.recordings[0].steps == [6, 7]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loop_around_flux_is_placed_by_its_scaled_timestep(dtype: torch.dtype) -> None:
    flux = built("flux").to(dtype)
    scheduler, transformer = flux.scheduler, flux.transformer

    def run(begin: int) -> None:
        scheduler.set_timesteps(sigmas=[1.0, 0.9, 0.7, 0.4], mu=0.5)
        latents = torch.zeros(1, 16, 16, dtype=dtype)
        ids = flux._prepare_latent_image_ids(1, 4, 4, "cpu", dtype)
        for timestep in scheduler.timesteps[begin:]:
            noise = transformer(
                hidden_states=latents, timestep=timestep.expand(1).to(dtype) / 1000, txt_ids=torch.zeros(4, 3),
                pooled_projections=torch.zeros(1, 32, dtype=dtype), guidance=torch.ones(1, dtype=dtype),
                encoder_hidden_states=torch.zeros(1, 4, 32, dtype=dtype), img_ids=ids,
            ).sample  # fmt: skip
            latents = scheduler.step(noise, timestep, latents).prev_sample

    every = told(flux, lambda: run(0), num_images=1)
    assert [step for step, _ in every] == [0, 1, 2, 3]
    assert told(flux, lambda: run(2), num_images=1) == every[2:]


def test_more_passes_than_timesteps_are_refused(pipe: Any) -> None:
    def twice() -> None:
        loop(pipe)
        loop(pipe, begin=False)

    with pytest.raises(BackboneError, match="ran again after the last of 8 timesteps"):
        told(pipe, twice, num_images=1)


def test_a_timestep_of_another_schedule_is_refused(pipe: Any) -> None:
    def run() -> None:
        pipe.scheduler.set_timesteps(8)
        pipe.unet(torch.zeros(2, 4, 8, 8), 77, encoder_hidden_states=torch.zeros(2, 4, 32))

    with pytest.raises(BackboneError, match="Timestep 77 is none of the 8"):
        told(pipe, run, num_images=1)


def test_images_that_are_stepped_one_after_the_other_are_refused(pipe: Any) -> None:
    def run() -> None:
        text, images = torch.zeros(2, 4, 32), [torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)]
        pipe.scheduler.set_timesteps(4)
        for timestep in pipe.scheduler.timesteps:
            for i, latents in enumerate(images):
                noise = pipe.unet(torch.cat([latents] * 2), timestep, encoder_hidden_states=text).sample
                images[i] = pipe.scheduler.step(noise[:1], timestep, latents).prev_sample

    with pytest.raises(BackboneError, match=r"steps at pass 0 of 4, and the denoiser ran for pass 1\. .* one batch"):
        told(pipe, run, num_images=1)


def test_a_batch_may_be_stepped_image_by_image(pipe: Any) -> None:
    def run() -> None:
        latents, text = torch.zeros(2, 4, 8, 8), torch.zeros(4, 4, 32)
        pipe.scheduler.set_timesteps(4)
        for timestep in pipe.scheduler.timesteps:
            noise = pipe.unet(torch.cat([latents] * 2), timestep, encoder_hidden_states=text).sample[:2].split(1)
            steps = [pipe.scheduler.step(each, timestep, latents[i : i + 1]) for i, each in enumerate(noise)]
            latents = torch.cat([step.prev_sample for step in steps])

    assert [step for step, _ in told(pipe, run, num_images=2)] == [0, 1, 2, 3]
