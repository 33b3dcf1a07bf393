"""A run that is looked at and rewound: who is not changed is the plain picture, who is changed the steered one."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icm_pipeline import attach, record
from icm_pipeline.backbones.base import Backbone, BackboneError, Site
from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.families.z_image import Z_IMAGE
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.looking import looking
from icm_pipeline.hooks.rows import Rows
from icm_pipeline.hooks.snapshots import snapshot
from tests.helpers.hooks import num_hooks
from tests.helpers.looking import NUM_IMAGES, AddOne, Chosen, make
from tests.helpers.pipelines import BUILDERS, built
from tests.helpers.with_picture import make as make_with_picture
from tests.helpers.with_picture import of_class

SCHEDULERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ddim": ("DDIM", {}, {"eta": 0.7}),
    "pndm": ("PNDM", {"skip_prk_steps": True}, {}),
    "pndm with all passes": ("PNDM", {"skip_prk_steps": False}, {}),
    "euler": ("EulerDiscrete", {}, {}),
    "euler_a": ("EulerAncestralDiscrete", {}, {}),
    "heun": ("HeunDiscrete", {}, {}),
    "kdpm2": ("KDPM2Discrete", {}, {}),
    "kdpm2_a": ("KDPM2AncestralDiscrete", {}, {}),
    "dpmpp_2m": ("DPMSolverMultistep", {}, {}),
    "dpmpp_2m sde": ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}, {}),
    "dpmpp single step": ("DPMSolverSinglestep", {}, {}),
    "unipc": ("UniPCMultistep", {}, {}),
    "deis": ("DEISMultistep", {}, {}),
    "sa": ("SASolver", {}, {}),
    "lms": ("LMSDiscrete", {}, {}),
    "lcm": ("LCM", {}, {}),
    "tcd": ("TCD", {}, {}),
    "ddpm": ("DDPM", {}, {}),
}
# One for each way to remember what came before: nothing, noise, passes within a step, outputs, a level's derivative.
QUICK = ("ddim", "euler_a", "pndm with all passes", "heun", "dpmpp single step", "unipc", "lms")
GUIDANCE: dict[bool, dict[str, Any]] = {False: {"guidance_scale": 1.0}, True: {"guidance_scale": 4.0}}
GUIDANCE_OF_FLUX: dict[bool, dict[str, Any]] = {
    False: {}, True: {"true_cfg_scale": 2.0, "negative_prompt": ["bad", "bad"]}
}  # fmt: skip
SOME = [1, 3]


@pytest.fixture(scope="module")
def plain(pipe: Any) -> Tensor:
    """What the pipeline makes as it came."""
    return make(pipe)


@pytest.fixture
def own_scheduler(pipe: Any) -> Iterator[Any]:
    """Give the scheduler that the pipeline came with, and it back afterwards."""
    own = pipe.scheduler
    yield own
    pipe.scheduler = own


@pytest.fixture
def computed(pipe: Any) -> Iterator[list[int]]:
    """Give a list of the rows of every call that the denoiser really computes."""
    rows: list[int] = []
    handle = pipe.unet.conv_in.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    yield rows
    handle.remove()


def looked(pipe: Any, plan: Chosen, run: Callable[[], Tensor], num_images: int | None = None) -> Tensor:
    backbone = attach(pipe)
    with looking(backbone, backbone.layers[-2:], backbone.layers[:1], plan, num_images):
        return run()


def changed(pipe: Any, first: int, run: Callable[[], Tensor]) -> Tensor:
    """Return what a run makes that changes every image from a step on."""
    backbone = attach(pipe)
    with hooked(backbone, backbone.layers[:1], AddOne(first)):
        return run()


def check(pipe: Any, steps: range, run: Callable[[], Tensor], ways: Sequence[list[int]]) -> None:
    """Check that images that a plan names are changed as if all were, and the others not at all."""
    plain, every = run(), changed(pipe, steps.start, run)
    assert not torch.allclose(plain, every)
    for images in ways:
        plan, others = Chosen(steps, images), [i for i in range(len(plain)) if i not in images]
        made = looked(pipe, plan, run)
        assert torch.equal(made[others], plain[others])
        if others:
            torch.testing.assert_close(made[images], every[images], rtol=0, atol=1e-5 * float(every.abs().max()))
        else:
            assert torch.equal(made, every)
        assert plan.num_ended == len(plan.recordings) == 1
        assert plan.recordings[0].steps == [steps.stop - 1]
        assert {len(x) for x in plan.recordings[0].activations.values()} == {len(plain)}


@pytest.mark.parametrize("name", BUILDERS)
def test_of_every_family_who_is_left_is_plain_and_who_is_changed_is_steered(name: str) -> None:
    pipe = built(name)
    unguided, guided = (GUIDANCE_OF_FLUX if name == "flux" else GUIDANCE).values()
    check(pipe, range(1, 3), lambda: make(pipe, name, 4, **unguided), [SOME])
    check(pipe, range(1, 3), lambda: make(pipe, name, 4, **guided), [[], SOME, [0, 1, 2, 3]])


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SCHEDULERS]
)
def test_under_every_scheduler_a_rewound_run_forgets_the_look(pipe: Any, own_scheduler: Any, name: str) -> None:
    scheduler, config, more = SCHEDULERS[name]
    pipe.scheduler = getattr(diffusers, f"{scheduler}Scheduler").from_config(own_scheduler.config, **config)
    for steps in (range(2, 4), range(5)):
        check(pipe, steps, lambda: make(pipe, num_steps=5, **more), [SOME])


@pytest.mark.parametrize("scheduler", ["FlowMatchHeunDiscrete", "FlowMatchLCM", "FlowMatchEulerDiscrete"])
def test_flow_schedulers_that_draw_from_torchs_own_generator_are_rewound_with_it(scheduler: str) -> None:
    pipe = built("sd3")
    more = {"stochastic_sampling": True} if "Euler" in scheduler else {}
    pipe.scheduler = getattr(diffusers, f"{scheduler}Scheduler").from_config(pipe.scheduler.config, **more)
    check(pipe, range(0, 2), lambda: make(pipe, "sd3"), [SOME])


def draw_elsewhere() -> None:
    """Draw from torch's own generator in another thread."""
    thread = threading.Thread(target=torch.rand, args=(3,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_what_other_threads_draw_meanwhile_stays_drawn(pipe: Any, monkeypatch: pytest.MonkeyPatch, eta: float) -> None:
    """Else they would draw the same noise again; this scheduler draws nothing, or from the call's generator."""
    states: list[Tensor] = []
    step = pipe.scheduler.step

    @wraps(step)
    def stepping(*args: Any, **kwargs: Any) -> Any:
        states.append(torch.get_rng_state())
        draw_elsewhere()
        return step(*args, **kwargs)

    monkeypatch.setattr(pipe.scheduler, "step", stepping)
    looked(pipe, Chosen(range(1, 3), SOME), lambda: make(pipe, eta=eta))
    assert len(states) == len({bytes(state.numpy()) for state in states}) == 7


def test_an_object_that_a_scheduler_makes_on_the_way_is_not_thrown_away(pipe: Any, own_scheduler: Any) -> None:
    """As the sampler of a Brownian path, which gives the same noise for the same step."""

    class Drawing(diffusers.DDIMScheduler):  # type: ignore[misc]
        def step(self, model_output: Tensor, timestep: int, sample: Tensor, **more: Any) -> Any:
            if self.noise_sampler is None:
                self.noise_sampler = Path(next(self.numbers))
            return super().step(model_output + self.noise_sampler.level, timestep, sample, **more)

    class Path:
        def __init__(self, level: float) -> None:
            self.level = level

    def run() -> Tensor:
        pipe.scheduler.noise_sampler, pipe.scheduler.numbers = None, itertools.count()
        return make(pipe)

    pipe.scheduler = Drawing.from_config(own_scheduler.config)
    check(pipe, range(0, 2), run, [SOME])


def test_a_snapshot_is_put_back_whatever_was_written_into_meanwhile() -> None:
    scheduler: Any = SimpleNamespace(ets=[torch.zeros(2)], count=np.zeros(2), index=None, by_name={"a": torch.zeros(1)})
    generator = torch.Generator().manual_seed(5)
    taken = snapshot(scheduler, torch.zeros(1), [generator, generator])
    drawn = torch.rand(3, generator=generator), torch.rand(3)
    scheduler.ets[0] += 1
    scheduler.ets.append(torch.ones(2))
    scheduler.count += 1
    scheduler.by_name["a"] += 1
    scheduler.index, scheduler.made, scheduler.method = 3, 1.0, len
    taken.put_back(scheduler, has_drawn=True)
    assert torch.equal(torch.stack(scheduler.ets), torch.zeros(1, 2))
    assert not scheduler.count.any()
    assert not scheduler.by_name["a"].any()
    assert scheduler.index is None
    assert not hasattr(scheduler, "made")
    assert scheduler.method is len
    assert torch.equal(torch.rand(3, generator=generator), drawn[0])
    assert torch.equal(torch.rand(3), drawn[1])


def test_what_all_rows_share_is_not_cut_whatever_its_length() -> None:
    rows = Rows.of([1], num_images=2, num_rows=4, device=torch.device("cpu"))
    ids, hidden = torch.arange(12.0).view(4, 3), torch.arange(4.0).view(4, 1)
    found = rows.cut(
        {"img_ids": ids, "txt_ids": ids, "hidden_states": hidden, "more": {"list": [hidden]}, "scale": 2.0}, FLUX
    )
    assert found["img_ids"] is ids and found["txt_ids"] is ids
    assert found["hidden_states"].tolist() == found["more"]["list"][0].tolist() == [[1.0], [3.0]]
    assert found["scale"] == 2.0
    listed = rows.cut({"x": list(torch.zeros(4, 4, 1)), "cap_feats": ["a", "b", "c", "d"]}, Z_IMAGE)
    assert [item.shape for item in listed["x"]] == [(4, 1)] * 2
    assert listed["cap_feats"] == ["b", "d"]


def test_a_result_that_does_not_fit_into_the_whole_is_refused() -> None:
    rows = Rows.of([1], num_images=2, num_rows=4, device=torch.device("cpu"))
    whole = (torch.zeros(4, 2), torch.zeros(4))
    assert rows.put(whole, (torch.ones(2, 2), torch.ones(2)))[1].tolist() == [0, 1, 0, 1]
    assert rows.put((["a", "b", "c", "d"],), (["B", "D"],)) == (["a", "B", "c", "D"],)
    for part in ((torch.ones(3, 2), torch.ones(2)), "something else"):
        with pytest.raises(BackboneError, match="cannot be computed again"):
            rows.put(whole, part)


@pytest.mark.parametrize("images", [[], [2], SOME, [0, 1, 2, 3]])
@pytest.mark.parametrize("guided", [False, True])
def test_only_the_changed_images_rows_are_computed_twice(
    pipe: Any, computed: list[int], images: list[int], guided: bool
) -> None:
    first, until, num_steps, parts = 1, 4, 6, 1 + guided
    looked(pipe, Chosen(range(first, until), images), lambda: make(pipe, num_steps=num_steps, **GUIDANCE[guided]))
    cost = sum(computed) / (num_steps * parts * NUM_IMAGES)
    assert cost == pytest.approx(1 + len(images) / NUM_IMAGES * (until - first) / num_steps)
    assert len(computed) == num_steps + (until - first) * bool(images)


def test_calls_of_one_context_are_looked_at_each_for_itself(pipe: Any) -> None:
    plain, every = make(pipe), changed(pipe, 1, lambda: make(pipe))
    plan = Chosen(range(1, 3), [0])
    first = looked(pipe, plan, lambda: torch.cat([make(pipe), make(pipe)]))
    assert torch.equal(first[4:], first[:4])
    assert torch.equal(first[1:4], plain[1:])
    torch.testing.assert_close(first[:1], every[:1], rtol=0, atol=1e-5 * float(every.abs().max()))
    assert plan.num_ended == 2


def test_the_clock_says_the_true_step_and_who_is_shown(pipe: Any) -> None:
    seen: list[tuple[int, int, Any]] = []

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        seen.append((clock.step, len(tokens), clock.images))

    backbone = attach(pipe)
    with (
        looking(backbone, backbone.layers[:1], backbone.layers[:1], Chosen(range(1, 3), SOME)) as clock,
        hooked(backbone, backbone.layers[1:2], note),
    ):
        make(pipe)
    every = (4, None)
    expected = [(0, *every), (1, *every), (2, *every), (1, 2, (1, 3)), (2, 2, (1, 3)), (3, *every), (4, *every)]
    assert seen == expected
    assert clock.num_steps == 5
    assert clock.ran == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("images", [[], SOME])
def test_recording_works_on_either_side_of_a_look(pipe: Any, images: list[int]) -> None:
    backbone, layer = attach(pipe), attach(pipe).layers[3]
    with hooked(backbone, backbone.layers[:1], AddOne(1, images)), record(pipe, layers=[layer]) as expected:
        make(pipe)
    plan = Chosen(range(1, 3), images)
    with (
        record(pipe, layers=[layer]) as outer,
        looking(backbone, backbone.layers[-1:], backbone.layers[:1], plan),
        record(pipe, layers=[layer]) as inner,
    ):
        make(pipe)
    (wanted,) = expected.recordings
    for seen in (outer, inner):
        (recording,) = seen.recordings
        assert recording.steps == [0, 1, 2, 3, 4]
        assert recording.noise_levels == wanted.noise_levels
        torch.testing.assert_close(recording.activations, wanted.activations, rtol=1e-4, atol=1e-4)


def nothing_is_left(backbone: Backbone) -> bool:
    scheduler, denoiser = backbone.pipe.scheduler, backbone.denoiser
    wrapped = {"step", "set_timesteps", "scale_model_input", "add_noise"} & vars(scheduler).keys()
    return num_hooks(backbone) == 0 and not wrapped and "forward" not in vars(denoiser)


@pytest.mark.parametrize("last", [0, 2, 4, 6])
def test_nothing_stays_behind_whenever_a_run_is_interrupted(pipe: Any, plain: Tensor, last: int) -> None:
    backbone, plan = attach(pipe), Chosen(range(1, 4), SOME)

    def stop(pipe: Any, index: int, timestep: Any, inputs: Any) -> Any:
        if index == last:
            raise KeyboardInterrupt
        return inputs

    with pytest.raises(KeyboardInterrupt):
        looked(pipe, plan, lambda: make(pipe, callback_on_step_end=stop))
    assert nothing_is_left(backbone)
    assert torch.equal(make(pipe), plain)
    assert plan.num_ended == 0

    def twice() -> Tensor:
        with pytest.raises(KeyboardInterrupt):
            make(pipe, callback_on_step_end=stop)
        return make(pipe)

    assert torch.equal(looked(pipe, plan, twice)[[0, 2]], plain[[0, 2]])
    assert plan.num_ended == 1


def test_a_run_that_its_user_interrupts_is_not_counted(pipe: Any) -> None:
    plan = Chosen(range(1, 4), SOME)

    def interrupt(pipe: Any, index: int, timestep: Any, inputs: Any) -> Any:
        pipe._interrupt = index >= 2
        return inputs

    looked(pipe, plan, lambda: make(pipe, callback_on_step_end=interrupt))
    assert plan.num_ended == 0


def test_a_run_whose_look_fails_leaves_the_schedulers_own_timesteps(pipe: Any) -> None:
    class Failing(Chosen):
        def span(self, schedule: Any) -> range:
            raise ValueError("no such look")

    with pytest.raises(ValueError, match="no such look"):
        looked(pipe, Failing(range(1, 2), []), lambda: make(pipe))
    assert len(pipe.scheduler.timesteps) == 5
    with pytest.raises(RuntimeError, match="before the loop"):
        looked(pipe, Chosen(range(1, 2), []), lambda: failing_after_set_timesteps(pipe))
    assert len(pipe.scheduler.timesteps) == 7
    assert nothing_is_left(attach(pipe))


def failing_after_set_timesteps(pipe: Any) -> Tensor:
    pipe.scheduler.set_timesteps(7)
    assert len(pipe.scheduler.timesteps) == 8
    raise RuntimeError("before the loop")


def loop(pipe: Any, taken: str) -> Tensor:
    """Denoise two images in a loop of one's own that takes its timesteps in one of several ways."""
    text, latents = torch.zeros(4, 4, 32), torch.ones(2, 4, 8, 8)
    scheduler = pipe.scheduler
    scheduler.set_timesteps(5)
    timesteps = scheduler.timesteps
    for index, timestep in enumerate(timesteps if taken == "all" else range(5)):
        at = timestep if taken == "all" else (timesteps if taken == "the first five" else scheduler.timesteps)[index]
        with torch.no_grad():
            noise = pipe.unet(torch.cat([latents] * 2), at, encoder_hidden_states=text).sample
        if taken == "image by image":
            steps = [scheduler.step(noise[2 + i : 3 + i], at, latents[i : i + 1]) for i in range(2)]
            latents = torch.cat([step.prev_sample for step in steps])
        else:
            latents = scheduler.step(noise[2:], at, latents).prev_sample
    return latents


def test_a_loop_of_ones_own_is_rewound_if_it_takes_the_timesteps_it_is_shown(pipe: Any) -> None:
    plain, plan = loop(pipe, "all"), Chosen(range(1, 3), [1])
    made = looked(pipe, plan, lambda: loop(pipe, "all"), 2)
    assert torch.equal(made[0], plain[0])
    assert not torch.allclose(made[1], plain[1])
    assert plan.num_ended == 1


@pytest.mark.parametrize(
    ("taken", "message"),
    [
        ("one by one", "This loop does not take the repeated passes"),
        ("the first five", "The run ended after pass 5 of 7, of which 2 are taken twice"),
        ("image by image", r"steps 1 of 2 image\(s\)"),
    ],
)
def test_a_loop_that_takes_its_timesteps_in_another_way_is_refused(pipe: Any, taken: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        looked(pipe, Chosen(range(1, 3), [1]), lambda: loop(pipe, taken), 2)
    assert nothing_is_left(attach(pipe))


def test_latents_that_a_callback_changes_are_refused(pipe: Any) -> None:
    def nudge(pipe: Any, index: int, timestep: Any, inputs: Any) -> Any:
        return {"latents": inputs["latents"] + 0.1}

    with pytest.raises(BackboneError, match="a callback or a picture changes them between steps"):
        looked(pipe, Chosen(range(1, 3), SOME), lambda: make(pipe, callback_on_step_end=nudge))


def test_guidance_that_a_callback_ends_by_the_number_of_the_pass_is_refused(pipe: Any) -> None:
    def end(pipe: Any, index: int, timestep: Any, inputs: Any) -> Any:
        if index == 1:
            pipe._guidance_scale = 1.0
            return {"prompt_embeds": inputs["prompt_embeds"].chunk(2)[1]}
        return inputs

    more = {"callback_on_step_end": end, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    with pytest.raises(BackboneError, match=r"does not call its denoiser in step 1 as it did in the look"):
        looked(pipe, Chosen(range(1, 3), SOME), lambda: make(pipe, **more))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_picture_is_looked_at_where_the_run_begins_with_its_first_step(pipe: Any, strength: float) -> None:
    other, plan = of_class(pipe, "StableDiffusionImg2ImgPipeline"), Chosen(range(1, 3), [1])

    def run() -> Tensor:
        return make_with_picture(other, 5, strength, num_images_per_prompt=2)

    if strength == 1:
        check(other, range(1, 3), run, [[1]])
        return
    with pytest.raises(BackboneError, match=r"begins midway .* look= needs a run from the first step"):
        looked(other, plan, run)


@pytest.mark.parametrize("name", ["StableDiffusionControlNetPipeline", "FluxControlNetPipeline"])
def test_a_controlnet_is_on_for_the_whole_run_or_refused(name: str) -> None:
    pipe = of_class(built("flux" if "Flux" in name else "sd"), name)
    check(pipe, range(1, 3), lambda: make_with_picture(pipe, 5, num_images_per_prompt=2), [[1]])
    with pytest.raises(BackboneError, match="ControlNet's scale changes within the run"):
        looked(
            pipe,
            Chosen(range(1, 3), [1]),
            lambda: make_with_picture(pipe, 5, num_images_per_prompt=2, control_guidance_end=0.5),
        )
    assert "forward" not in vars(pipe.controlnet)


def test_a_run_that_ends_early_is_whole_if_it_is_through_with_the_repeated_steps() -> None:
    pipe = built("sdxl")
    check(pipe, range(1, 3), lambda: make(pipe, "sdxl", 8, denoising_end=0.5), [SOME])
    with pytest.raises(BackboneError, match="let it run longer, or look less far"):
        looked(pipe, Chosen(range(0, 6), SOME), lambda: make(pipe, "sdxl", 8, denoising_end=0.5))


def test_skip_layer_guidance_is_refused() -> None:
    pipe = built("sd3")
    more = {"skip_guidance_layers": [1], "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
    with pytest.raises(BackboneError, match="Skip-layer guidance counts the loop's passes"):
        looked(pipe, Chosen(range(1, 3), SOME), lambda: make(pipe, "sd3", **more))


def test_a_cache_a_compiled_denoiser_and_a_second_look_are_refused(pipe: Any) -> None:
    flux = built("flux")
    config = diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, spatial_attention_block_identifiers=["transformer_blocks"],
        current_timestep_callback=lambda: 500,
    )  # fmt: skip
    flux.transformer.enable_cache(config)
    with pytest.raises(BackboneError, match="PyramidAttentionBroadcast is enabled"):
        looked(flux, Chosen(range(1, 3), []), lambda: make(flux, "flux"))
    flux.transformer.disable_cache()
    assert nothing_is_left(attach(flux))
    whole = nn.Module.compile
    pipe.unet._compiled_call_impl = whole  # as compile() leaves it
    with pytest.raises(BackboneError, match=r"is compiled, and look= would compile it again"):
        looked(pipe, Chosen(range(1, 3), []), lambda: make(pipe))
    pipe.unet._compiled_call_impl = None
    with pytest.raises(BackboneError, match="one run is rewound for one choice"):
        looked(pipe, Chosen(range(1, 3), []), lambda: looked(pipe, Chosen(range(1, 3), []), lambda: make(pipe)))
    assert nothing_is_left(attach(pipe))
