"""Every row of docs/accelerators.md: with an accelerator on, a shift is what it is without, and a recording too.

The reference is the same accelerator without this project: a hook of torch's own that counts a layer's calls, and adds
to the conditional rows' image tokens at some of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm_pipeline import attach, record, steer
from icm_pipeline.backbones.base import BackboneError, Site
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.looking import Choice, looking
from icm_pipeline.hooks.recording import Recording
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.accelerators import ACCELERATORS, NUM_STEPS, REFUSED, WORKS, Accelerator, markdown
from tests.helpers.hooks import num_hooks
from tests.helpers.looking import NUM_IMAGES, Chosen, make
from tests.helpers.pipelines import built

DOCS = Path(__file__).parents[2] / "docs" / "accelerators.md"
LAYERS = {"sd": "up_blocks.1.attentions.1.transformer_blocks.0.attn1", "flux": "single_transformer_blocks.1.attn"}
IMAGE_TOKENS = {"sd": slice(0, None), "flux": slice(-16, None)}  # FLUX's text comes first
STEERED = (1, 2)  # of four steps
CHANGED, OTHERS = [1, 3], [0, 2]  # images after a look
RUN = [each for each in ACCELERATORS if each.enable is not None]
STEERABLE = [each for each in RUN if each.steer == WORKS]
SUBJECTS = [pytest.param((each, {}), id=each.name) for each in STEERABLE]
SUBJECTS += [
    pytest.param((each, {"guidance_scale": 1.0}), id=f"{each.name}, guidance off", marks=pytest.mark.slow)
    for each in STEERABLE
    if each.pipeline == "sd"
]


def names(accelerators: list[Accelerator]) -> list[str]:
    return [each.name for each in accelerators]


class Reference:
    """Adds a shift to a layer's conditional image tokens in its second and third call, and keeps what it was shown."""

    def __init__(self, name: str, shift: Tensor | None) -> None:
        self._tokens, self._shift = IMAGE_TOKENS[name], shift
        self.means: list[Tensor] = []

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        conditional = slice(len(output) - NUM_IMAGES, None)
        output = output.dequantize() if hasattr(output, "qtype") else output
        self.means.append(output[conditional, self._tokens].mean(1))
        if self._shift is None or len(self.means) - 1 not in STEERED:
            return None
        changed = output.clone()
        changed[conditional, self._tokens] += self._shift
        return changed


@dataclass(frozen=True)
class Subject:
    """A pipeline with an accelerator on, and what it makes with the reference on one layer."""

    accelerator: Accelerator
    pipe: Any
    more: Mapping[str, Any]
    shift: Tensor
    plain: Tensor
    shifted: Tensor
    means: Tensor
    """Of the layer's tokens in the plain run [n, T, d]."""

    @property
    def layer(self) -> str:
        return LAYERS[self.accelerator.pipeline]

    def make(self) -> Tensor:
        return make(self.pipe, self.accelerator.pipeline, NUM_STEPS, **self.more)


def enabled(accelerator: Accelerator) -> tuple[Any, Mapping[str, Any]]:
    """Return a pipeline with an accelerator on, and further arguments of its call."""
    if accelerator.package:
        pytest.importorskip(accelerator.package)
    pipe = built(accelerator.pipeline)
    assert accelerator.enable is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        more = accelerator.enable(pipe)
    short = {"max_sequence_length": 16} if accelerator.pipeline == "flux" else {}  # else texts of 512 tokens
    return pipe, {**short, **(more if isinstance(more, Mapping) else {})}


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    accelerator, guidance = request.param
    pipe, more = enabled(accelerator)
    more = {**more, **guidance}
    name = accelerator.pipeline
    layer = attach(pipe).denoiser.get_submodule(LAYERS[name])
    width = 32 if name == "flux" else layer.to_out[0].out_features
    shift = 3 * torch.nn.functional.normalize(torch.randn(width, generator=torch.Generator().manual_seed(1)), dim=0)
    results = []
    for reference in (looked := Reference(name, None), Reference(name, shift)):
        handle = layer.register_forward_hook(reference)
        results.append(make(pipe, name, NUM_STEPS, **more))
        handle.remove()
    return Subject(accelerator, pipe, more, shift, *results, torch.stack(looked.means, dim=1))


def vectors_of(layer: str, shift: Tensor) -> SteeringVectors:
    """Return vectors whose only option shifts a layer by this much where alpha is 1 and the unit the activations'."""
    return SteeringVectors({layer: shift[None, None]}, {layer: torch.ones(1)}, (0,), (1.0,), ("a",), "random", "letter")


