"""The step clock and noise levels under every scheduler, and vectors of one schedule in another."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError, Site
from icm_pipeline.backbones.schedulers import SCHEDULERS, use_scheduler
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.clock import StepClock, drive, noise_levels, step_numbers
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.methods.vectors import SteeringVectors

SELF = "mid_block.attentions.0.transformer_blocks.0.attn1"
# Passes of the pipeline's loop for N steps, where it is not N.
PASSES = {"pndm": lambda n: n + 1, "heun": lambda n: 2 * n - 1}


@pytest.fixture
def stable_diffusion(backbone: Backbone) -> Iterator[Backbone]:
    """Give the random Stable Diffusion, and its scheduler back afterwards."""
    own = backbone.pipe.scheduler
    yield backbone
    backbone.pipe.scheduler = own


def with_scheduler(backbone: Backbone, name: str, num_steps: int) -> Backbone:
    use_scheduler(backbone.pipe, name)
    assert backbone.sampling is not None
    return replace(backbone, sampling=replace(backbone.sampling, num_steps=num_steps))


def steps_and_levels(backbone: Backbone, job: Job) -> list[tuple[int, float]]:
    seen: list[tuple[int, float]] = []

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        seen.append((clock.step, clock.noise_level))

    with hooked(backbone, [SELF], note, 1):
        denoise(backbone, [job])
    return seen


@pytest.mark.parametrize("num_steps", [2, 5, 20])
@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "flow_euler"])
def test_the_clock_counts_every_schedule(
    stable_diffusion: Backbone, jobs: list[Job], name: str, num_steps: int
) -> None:
    seen = steps_and_levels(with_scheduler(stable_diffusion, name, num_steps), jobs[0])
    steps, levels = zip(*seen, strict=True)
    assert len(seen) == PASSES.get(name, lambda n: n)(num_steps)
    assert sorted(set(steps)) == list(range(num_steps))
    assert list(steps) == sorted(steps)
    for (step, level), (later_step, later_level) in itertools.pairwise(seen):
        assert (level > later_level) if step != later_step else (level == later_level)
    assert 0 <= min(levels) <= max(levels) <= 1


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "unipc", "pndm", "lcm"])
def test_schedulers_of_one_model_agree_on_how_noisy_a_timestep_is(stable_diffusion: Backbone, name: str) -> None:
    alphas = stable_diffusion.pipe.scheduler.alphas_cumprod
    scheduler = with_scheduler(stable_diffusion, name, 10).pipe.scheduler
    scheduler.set_timesteps(10)
    expected = [float(np.interp(float(t), np.arange(len(alphas)), (1 - alphas).sqrt())) for t in scheduler.timesteps]
    assert noise_levels(scheduler) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("name", ["KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "HeunDiscreteScheduler"])
@pytest.mark.parametrize("use_karras_sigmas", [False, True])
def test_every_pass_of_a_second_order_schedule_has_the_noise_that_its_input_is_scaled_by(
    name: str, use_karras_sigmas: bool
) -> None:
    scheduler: Any = getattr(diffusers, name)(use_karras_sigmas=use_karras_sigmas)
    clock, one, steps = StepClock(), torch.ones(1), list[int]()
    pipe = SimpleNamespace(scheduler=scheduler, prepare_latents=None, maybe_free_model_hooks=None)
    with ExitStack() as stack:
        drive(pipe, clock, 1, lambda *seen: None, stack)
        scheduler.set_timesteps(10)
        for timestep in scheduler.timesteps:
            scale = float(scheduler.scale_model_input(one, timestep))  # 1 / sqrt(sigma^2 + 1)
            assert clock.noise_level == pytest.approx((1 - scale**2) ** 0.5, abs=1e-4)
            steps.append(clock.step)
            scheduler.step(one, timestep, one)
    assert steps == [(i + 1) // 2 for i in range(19)]


def test_flow_matching_levels_compare_by_signal_to_noise() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1.0, 0.5, 0.25])
    assert noise_levels(scheduler) == pytest.approx([1.0, 0.5**0.5, 0.25 / (0.25**2 + 0.75**2) ** 0.5])


def test_a_flow_scheduler_with_the_noise_of_another_kind_is_known_by_it() -> None:
    """Cosmos gives it sigmas from 80 down, which are added to the picture."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    scheduler.register_to_config(sigma_max=80.0, sigma_min=0.5)
    scheduler.set_timesteps(sigmas=[0.0, 0.5, 1.0])
    sigmas = scheduler.sigmas[:-1]
    assert sigmas[0] == 80
    assert noise_levels(scheduler) == pytest.approx((sigmas / (1 + sigmas**2).sqrt()).tolist())


def test_a_second_order_flow_schedule_is_counted_by_its_levels() -> None:
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(4)
    assert step_numbers(noise_levels(scheduler)) == [0, 1, 1, 2, 2, 3, 3]


def test_a_flow_solver_with_an_older_name_is_known_by_its_configuration() -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(5)
    sigmas = [float(sigma) for sigma in scheduler.sigmas[:5]]
    assert noise_levels(scheduler) == pytest.approx([s / (s**2 + (1 - s) ** 2) ** 0.5 for s in sigmas])


def test_pure_noise_has_level_one() -> None:
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    scheduler.set_timesteps(4)
    levels = noise_levels(scheduler)
    assert levels[0] == pytest.approx(1.0)
    assert levels == sorted(levels, reverse=True)


def test_a_scheduler_that_does_not_say_its_noise_is_refused() -> None:
    class Silent:
        timesteps = torch.tensor([1, 0])

    with pytest.raises(BackboneError, match="Silent does not say"):
        noise_levels(Silent())


def test_an_unknown_scheduler_is_refused_with_the_names(backbone: Backbone) -> None:
    with pytest.raises(BackboneError, match="ddim, pndm, euler"):
        use_scheduler(backbone.pipe, "dpm")


def test_vectors_of_fifty_ddim_steps_find_their_place_in_twenty_five_euler_steps(
    stable_diffusion: Backbone, jobs: list[Job]
) -> None:
    levels = [level for _, level in steps_and_levels(with_scheduler(stable_diffusion, "ddim", 50), jobs[0])]
    one = torch.ones(50, 1, 1)
    vectors = SteeringVectors({SELF: one}, {SELF: one[:, 0, 0]}, tuple(range(50)), tuple(levels), ("a",), "m", "a")
    assert [vectors.slot(level) for level in levels] == list(range(50))
    euler: Any = [level for _, level in steps_and_levels(with_scheduler(stable_diffusion, "euler", 25), jobs[0])]
    slots = [vectors.slot(level) for level in euler]
    assert slots == sorted(slots)
    for slot, level in zip(slots, euler, strict=True):
        assert abs(levels[slot] - level) == pytest.approx(min(abs(np.array(levels) - level)), abs=5e-3)
    assert slots[12] == pytest.approx(25, abs=2)  # half-way is half-way
