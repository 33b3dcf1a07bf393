"""Caches that skip layers: found and named, refused where a shift or a recording would be wrong."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import diffusers
import pytest
import torch
from diffusers.hooks import apply_first_block_cache, apply_pyramid_attention_broadcast
from torch import Tensor, nn

from icm_pipeline import record, steer
from icm_pipeline.backbones.base import BackboneError, Site
from icm_pipeline.backbones.registry import attach
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.denoisers import TINY
from tests.helpers.hooks import add_one, look
from tests.helpers.pipelines import build
from tests.helpers.tiny import build as build_tiny
from tests.helpers.tiny import make as make_tiny

LAYER = "single_transformer_blocks.1.attn"
INSIDE = "single_transformer_blocks.1.attn.to_q"  # of a module whose output is cached
NUM_STEPS = 4

FIRST_BLOCK = diffusers.FirstBlockCacheConfig(threshold=0.9)
BROADCAST = diffusers.PyramidAttentionBroadcastConfig(
    spatial_attention_block_skip_range=2, spatial_attention_timestep_skip_range=(0, 1001),
    spatial_attention_block_identifiers=["transformer_blocks"], current_timestep_callback=lambda: 500,
)  # fmt: skip
TAYLOR = {"cache_interval": 2, "disable_cache_before_step": 1}
SKIPPING = {
    "FirstBlockCache": FIRST_BLOCK,
    "MagCache": diffusers.MagCacheConfig(num_inference_steps=NUM_STEPS, mag_ratios=torch.ones(NUM_STEPS)),
    "TaylorSeerCache": diffusers.TaylorSeerCacheConfig(use_lite_mode=True, **TAYLOR),
    "FasterCache": diffusers.FasterCacheConfig(is_guidance_distilled=True, current_timestep_callback=lambda: 500),
}
OF_ATTENTION_ALONE = {
    "PyramidAttentionBroadcast": BROADCAST, "TaylorSeerCache": diffusers.TaylorSeerCacheConfig(**TAYLOR)
}  # fmt: skip


@pytest.fixture(scope="module")
def flux() -> Any:
    pipe = build("flux")
    for part in (pipe.text_encoder, pipe.text_encoder_2):
        part.eval()  # no dropout, as after from_pretrained
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def cached(flux: Any) -> Iterator[Callable[[Any], Any]]:
    """Give a way to enable a cache until the test ends."""

    def enable(config: Any) -> Any:
        flux.transformer.enable_cache(config)
        return flux

    yield enable
    if flux.transformer.is_cache_enabled:
        flux.transformer.disable_cache()


def make(pipe: Any) -> Tensor:
    return pipe(
        "a face", num_inference_steps=NUM_STEPS, height=16, width=16, output_type="latent",
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip


def from_step_one(tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
    return tokens + 1 if clock.step >= 1 else None


@pytest.mark.parametrize("name", SKIPPING)
@pytest.mark.parametrize("reused", [False, True])
def test_a_cache_that_skips_layers_is_refused_by_name(cached: Any, name: str, reused: bool) -> None:
    backbone = attach(cached(SKIPPING[name]))
    with (
        pytest.raises(BackboneError, match=rf"{name} is enabled .* disable_cache\(\)"),
        hooked(backbone, [LAYER], look, reused=reused),
    ):
        pytest.fail("the context must not be entered")


@pytest.mark.parametrize("name", OF_ATTENTION_ALONE)
def test_a_cache_of_attention_alone_is_steered_at_every_step_and_not_recorded(cached: Any, name: str) -> None:
    pipe, calls = cached(OF_ATTENTION_ALONE[name]), list[int]()

    def shift(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        calls.append(1)
        image = output[:, -16:] + 1  # text comes first
        return torch.cat([output[:, :-16], image], dim=1) if len(calls) > 1 else None

    plain = make(pipe)
    handle = pipe.transformer.get_submodule(LAYER).register_forward_hook(shift)
    expected = make(pipe)
    handle.remove()
    with hooked(attach(pipe), [LAYER], from_step_one, reused=True):
        assert torch.equal(make(pipe), expected)
    assert torch.equal(make(pipe), plain)
    assert not torch.allclose(expected, plain)
    with pytest.raises(BackboneError, match=f"{name} is enabled"), record(pipe, layers=[LAYER]):
        pytest.fail("the context must not be entered")


def test_steering_is_refused_for_what_lies_inside_a_cached_output(cached: Any) -> None:
    backbone = attach(cached(BROADCAST)).with_layers([INSIDE])
    with pytest.raises(BackboneError, match="PyramidAttention"), hooked(backbone, [INSIDE], add_one, reused=True):
        pytest.fail("the context must not be entered")


def test_steer_takes_a_cache_of_attention_alone_and_no_other(cached: Any) -> None:
    pipe = cached(BROADCAST)
    width = pipe.transformer.inner_dim
    vectors = SteeringVectors(
        {LAYER: torch.ones(1, 1, width)}, {LAYER: torch.ones(1)}, (0,), (1.0,), ("man",), "random", "gender"
    )
    with hooked(attach(pipe), [LAYER], add_one, reused=True):
        expected = make(pipe)
    with steer(pipe, vectors, "man", alpha=1.0, alpha_unit="activation"):  # in place where nobody holds the output
        assert torch.equal(make(pipe), expected)
    pipe.transformer.disable_cache()
    cached(FIRST_BLOCK)
    with pytest.raises(BackboneError, match="FirstBlockCache"), steer(pipe, vectors, "man", alpha=1.0):
        pytest.fail("the context must not be entered")


def test_a_cache_enabled_inside_the_context_is_refused_before_the_run(cached: Any, flux: Any) -> None:
    with pytest.raises(BackboneError, match="FirstBlockCache"), hooked(attach(flux), [LAYER], add_one, reused=True):
        make(cached(FIRST_BLOCK))


def test_an_interrupted_run_leaves_nothing_in_a_cache(cached: Any) -> None:
    pipe = cached(BROADCAST)
    plain = make(pipe)

    def failing(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        if clock.step == 2:
            raise RuntimeError("in the middle")
        return tokens + 1

    with (
        pytest.raises(RuntimeError, match="in the middle"),
        hooked(attach(pipe), [LAYER], failing, reused=True),
    ):
        make(pipe)
    assert torch.equal(make(pipe), plain)


def test_kept_keys_and_values_of_the_text_change_neither_shift_nor_recording() -> None:
    tiny = TINY["nucleus_image"]
    pipe = build_tiny(tiny)
    backbone, made = attach(pipe), list[tuple[Tensor, Tensor]]()
    layer = backbone.layers[-1]
    for is_cached in (False, True):
        recorder = Recorder([0, 1])
        if is_cached:
            pipe.transformer.enable_cache(diffusers.TextKVCacheConfig())
        with torch.no_grad(), hooked(backbone, [layer], recorder), hooked(backbone, [layer], add_one):
            made.append((make_tiny(tiny, pipe), recorder.recording().activations[layer]))
    torch.testing.assert_close(made[1], made[0])


def test_a_cache_applied_without_the_model_knowing_is_found(flux: Any) -> None:
    with ExitStack() as stack:
        stack.callback(_remove_hooks, flux.transformer)
        apply_first_block_cache(flux.transformer, FIRST_BLOCK)
        with pytest.raises(BackboneError, match="fbc_leader_block_hook"), record(flux):
            pytest.fail("the context must not be entered")
    with ExitStack() as stack:
        stack.callback(_remove_hooks, flux.transformer)
        apply_pyramid_attention_broadcast(flux.transformer, BROADCAST)
        with hooked(attach(flux), [LAYER], add_one, reused=True):
            make(flux)


def _remove_hooks(denoiser: nn.Module) -> None:
    for module in denoiser.modules():
        registry: Any = getattr(module, "_diffusers_hook", None)
        for name in list(registry.hooks) if registry else ():
            registry.remove_hook(name, recurse=False)


def _by_deepcache(*args: Any, **kwargs: Any) -> None:
    raise AssertionError


_by_deepcache.__module__ = "DeepCache.extension.deepcache"


@pytest.mark.parametrize(
    ("place", "mark", "value", "name"),
    [
        ("transformer_blocks.0", "forward", _by_deepcache, "DeepCache"),
        ("", "_is_cached", True, "cache-dit"),
        ("", "enable_teacache", True, "TeaCache"),
    ],
)
def test_caches_of_other_libraries_are_known_by_their_marks(
    flux: Any, monkeypatch: pytest.MonkeyPatch, place: str, mark: str, value: Any, name: str
) -> None:
    monkeypatch.setattr(flux.transformer.get_submodule(place), mark, value, raising=False)
    with pytest.raises(BackboneError, match=f"{name} is enabled"), record(flux):
        pytest.fail("the context must not be entered")


def test_a_layer_skipped_in_one_step_by_what_nobody_knows_is_an_error(flux: Any) -> None:
    block, calls = flux.transformer.single_transformer_blocks[1], list[int]()
    forward = block.forward

    def skipping(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return (
            (kwargs["encoder_hidden_states"], kwargs["hidden_states"]) if len(calls) == 3 else forward(*args, **kwargs)
        )

    try:
        block.forward = skipping
        with pytest.raises(BackboneError, match=f"did not run in step 2 .*{LAYER}"), record(flux, layers=[LAYER]):
            make(flux)
    finally:
        del block.forward