def test_a_shift_is_that_of_exactly_this_layer_at_exactly_these_steps(subject: Subject) -> None:
    backbone = attach(subject.pipe)
    before = num_hooks(backbone)
    vectors = vectors_of(subject.layer, subject.shift)
    with steer(subject.pipe, vectors, "a", alpha=1.0, alpha_unit="activation", window=STEERED):
        assert torch.equal(subject.make(), subject.shifted)
    assert num_hooks(backbone) == before
    assert torch.equal(subject.make(), subject.plain)
    assert not torch.allclose(subject.shifted, subject.plain)


def test_a_recording_has_every_step_and_what_the_layer_gave_in_it(
    subject: Subject, caplog: pytest.LogCaptureFixture
) -> None:
    if subject.accelerator.record == REFUSED:
        with pytest.raises(BackboneError, match=subject.accelerator.error), record(subject.pipe):
            pytest.fail("the context must not be entered")
        return
    with record(subject.pipe, layers=[subject.layer]) as seen:
        assert torch.equal(subject.make(), subject.plain)
    (recording,) = seen.recordings
    assert (recording.steps, seen.cut_short) == (list(range(NUM_STEPS)), 0)
    torch.testing.assert_close(recording.activations[subject.layer], subject.means, rtol=1e-5, atol=1e-5)
    assert ("merges tokens" in caplog.text) == (subject.accelerator.name == "tomesd")


class Shifted(Chosen):
    """Rewinds the steered steps for some images, whose tokens it shifts."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__(range(STEERED[0], STEERED[-1] + 1), CHANGED)
        self._shift = shift

    def decide(self, recording: Recording, clock: StepClock) -> Choice:
        return Choice(self.images, self)

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        return tokens + self._shift if clock.step in STEERED else None


def test_a_look_leaves_the_other_images_as_they_were_and_steers_those_it_is_to_change(subject: Subject) -> None:
    backbone, layers = attach(subject.pipe), [subject.layer]
    plan = Shifted(subject.shift)
    if subject.accelerator.record == REFUSED:
        with pytest.raises(BackboneError, match=subject.accelerator.error), looking(backbone, layers, layers, plan):
            pytest.fail("the context must not be entered")
        return
    with looking(backbone, layers, layers, plan):
        some = subject.make()
    assert torch.equal(some[OTHERS], subject.plain[OTHERS])
    torch.testing.assert_close(some[CHANGED], subject.shifted[CHANGED], rtol=1e-4, atol=1e-4)


REFUSING = [each for each in RUN if each.steer == REFUSED]


@pytest.mark.parametrize("accelerator", REFUSING, ids=names(REFUSING))
def test_what_would_be_wrong_in_silence_is_refused_by_name(accelerator: Accelerator) -> None:
    pipe, _ = enabled(accelerator)
    layer = LAYERS[accelerator.pipeline]
    with (
        pytest.raises(BackboneError, match=accelerator.error),
        steer(pipe, vectors_of(layer, torch.ones(32)), "a", alpha=1.0, alpha_unit="activation"),
    ):
        pytest.fail("the context must not be entered")
    with pytest.raises(BackboneError, match=accelerator.error), record(pipe, layers=[layer]):
        pytest.fail("the context must not be entered")


@pytest.mark.parametrize("changed", [[1, 3], []])
def test_a_look_works_in_every_call_under_model_offload(changed: list[int]) -> None:
    pipe, layer = built("sd"), LAYERS["sd"]
    plain = make(pipe, num_steps=NUM_STEPS)
    with looking(attach(pipe), [layer], [layer], Chosen(range(1, 3), changed)):
        expected = make(pipe, num_steps=NUM_STEPS)
    pipe.enable_model_cpu_offload(device="cpu")  # which puts every forward back when a call has ended
    with looking(attach(pipe), [layer], [layer], plan := Chosen(range(1, 3), changed)):
        assert torch.equal(make(pipe, num_steps=NUM_STEPS), expected)
        assert torch.equal(make(pipe, num_steps=NUM_STEPS), expected)
    assert torch.equal(make(pipe, num_steps=NUM_STEPS), plain)
    assert plan.num_ended == 2
    assert torch.equal(expected[0], plain[0])
    assert torch.equal(expected[1], plain[1]) != bool(changed)


def test_a_projection_that_a_fused_one_stands_in_for_is_an_error() -> None:
    pipe = built("sd")
    pipe.fuse_qkv_projections()
    inside = f"{LAYERS['sd']}.to_v"
    with pytest.raises(BackboneError, match="fused projections"), record(pipe, layers=[inside]):
        make(pipe, num_steps=1)


def test_the_documentation_has_this_table_and_its_tests_exist() -> None:
    assert markdown() in DOCS.read_text(encoding="utf-8")
    for accelerator in ACCELERATORS:
        assert (Path(__file__).parent / accelerator.tested).is_file()
        assert accelerator.enable is not None or accelerator.tested != Path(__file__).name
