"""Denoisers compiled in place, whole or block by block: a hook reaches every layer, or the user is told."""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, BackboneError, Sampling, Site
from icm_pipeline.backbones.registry import attach
from icm_pipeline.backbones.sites import find_sites
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.compiled import HOOK, switched_on
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from tests.helpers.hooks import add_one, look, num_hooks
from tests.helpers.models import NUM_STEPS

LAYERS = [f"mid_block.attentions.0.transformer_blocks.0.{part}" for part in ("attn1", "ff")]
Parts = Callable[[nn.Module], list[nn.Module]]
Compile = Callable[..., None]


def whole(denoiser: nn.Module) -> list[nn.Module]:
    return [denoiser]


def blocks(denoiser: nn.Module) -> list[nn.Module]:
    return [module for module in denoiser.modules() if type(module).__name__ == "BasicTransformerBlock"]


def middle(denoiser: nn.Module) -> list[nn.Module]:
    """The block of LAYERS."""
    return [denoiser.get_submodule(LAYERS[0].removesuffix(".attn1"))]


def forwards(denoiser: nn.Module) -> list[nn.Module]:
    return blocks(denoiser)


@pytest.fixture(scope="module")
def backbone(random_pipeline_folder: Path) -> Backbone:
    """The random pipeline with the smallest denoiser that has blocks of every place: compiling takes its time."""
    pipe = StableDiffusionPipeline.from_pretrained(random_pipeline_folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.unet = UNet2DConditionModel(
            sample_size=8, block_out_channels=(32,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
        )  # fmt: skip
    return replace(attach(pipe), sampling=Sampling(NUM_STEPS, 3.0, 16, 16))


@pytest.fixture
def compile_in_place(backbone: Backbone) -> Iterator[Compile]:
    """Give a way to compile; the graphs are those of the default backend, run without a C compiler."""

    def compile_parts(parts: Parts, **options: bool) -> None:
        for module in parts(backbone.denoiser):
            if parts is forwards:
                module.forward = torch.compile(module.forward, backend="eager", **options)
            else:
                module.compile(backend="eager", **options)

    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=True):  # its default, for each test anew
        yield compile_parts
    for module in backbone.denoiser.modules():
        module._compiled_call_impl = None
        module._forward_hooks.pop(HOOK, None)
        vars(module).pop("forward", None)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("parts", "layers"),
    [
        (whole, LAYERS), (blocks, None), (forwards, None),
        pytest.param(whole, None, marks=pytest.mark.slow), pytest.param(blocks, LAYERS, marks=pytest.mark.slow),
        pytest.param(forwards, LAYERS, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_denoiser_compiled_in_place_is_recorded_and_changed_as_an_eager_one(
    backbone: Backbone, jobs: list[Job], compile_in_place: Compile, parts: Parts, layers: list[str] | None
) -> None:
    chosen = layers or backbone.layers
    plain, recorder = denoise(backbone, jobs), Recorder(list(range(NUM_STEPS)))
    with hooked(backbone, chosen, recorder, len(jobs)):
        denoise(backbone, jobs)
    with hooked(backbone, chosen, add_one, len(jobs)):
        moved = denoise(backbone, jobs)
    compile_in_place(parts)
    denoise(backbone, jobs)  # the first call compiles, and looks at no hook registered later
    again = Recorder(list(range(NUM_STEPS)))
    with hooked(backbone, chosen, again, len(jobs)) as clock:
        denoise(backbone, jobs)
    assert clock.num_calls == NUM_STEPS
    for layer, activations in recorder.recording().activations.items():
        torch.testing.assert_close(again.recording().activations[layer], activations, rtol=1e-4, atol=1e-4)
    scale = float(plain.abs().max())
    with hooked(backbone, chosen, add_one, len(jobs)):
        torch.testing.assert_close(denoise(backbone, jobs), moved, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(denoise(backbone, jobs), plain, rtol=0, atol=1e-5 * scale)
    assert not torch.allclose(moved, plain, rtol=0, atol=1e-3 * scale)


class Block(nn.Module):
    """As small as a block can be: every graph takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        return 2 * self.attention(tokens + 1)


def test_a_hook_on_one_of_several_compiled_blocks_alone_is_called_and_torchs_setting_comes_back() -> None:
    blocks, seen = nn.ModuleList([Block(), Block()]), list[int]()
    for block in blocks:
        block.compile(backend="eager")

    def note(module: nn.Module, args: object, output: Tensor) -> None:
        seen.append(len(output))

    def run(num_rows: int, hooks: bool = True) -> None:
        with switched_on([Site("1.attention", "other")], [blocks[1].attention], [note]) if hooks else nullcontext():
            for block in blocks:
                block(torch.zeros(num_rows, 2))

    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=True):  # its default
        run(2)
        assert torch._dynamo.config.skip_nnmodule_hook_guards
        run(3, hooks=False)  # another shape takes new graphs, which this setting makes blind for hooks
        run(3)
    torch._dynamo.reset()
    assert seen == [2, 3]


def refused_once(backbone: Backbone, jobs: list[Job]) -> None:
    with pytest.raises(BackboneError, match="fullgraph=True"), hooked(backbone, LAYERS, look, len(jobs)):
        denoise(backbone, jobs)


def refused_inside_another(backbone: Backbone, jobs: list[Job]) -> None:
    with pytest.raises(BackboneError), hooked(backbone, LAYERS, look, 4), hooked(backbone, LAYERS[:1], look, 4):
        denoise(backbone, jobs)


def refused_by_torch(backbone: Backbone, jobs: list[Job]) -> None:
    with hooked(backbone, LAYERS, look, len(jobs)), pytest.raises(torch._dynamo.exc.Unsupported):
        denoise(backbone, jobs)


def never_called(backbone: Backbone, jobs: list[Job]) -> None:
    with hooked(backbone, LAYERS, look, len(jobs)):
        pass


@pytest.mark.parametrize("attempt", [refused_once, refused_inside_another, refused_by_torch, never_called])
@pytest.mark.parametrize("parts", [pytest.param(whole, marks=pytest.mark.slow), middle])
def test_a_graph_that_may_not_be_broken_works_as_before_after_an_attempt(
    backbone: Backbone,
    jobs: list[Job],
    compile_in_place: Compile,
    parts: Parts,
    attempt: Callable[[Backbone, list[Job]], None],
) -> None:
    compile_in_place(parts, fullgraph=True)
    plain = denoise(backbone, jobs)
    attempt(backbone, jobs)
    assert num_hooks(backbone) == 0
    assert torch.equal(denoise(backbone, jobs), plain)


def test_a_compiled_block_in_a_blocks_place_keeps_the_layers_names(backbone: Backbone, jobs: list[Job]) -> None:
    place = backbone.denoiser.get_submodule("mid_block.attentions.0.transformer_blocks")
    block, recorder, again = place[0], *(Recorder(list(range(NUM_STEPS))) for _ in range(2))
    with hooked(backbone, LAYERS, recorder, len(jobs)):
        denoise(backbone, jobs)
    try:
        place[0] = torch.compile(block, backend="eager")
        compiled = replace(backbone, sites=find_sites(backbone.denoiser, backbone.family.sites))
        assert compiled.layers == backbone.layers
        denoise(compiled, jobs)
        with hooked(compiled, LAYERS, again, len(jobs)):
            denoise(compiled, jobs)
    finally:
        place[0] = block
        for part in block.modules():
            part._forward_hooks.pop(HOOK, None)
        torch._dynamo.reset()
    for layer, activations in recorder.recording().activations.items():
        torch.testing.assert_close(again.recording().activations[layer], activations, rtol=1e-4, atol=1e-4)


def test_a_layer_that_does_not_run_is_an_error_in_the_first_step_it_is_missed_in(
    backbone: Backbone, jobs: list[Job]
) -> None:
    block, seen, made = backbone.denoiser.get_submodule(LAYERS[0].removesuffix(".attn1")), list[str](), list[Tensor]()
    feed_forward = block.ff

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        seen.append(site.layer)

    missed = rf"1 of 2 layers did not run in step 0 .*{LAYERS[1]}"
    try:
        with pytest.raises(BackboneError, match=missed), hooked(backbone, LAYERS, note, len(jobs)):
            made.append(denoise(backbone, jobs))
            block.ff = nn.Identity()
            made.append(denoise(backbone, jobs))
    finally:
        block.ff = feed_forward
    assert (seen, len(made)) == (LAYERS * NUM_STEPS + LAYERS[:1], 1)
    assert num_hooks(backbone) == 0


def test_another_pipelines_run_with_the_same_scheduler_is_no_run_of_this_one(
    backbone: Backbone, jobs: list[Job]
) -> None:
    parts = {**backbone.pipe.components, "unet": copy.deepcopy(backbone.denoiser)}
    other = replace(backbone, pipe=type(backbone.pipe)(**parts, requires_safety_checker=False))
    other.pipe.set_progress_bar_config(disable=True)
    with hooked(backbone, LAYERS, look):
        denoise(backbone, jobs)
        denoise(other, jobs)


def test_a_denoiser_in_the_hooked_ones_place_is_an_error(backbone: Backbone, jobs: list[Job]) -> None:
    unet, other = backbone.pipe.unet, copy.deepcopy(backbone.pipe.unet)
    try:
        with pytest.raises(BackboneError, match="did not run"), hooked(backbone, LAYERS, look):
            backbone.pipe.unet = other
            denoise(backbone, jobs)
    finally:
        backbone.pipe.unet = unet


def test_a_context_without_a_run_reaches_no_layer_and_is_no_error(backbone: Backbone) -> None:
    with hooked(backbone, LAYERS, look) as clock:
        pass
    assert clock.num_passes == 0
