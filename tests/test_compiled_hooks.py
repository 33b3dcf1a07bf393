"""Denoisers compiled in place, whole or block by block: a hook reaches every layer, or the user is told."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, BackboneError, Site
from icm_pipeline.compiled_hooks import _SWITCHBOARDS
from icm_pipeline.hooks import StepClock, hooked
from icm_pipeline.prompts import Job
from icm_pipeline.recording import Recorder
from icm_pipeline.sampling import denoise
from tests.test_hooks import NUM_STEPS, add_one, look, num_hooks

LAYERS = [f"mid_block.attentions.0.transformer_blocks.0.{part}" for part in ("attn1", "ff")]
Compile = Callable[..., None]


def whole(denoiser: nn.Module) -> list[nn.Module]:
    return [denoiser]


def blocks(denoiser: nn.Module) -> list[nn.Module]:
    return [module for module in denoiser.modules() if type(module).__name__ == "BasicTransformerBlock"]


@pytest.fixture
def compile_in_place(backbone: Backbone) -> Iterator[Compile]:
    def compile_parts(parts: Callable[[nn.Module], list[nn.Module]], **options: bool) -> None:
        for module in parts(backbone.denoiser):
            module.compile(backend="eager", **options)  # the default's graphs, run without a C compiler

    yield compile_parts
    for module in backbone.denoiser.modules():
        module._compiled_call_impl = None
    if backbone.denoiser in _SWITCHBOARDS:
        _SWITCHBOARDS.pop(backbone.denoiser).unwire()
    torch._dynamo.reset()


@pytest.mark.parametrize("parts", [whole, blocks])
def test_a_denoiser_compiled_in_place_is_recorded_and_changed_as_an_eager_one(
    backbone: Backbone, jobs: list[Job], compile_in_place: Compile, parts: Callable[[nn.Module], list[nn.Module]]
) -> None:
    plain, recorder = denoise(backbone, jobs), Recorder(list(range(NUM_STEPS)))
    with hooked(backbone, LAYERS, recorder, len(jobs)):
        denoise(backbone, jobs)
    with hooked(backbone, LAYERS, add_one, len(jobs)):
        moved = denoise(backbone, jobs)
    compile_in_place(parts)
    denoise(backbone, jobs)  # the first call compiles, and looks at no hook registered later
    again = Recorder(list(range(NUM_STEPS)))
    with hooked(backbone, LAYERS, again, len(jobs)) as clock:
        denoise(backbone, jobs)
    assert clock.num_calls == NUM_STEPS
    for layer, activations in recorder.recording().activations.items():
        torch.testing.assert_close(again.recording().activations[layer], activations, rtol=1e-4, atol=1e-4)
    scale = float(plain.abs().max())
    with hooked(backbone, LAYERS, add_one, len(jobs)):
        torch.testing.assert_close(denoise(backbone, jobs), moved, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(denoise(backbone, jobs), plain, rtol=0, atol=1e-5 * scale)
    assert not torch.allclose(moved, plain, rtol=0, atol=1e-3 * scale)


def test_a_graph_that_may_not_be_broken_is_refused_and_works_as_before_afterwards(
    backbone: Backbone, jobs: list[Job], compile_in_place: Compile
) -> None:
    compile_in_place(blocks, fullgraph=True)
    plain = denoise(backbone, jobs)
    with pytest.raises(BackboneError, match="fullgraph=True"), hooked(backbone, LAYERS, look, len(jobs)):
        denoise(backbone, jobs)
    assert num_hooks(backbone) == 0
    assert torch.equal(denoise(backbone, jobs), plain)


def test_a_layer_that_is_never_reached_is_an_error(backbone: Backbone, jobs: list[Job]) -> None:
    block, seen = backbone.denoiser.get_submodule(LAYERS[0].removesuffix(".attn1")), list[str]()
    feed_forward = block.ff

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        seen.append(site.layer)

    missed = rf"1 of 2 layers were never reached in {NUM_STEPS} steps .*{LAYERS[1]}"
    try:
        with pytest.raises(BackboneError, match=missed), hooked(backbone, LAYERS, note, len(jobs)):
            block.ff = nn.Identity()
            denoise(backbone, jobs)
    finally:
        block.ff = feed_forward
    assert seen == LAYERS[:1] * NUM_STEPS
    assert num_hooks(backbone) == 0


def test_a_context_without_a_run_reaches_no_layer_and_is_no_error(backbone: Backbone) -> None:
    with hooked(backbone, LAYERS, look) as clock:
        pass
    assert clock.num_passes == 0
