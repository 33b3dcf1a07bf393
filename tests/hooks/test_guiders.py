"""Modular pipelines and guiders: every prediction is a call of its own, and only the conditional one is touched.

The reference is a hook of torch's own that takes a step's first call for the conditional one, which a test of the
pipelines' inputs checks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from icm_pipeline import attach, record, steer
from icm_pipeline.backbones.base import BackboneError, Site
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.looking import looking
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.denoisers import TINY
from tests.helpers.hooks import num_hooks
from tests.helpers.looking import Chosen
from tests.helpers.modular import GUIDERS, LAYERS, NUM_STEPS, make, modular, perturbing
from tests.helpers.tiny import build
from tests.helpers.tiny import make as make_tiny

STEERED = (1, 2)
NUM_CALLS = {  # of the four steps; perturbed predictions are never made in the first
    "classifier-free": 8, "classifier-free, at first": 6, "classifier-free, off": 4, "perturbed attention": 11,
    "skipped layers": 11, "adaptive projected": 8, "smoothed energy": 11, "auto": 8, "tangential": 8, "zero star": 8,
}  # fmt: skip
RARE = ("smoothed energy", "auto", "tangential", "zero star")
CASES = [
    *(("sdxl", name) for name in GUIDERS if name not in RARE),
    *(pytest.param("sdxl", name, marks=pytest.mark.slow) for name in RARE),
    ("sd3", "classifier-free"), ("sd3", "adaptive projected"), ("flux", ""), ("z_image", "perturbed attention"),
]  # fmt: skip


class Reference:
    """Adds a shift to a layer's image tokens in the first call of the second and third step, and keeps their means."""

    def __init__(self, name: str, shift: Tensor | None) -> None:
        self._name, self._shift = name, shift
        self.step = self.calls = self.num_calls = 0
        self.means: list[Tensor] = []

    def calling(self, module: nn.Module, args: Any) -> None:
        self.calls += 1
        self.num_calls += 1

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self.calls != 1:
            return None
        tokens = output[0] if isinstance(output, tuple) else output
        part = {"flux": slice(-16, None), "z_image": slice(0, 16)}.get(self._name, slice(0, None))
        self.means.append(tokens[:, part].mean(1))
        if self._shift is None or self.step not in STEERED:
            return None
        changed = tokens.clone()
        changed[:, part] += self._shift
        return (changed, *output[1:]) if isinstance(output, tuple) else changed


@contextmanager
def referred(pipe: Any, name: str, shift: Tensor | None = None) -> Iterator[Reference]:
    reference, denoiser = Reference(name, shift), pipe.unet if name == "sdxl" else pipe.transformer
    step = pipe.scheduler.step

    def stepping(*args: Any, **kwargs: Any) -> Any:
        reference.step, reference.calls = reference.step + 1, 0
        return step(*args, **kwargs)

    handles = [denoiser.register_forward_pre_hook(reference.calling)]
    handles.append(denoiser.get_submodule(LAYERS[name]).register_forward_hook(reference))
    pipe.scheduler.step = stepping
    try:
        yield reference
    finally:
        del pipe.scheduler.step
        for handle in handles:
            handle.remove()


def vectors_of(layer: str, shift: Tensor) -> SteeringVectors:
    return SteeringVectors({layer: shift[None, None]}, {layer: torch.ones(1)}, (0,), (1.0,), ("a",), "random", "letter")


@pytest.mark.parametrize(("name", "guider"), CASES)
def test_steering_and_recording_touch_the_conditional_prediction_alone(name: str, guider: str) -> None:
    pipe, layer = modular(name, guider), LAYERS[name]
    with referred(pipe, name) as looked:
        plain = make(pipe)
    assert looked.num_calls == NUM_CALLS.get(guider, NUM_STEPS)
    shift = torch.nn.functional.normalize(torch.linspace(-1, 2, looked.means[0].shape[-1]), dim=0)
    with referred(pipe, name, shift):
        shifted = make(pipe)
    assert not torch.allclose(shifted, plain)
    with steer(pipe, vectors_of(layer, shift), "a", alpha=1.0, alpha_unit="activation", window=STEERED):
        assert torch.equal(make(pipe), shifted)
    with record(pipe, layers=[layer]) as seen:
        assert torch.equal(make(pipe), plain)
    (recording,) = seen.recordings
    assert (recording.steps, seen.cut_short) == (list(range(NUM_STEPS)), 0)
    torch.testing.assert_close(recording.activations[layer], torch.stack(looked.means, 1), rtol=1e-5, atol=1e-5)
    assert num_hooks(attach(pipe)) == 0
    left = [vars(part).keys() for part in (pipe.scheduler, getattr(pipe, "guider", None)) if part is not None]
    assert not {"prepare_inputs", "prepare_inputs_from_block_state", "step", "set_timesteps"}.intersection(*left)


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_the_first_prediction_is_the_one_that_follows_the_prompt(name: str) -> None:
    pipe = modular(name, "classifier-free")
    denoiser, texts = attach(pipe).denoiser, list[Tensor]()

    def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
        texts.append(kwargs["encoder_hidden_states"])

    handle = denoiser.register_forward_pre_hook(keep, with_kwargs=True)
    make(pipe, num_steps=1)
    make(pipe, ("a cat", "a hat"), num_steps=1)
    handle.remove()
    assert not torch.equal(texts[0], texts[2])
    assert torch.equal(texts[1], texts[3])


def test_any_pipelines_guider_says_what_a_call_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, tiny, guider = build(TINY["hunyuan_image"]), TINY["hunyuan_image"], perturbing("transformer_blocks")
    pipe.guider, layer, seen = guider, "transformer_blocks.1.attn", list[int]()
    monkeypatch.setattr(diffusers, "AdaptiveProjectedMixGuidance", lambda: guider)  # of which the helper makes one

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        seen.append(clock.calls_in_pass)

    with torch.no_grad(), hooked(attach(pipe), [layer], note) as clock:
        make_tiny(tiny, pipe, num_steps=2)
    assert (clock.num_calls, seen) == (5, [1, 1])  # two predictions, then three, the first of which is conditional
    plan = Chosen(range(0, 1), [0])
    with pytest.raises(BackboneError, match="guider"), looking(attach(pipe), [layer], [layer], plan):
        pytest.fail("the context must not be entered")


def test_a_window_that_the_run_does_not_take_is_an_error_when_the_context_ends() -> None:
    pipe = modular("sdxl", "classifier-free")
    vectors = vectors_of(LAYERS["sdxl"], torch.ones(64))
    with (
        pytest.raises(ValueError, match="nothing was steered"),
        steer(pipe, vectors, "a", alpha=1.0, alpha_unit="activation", window=(2, None)),
    ):
        pipe(prompt="a face", num_inference_steps=4, height=16, width=16, denoising_end=0.5, output="latents")


def test_a_guider_that_is_replaced_inside_the_context_is_refused() -> None:
    pipe = modular("sdxl", "classifier-free")
    with pytest.raises(BackboneError, match="ran without its guider"), record(pipe):
        pipe.update_components(guider=diffusers.ClassifierFreeGuidance())
        make(pipe)
