"""Every family, on its own pipeline with random weights: who is conditional, which tokens are the image's, what is left
alone."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError, Sampling, Site
from icm_pipeline.backbones.sites import find_sites
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.jobs import JOBS
from tests.helpers.models import load
from tests.helpers.pipelines import BUILDERS, build
from tests.helpers.tiny import filled

NUM_STEPS = 3
SIZES = {"sana": 32, "flux": 16, "z_image": 16}  # pixels; the others' own size is 16
GATED = {"sana", "flux", "sd3", "pixart"}


@dataclass(frozen=True)
class Loaded:
    name: str
    folder: Path
    backbone: Backbone

    @cached_property
    def plain(self) -> Tensor:
        """The undisturbed latents of the jobs."""
        return denoise(self.backbone, JOBS)

    @cached_property
    def vectors(self) -> SteeringVectors:
        return vectors_of(self.backbone, JOBS, self.backbone.layers)


COMPILED_QUICKLY = ("flux", "pixart")  # a tuple of rows without guidance, a tensor of rows with it


@pytest.fixture(scope="module", params=BUILDERS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name, folder = request.param, tmp_path_factory.mktemp("pipeline")
    build(name).save_pretrained(folder)
    size = SIZES.get(name)
    return Loaded(name, folder, load(folder, size, num_steps=NUM_STEPS))


@pytest.fixture(scope="module")
def backbone(loaded: Loaded) -> Backbone:
    return loaded.backbone


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * float(b.abs().max()))


def sampling(backbone: Backbone, **changes: Any) -> Backbone:
    assert isinstance(backbone.sampling, Sampling)
    return replace(backbone, sampling=replace(backbone.sampling, **changes))


def look(tokens: Tensor, site: Site, clock: StepClock) -> None:
    return None


def conditional_image_tokens(name: str, layer: str, output: Any, n: int) -> Tensor:
    """Return them [n, s, d] by what is known of each architecture, written down without the code under test."""
    if name in ("flux", "sd3") and isinstance(output, tuple):
        output = output[0]
    rows = {"flux": slice(0, n), "z_image": slice(0, n), "pag": slice(n, 2 * n)}.get(name, slice(n, 2 * n))
    part: Tensor = output[rows]
    if part.dim() == 4:
        part = part.permute(0, 2, 3, 1).reshape(n, -1, part.shape[1])
    if name == "flux" and layer.startswith("single"):
        part = part[:, -16:]
    if name == "z_image":
        part = part[:, :16]
    return part


def outputs_of(backbone: Backbone, jobs: list[Job]) -> dict[str, list[Any]]:
    """Return every site's whole outputs, one per call."""
    outputs: dict[str, list[Any]] = {layer: [] for layer in backbone.layers}

    def keep(layer: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            outputs[layer].append(output)

        return hook

    handles = [backbone.denoiser.get_submodule(layer).register_forward_hook(keep(layer)) for layer in outputs]
    try:
        denoise(backbone, jobs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def vectors_of(backbone: Backbone, jobs: list[Job], layers: list[str]) -> SteeringVectors:
    """Return random unit directions for two options of some layers, at every step."""
    recorder = Recorder(list(range(NUM_STEPS)))
    with hooked(backbone, layers, recorder, 1):
        denoise(backbone, jobs[:1])
    recording, generator = recorder.recording(), torch.Generator().manual_seed(0)
    drawn = {
        layer: torch.randn(NUM_STEPS, 2, x.shape[-1], generator=generator) for layer, x in recording.activations.items()
    }
    return SteeringVectors(
        directions={layer: torch.nn.functional.normalize(x, dim=-1) for layer, x in drawn.items()},
        mean_norms={layer: x.norm(dim=-1).mean(0) for layer, x in recording.activations.items()},
        steps=tuple(recording.steps), noise_levels=tuple(recording.noise_levels), options=("a", "b"),
        model=backbone.name, attribute="letter",
    )  # fmt: skip


def test_looking_changes_nothing_bitwise(loaded: Loaded, jobs: list[Job]) -> None:
    plain, backbone = loaded.plain, loaded.backbone
    with hooked(backbone, backbone.layers, look, len(jobs)) as clock:
        assert torch.equal(denoise(backbone, jobs), plain)
    assert clock.num_calls == clock.num_steps == NUM_STEPS


def test_recording_equals_a_slow_reference(loaded: Loaded, jobs: list[Job]) -> None:
    recorder = Recorder(list(range(NUM_STEPS)))
    with hooked(loaded.backbone, loaded.backbone.layers, recorder, len(jobs)):
        denoise(loaded.backbone, jobs)
    recorded = recorder.recording().activations
    for layer, outputs in outputs_of(loaded.backbone, jobs).items():
        for step, output in enumerate(outputs):
            tokens = conditional_image_tokens(loaded.name, layer, output, len(jobs)).double()
            close(recorded[layer][:, step].double(), torch.stack([sum(image) / len(image) for image in tokens]))


def test_a_whole_block_is_read_and_changed_where_its_image_tokens_are(loaded: Loaded, jobs: list[Job]) -> None:
    plain, n = loaded.backbone, len(jobs)
    blocks = find_sites(plain.denoiser, {"block": r"(.*\.)?(single_)?transformer_blocks\.\d+|layers\.\d+"})
    first_attention = next(site for site in plain.sites if site.kind == "self_attention")
    backbone = replace(plain, sites=(*blocks, first_attention))
    changed, outputs = blocks[0].layer, outputs_of(replace(plain, sites=blocks), jobs)
    recorder, num_tokens = Recorder(list(range(NUM_STEPS))), set[int]()

    def count(tokens: Tensor, site: Site, clock: StepClock) -> None:
        num_tokens.add(tokens.shape[1])

    with hooked(backbone, [first_attention.layer, changed], count, n):
        denoise(backbone, jobs)
    assert len(num_tokens) == 1
    with hooked(backbone, [site.layer for site in blocks], recorder, n):
        denoise(backbone, jobs)
    for layer, recorded in recorder.recording().activations.items():
        for step, output in enumerate(outputs[layer]):
            image = output[1] if isinstance(output, tuple) else output  # (text, image)
            rows = slice(0, n) if loaded.name in ("flux", "z_image") else slice(n, 2 * n)
            close(recorded[:, step], image[rows, :16].mean(1) if loaded.name == "z_image" else image[rows].mean(1))

    def add_one(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        return tokens + 1

    with hooked(backbone, [changed], add_one, n):
        moved = outputs_of(replace(plain, sites=blocks[:1]), jobs)[changed][0]
    before = outputs[changed][0]
    rows = slice(0, n) if loaded.name in ("flux", "z_image") else slice(n, 2 * n)
    if isinstance(before, tuple):
        assert torch.equal(moved[0], before[0])  # the text
        assert torch.equal(moved[1][rows], before[1][rows] + 1)
    else:
        length = 16 if loaded.name == "z_image" else before.shape[1]
        assert torch.equal(moved[rows, :length], before[rows, :length] + 1)
        assert torch.equal(moved[rows, length:], before[rows, length:])


def test_the_conditional_rows_depend_on_the_prompt_and_no_others_do(loaded: Loaded, jobs: list[Job]) -> None:
    """At the first step, where all else is equal, another prompt must change what is recorded, and nothing less."""

    backbone = sampling(loaded.backbone, num_steps=1)

    def first_step(prompt: str) -> Tensor:
        recorder = Recorder([0])
        with hooked(backbone, backbone.layers, recorder, 1):
            denoise(backbone, [replace(jobs[0], prompt=prompt)])
        return list(recorder.recording().activations.values())[-1]

    plain = first_step("a face")
    assert torch.equal(first_step("a face"), plain)
    assert not torch.equal(first_step("a dog"), plain)


def test_alpha_zero_changes_nothing_bitwise(loaded: Loaded, jobs: list[Job]) -> None:
    plain, vectors, backbone = loaded.plain, loaded.vectors, loaded.backbone
    with hooked(backbone, backbone.layers, Shift(vectors, [0, 1, 0, 1], Strength(0.0)), len(jobs)):
        assert torch.equal(denoise(backbone, jobs), plain)


def test_a_shift_touches_exactly_the_conditional_image_tokens(loaded: Loaded, jobs: list[Job]) -> None:
    backbone, options, vectors = loaded.backbone, [0, 1, 1, 0], loaded.vectors
    before: dict[str, list[Any]] = {layer: [] for layer in backbone.layers}
    after: dict[str, list[Any]] = {layer: [] for layer in backbone.layers}

    def kept_in(outputs: list[Any]) -> Any:
        return lambda module, args, output: outputs.append(output)

    with ExitStack() as stack:
        for layer, outputs in before.items():
            module = backbone.denoiser.get_submodule(layer)
            stack.callback(module.register_forward_hook(kept_in(outputs)).remove)
        stack.enter_context(hooked(backbone, backbone.layers, Shift(vectors, options, Strength(1.5)), len(jobs)))
        for layer, outputs in after.items():
            module = backbone.denoiser.get_submodule(layer)
            stack.callback(module.register_forward_hook(kept_in(outputs)).remove)
        denoise(backbone, jobs)
    for layer in backbone.layers:
        for step, (old, new) in enumerate(zip(before[layer], after[layer], strict=True)):
            expected = 1.5 * vectors.directions[layer][step, options][:, None, :]
            old_part = conditional_image_tokens(loaded.name, layer, old, len(jobs))
            new_part = conditional_image_tokens(loaded.name, layer, new, len(jobs))
            assert torch.equal(new_part, old_part + expected)
            assert num_changed(old, new) <= old_part.numel()
            assert num_changed(old, new) == int((new_part != old_part).sum())


def num_changed(old: Any, new: Any) -> int:
    pairs = list(zip(old, new, strict=True)) if isinstance(old, tuple) else [(old, new)]
    return sum(int((a != b).sum()) for a, b in pairs if a is not None)


def test_every_layer_has_an_effect(loaded: Loaded, jobs: list[Job]) -> None:
    vectors, short = loaded.vectors, sampling(loaded.backbone, num_steps=1)
    plain = denoise(short, jobs[:1])
    for layer in short.layers:
        with hooked(short, [layer], Shift(vectors, [0], Strength(5.0, "relative")), 1):
            assert not torch.equal(denoise(short, jobs[:1]), plain), layer


def test_nothing_stays_behind_after_an_exception(backbone: Backbone, jobs: list[Job]) -> None:
    plain = denoise(backbone, jobs[:1])

    def failing(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        if clock.step == 1:
            raise RuntimeError("in the middle")
        return tokens + 1

    with pytest.raises(RuntimeError, match="in the middle"), hooked(backbone, backbone.layers, failing, 1):
        denoise(backbone, jobs[:1])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.denoiser.modules())
    assert not {"step", "set_timesteps"} & vars(backbone.pipe.scheduler).keys()
    assert "prepare_latents" not in vars(backbone.pipe)
    assert torch.equal(denoise(backbone, jobs[:1]), plain)


def test_a_batch_of_four_equals_four_batches_of_one(loaded: Loaded, jobs: list[Job]) -> None:
    backbone, vectors, options = loaded.backbone, loaded.vectors, [0, 1, 1, 0]
    with hooked(backbone, backbone.layers, Shift(vectors, options, Strength(0.5)), len(jobs)):
        together = denoise(backbone, jobs)
    alone = []
    for job, option in zip(jobs, options, strict=True):
        with hooked(backbone, backbone.layers, Shift(vectors, [option], Strength(0.5)), 1):
            alone.append(denoise(backbone, [job]))
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-4 * float(together.abs().max()))


def test_without_guidance_every_row_is_conditional(backbone: Backbone, jobs: list[Job]) -> None:
    shapes: list[int] = []

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        shapes.append(len(tokens))

    with hooked(backbone, backbone.layers[:1], note, len(jobs)):
        denoise(sampling(backbone, guidance_scale=0.0), jobs)
    assert shapes == [len(jobs)] * NUM_STEPS


def test_decoding_gives_pictures_of_the_size_asked_for(loaded: Loaded, jobs: list[Job]) -> None:
    samples = decode(loaded.backbone, jobs, loaded.plain)
    assert {sample.image.size for sample in samples} == {(SIZES.get(loaded.name, 16),) * 2}


def test_what_is_decoded_is_what_the_pipeline_would_have_made(backbone: Backbone, jobs: list[Job]) -> None:
    """Against the pipeline's own end: the same noise, its own decoding."""
    settings, family, job = backbone.sampling, backbone.family, jobs[0]
    assert settings is not None
    ours = decode(backbone, [job], denoise(backbone, [job]))[0].image
    shape = family.latent_shape(backbone.pipe, settings.height, settings.width)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(job.seed))[None]
    theirs = backbone.pipe(
        prompt=[job.prompt], latents=family.pack(backbone.pipe, noise), num_inference_steps=NUM_STEPS,
        guidance_scale=settings.guidance_scale, height=settings.height, width=settings.width,
        generator=[torch.Generator().manual_seed(0)], **settings.options,
    ).images[0]  # fmt: skip
    assert ours.tobytes() == theirs.tobytes()


def test_a_gated_site_shows_the_output_times_its_gate_and_a_change_arrives_behind_it(
    loaded: Loaded, jobs: list[Job]
) -> None:
    if loaded.name not in GATED:
        pytest.skip("no AdaLN gate")
    plain = loaded.backbone
    pattern = r"transformer_blocks\.0\.attn1?"
    sites = find_sites(plain.denoiser, {"self_attention": pattern, "gated_self_attention": pattern})
    backbone = replace(plain, sites=sites)
    inner, gated = (next(site.layer for site in sites if site.gated is wanted) for wanted in (False, True))
    seen: dict[str, Tensor] = {}

    def keep(tokens: Tensor, site: Site, clock: StepClock) -> None:
        if clock.step == 0:
            seen[site.layer] = tokens.clone()

    with hooked(backbone, [inner, gated], keep, len(jobs)):
        denoise(backbone, jobs)
    ratio = seen[gated] / seen[inner]
    gate = ratio.nanmedian(dim=1, keepdim=True).values  # one number per image and channel
    torch.testing.assert_close(seen[gated], seen[inner] * gate, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(gate, torch.ones_like(gate))

    change = torch.randn(seen[gated].shape[-1], generator=torch.Generator().manual_seed(0))
    moved = residuals(loaded.name, backbone, jobs, gated, change) - residuals(loaded.name, backbone, jobs, gated, None)
    torch.testing.assert_close(moved, change.expand_as(moved), rtol=1e-3, atol=1e-3)


GATED_ELSEWHERE = {
    "flux": [("gated_feed_forward", "ff")],
    "sana": [("gated_feed_forward", "ff")],
    "pixart": [("gated_feed_forward", "ff")],
    "sd3": [("gated_feed_forward", "ff"), ("gated_self_attention", "attn2")],
}


def test_every_other_gate_of_a_block_is_its_layers_own(loaded: Loaded, jobs: list[Job]) -> None:
    """What is added behind the gate of the feed-forward, or of SD3's second attention, leaves the block as it is."""
    if loaded.name not in GATED:
        pytest.skip("no AdaLN gate")
    plain, block, n = loaded.backbone, "transformer_blocks.0", len(jobs)
    for kind, part in GATED_ELSEWHERE[loaded.name]:
        sites = find_sites(plain.denoiser, {kind: rf"transformer_blocks\.0\.{part}"})
        backbone = replace(plain, sites=sites)
        # Behind the feed-forward the block ends; behind the second attention comes the norm before the feed-forward.
        place, is_input = (block, False) if part == "ff" else (f"{block}.norm2", True)
        seen: dict[bool, Tensor] = {}

        def add(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
            return tokens + torch.linspace(-1, 1, tokens.shape[-1])

        for changed in (False, True):
            kept: list[Tensor] = []
            module = backbone.denoiser.get_submodule(place)

            def keep(module: Any, args: Any, output: Any, kept: list[Tensor] = kept, inner: bool = is_input) -> None:
                image = args[0] if inner else output[1] if isinstance(output, tuple) else output
                kept.append(image.clone())

            handle = module.register_forward_hook(keep)
            with hooked(backbone, backbone.layers, add if changed else look, n):
                denoise(backbone, jobs)
            handle.remove()
            seen[changed] = kept[0] if loaded.name == "flux" else kept[0][n:]
        moved = seen[True] - seen[False]
        torch.testing.assert_close(moved, torch.linspace(-1, 1, moved.shape[-1]).expand_as(moved), rtol=1e-3, atol=1e-3)


def residuals(name: str, backbone: Backbone, jobs: list[Job], layer: str, change: Tensor | None) -> Tensor:
    """Return the stream behind the first block's attention, at the first step, of the conditional rows.

    It is what the norm before the feed-forward is given (FLUX, SD3), or the cross-attention (SANA, PixArt).
    """
    kept: list[Tensor] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        kept.append(args[0] if args else kwargs["hidden_states"])

    def add(tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        return None if change is None else tokens + change

    first = backbone.denoiser.get_submodule("transformer_blocks.0")
    handle = (first.norm2 if name == "flux" else first.attn2).register_forward_pre_hook(keep, with_kwargs=True)
    if name == "sd3":  # its first block has a second attention; the norm comes behind both
        handle.remove()
        handle = first.norm2.register_forward_pre_hook(keep, with_kwargs=True)
    with hooked(backbone, [layer], add, len(jobs)):
        denoise(backbone, jobs)
    handle.remove()
    return kept[0] if name == "flux" else kept[0][len(jobs) :]


def test_a_family_without_gates_says_so(loaded: Loaded, jobs: list[Job]) -> None:
    if loaded.name in GATED:
        pytest.skip("has gates")
    patterns = {"gated_self_attention": loaded.backbone.family.sites["self_attention"]}
    backbone = replace(loaded.backbone, sites=find_sites(loaded.backbone.denoiser, patterns))
    with pytest.raises(BackboneError, match="no gate"), hooked(backbone, backbone.layers[:1], look, 1):
        pytest.fail("the context must not be entered")


def test_a_layer_without_a_gate_in_a_family_with_gates_is_refused_by_name(loaded: Loaded) -> None:
    ungated = {
        "flux": r"single_transformer_blocks\.0\.attn",
        "sana": r"transformer_blocks\.0\.attn2",
        "pixart": r"transformer_blocks\.0\.attn2",
    }
    if loaded.name not in ungated:
        pytest.skip("gates behind every layer, or none")
    sites = find_sites(loaded.backbone.denoiser, {"gated_self_attention": ungated[loaded.name]})
    backbone = replace(loaded.backbone, sites=sites)
    refused = pytest.raises(BackboneError, match=rf"{sites[0].module}.* the layer itself")
    with refused, hooked(backbone, backbone.layers, look, 1):
        pytest.fail("the context must not be entered")


@dataclass(frozen=True)
class Compiled:
    """A backbone with one block of each kind, eager and compiled: every block takes its time."""

    eager: Backbone
    backbone: Backbone


@pytest.fixture(scope="module")
def compiled(loaded: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiled]:
    folder, pipe = tmp_path_factory.mktemp("compiled"), build(loaded.name)
    if (transformer := getattr(pipe, "transformer", None)) is not None:
        one = {name: 1 for name in ("num_layers", "num_single_layers", "n_layers") if name in transformer.config}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pipe.transformer = filled(type(transformer).from_config({**transformer.config, **one}))
    pipe.save_pretrained(folder)
    settings = {"size": SIZES.get(loaded.name), "num_steps": NUM_STEPS}
    with pytest.MonkeyPatch.context() as patch:  # the graphs are those of the default backend, run without a C compiler
        compile_model = torch.compile
        patch.setattr(torch, "compile", lambda model: compile_model(model, backend="eager"))
        yield Compiled(load(folder, **settings), load(folder, compile=True, **settings))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "loaded",
    [name if name in COMPILED_QUICKLY else pytest.param(name, marks=pytest.mark.slow) for name in BUILDERS],
    indirect=True,
)
def test_a_compiled_denoiser_is_steered_as_an_eager_one(compiled: Compiled, jobs: list[Job]) -> None:
    two, options, eager, backbone = jobs[:2], [1, 0], compiled.eager, compiled.backbone
    layers = [site.layer for site in eager.sites if site.kind == "self_attention"][:2]
    vectors = vectors_of(eager, jobs, layers)
    plain = denoise(backbone, two)
    close(plain, denoise(eager, two))
    for alpha in (1.0, 2.0):
        with hooked(eager, layers, Shift(vectors, options, Strength(alpha, "relative")), 2):
            expected = denoise(eager, two)
        with hooked(backbone, layers, Shift(vectors, options, Strength(alpha, "relative")), 2):
            found = denoise(backbone, two)
        close(found, expected)
        assert not torch.allclose(found, plain)
    close(denoise(backbone, two), plain)


@pytest.mark.parametrize(
    "loaded",
    [name if name == "flux" else pytest.param(name, marks=pytest.mark.slow) for name in BUILDERS],
    indirect=True,
)
def test_contexts_around_a_compiled_denoiser_can_be_nested(compiled: Compiled, jobs: list[Job]) -> None:
    two, backbone, layer = jobs[:2], compiled.backbone, compiled.backbone.layers[0]
    vectors = vectors_of(compiled.eager, jobs, [layer])
    recorder = Recorder(list(range(NUM_STEPS)))
    with hooked(backbone, [layer], recorder, 2), hooked(backbone, [layer], Shift(vectors, [1, 0], Strength(1.0)), 2):
        denoise(backbone, two)
    assert recorder.recording().activations[layer].shape[:2] == (2, NUM_STEPS)


@pytest.mark.parametrize("setting", ["height", "width"])
def test_a_size_the_model_cannot_make_is_refused_with_the_nearest(loaded: Loaded, setting: str) -> None:
    with pytest.raises(BackboneError, match=rf"model\.{setting}=33 .* multiple of \d+\. The nearest are \d+ and \d+"):
        load(loaded.folder, 32, **{setting: 33})


def test_a_layer_of_another_model_is_refused_with_the_layers_there_are(backbone: Backbone) -> None:
    with pytest.raises(BackboneError, match=re.escape(backbone.layers[0])):
        backbone.site("encoder.block.7.attention")


def with_one_added(guided: Backbone, jobs: list[Job]) -> tuple[list[Tensor], list[Tensor], list[int], StepClock]:
    """Add 1 to what a hook sees of the first layer; return its outputs before and after, the rows seen, the clock."""
    layer, num_seen = guided.layers[0], []
    module = guided.denoiser.get_submodule(layer)
    before: list[Tensor] = []
    after: list[Tensor] = []

    def add_one(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        num_seen.append(len(tokens))
        return tokens + 1

    first = module.register_forward_hook(lambda module, args, output: before.append(output[0]))
    with hooked(guided, [layer], add_one, len(jobs)) as clock:
        last = module.register_forward_hook(lambda module, args, output: after.append(output[0]))
        denoise(guided, jobs)
        last.remove()
    first.remove()
    return before, after, num_seen, clock


def test_with_true_guidance_only_the_conditional_call_is_seen_and_changed(loaded: Loaded, jobs: list[Job]) -> None:
    if loaded.name != "flux":
        pytest.skip("guides in one call")
    negative = {"true_cfg_scale": 2.0, "negative_prompt": [""] * len(jobs)}
    before, after, num_seen, clock = with_one_added(sampling(loaded.backbone, options=negative), jobs)
    assert clock.num_calls == 2 * NUM_STEPS
    assert num_seen == [len(jobs)] * NUM_STEPS
    for call, (old, new) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(new, old + 1 if call % 2 == 0 else old)


@pytest.mark.parametrize("guidance_scale", [0.0, 3.0])
def test_perturbed_rows_come_last_and_are_left_alone_with_and_without_guidance(
    loaded: Loaded, jobs: list[Job], guidance_scale: float
) -> None:
    """The perturbed rows are known by the layer whose attention is left out for them: its values go through as is."""
    if loaded.name != "pag":
        pytest.skip("perturbs nothing")
    backbone, n = sampling(loaded.backbone, guidance_scale=guidance_scale), len(jobs)
    layer = next(layer for layer in backbone.layers if layer.startswith("mid_block") and layer.endswith("attn1"))
    module = backbone.denoiser.get_submodule(layer)
    inputs: list[Tensor] = []
    before: list[Tensor] = []
    after: list[Tensor] = []

    def add_one(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        assert len(tokens) == n
        return tokens + 1

    def note(module: Any, args: Any, output: Tensor) -> None:
        inputs.append(args[0].clone())
        before.append(output.clone())

    first = module.register_forward_hook(note)
    with hooked(backbone, [layer], add_one, n):
        last = module.register_forward_hook(lambda module, args, output: after.append(output.clone()))
        denoise(backbone, jobs)
        last.remove()
    first.remove()
    parts = 3 if guidance_scale else 2
    for given, old, new in zip(inputs, before, after, strict=True):
        assert len(old) == parts * n
        with torch.inference_mode():
            through = module.to_out[0](module.to_v(given))
        is_perturbed = [torch.allclose(old[row], through[row], atol=1e-5) for row in range(len(old))]
        assert is_perturbed == [False] * (parts - 1) * n + [True] * n
        changed = [not torch.equal(new[row], old[row]) for row in range(len(old))]
        assert changed == [False] * (parts - 2) * n + [True] * n + [False] * n


def test_skip_layer_guidance_is_left_alone(loaded: Loaded, jobs: list[Job]) -> None:
    """SD3 predicts a second time with layers left out; what is pushed away from is neither seen nor changed."""
    if loaded.name != "sd3":
        pytest.skip("has no skip-layer guidance")
    skipping = {"skip_guidance_layers": [1], "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
    before, after, num_seen, _ = with_one_added(sampling(loaded.backbone, options=skipping), jobs)
    n = len(jobs)
    assert num_seen == [n] * NUM_STEPS
    assert [len(rows) for rows in before] == [2 * n, 2 * n, n, 2 * n, n]  # skipping starts after the first step
    for old, new in zip(before, after, strict=True):
        assert torch.equal(new[:n], old[:n])
        assert torch.equal(new[n:], old[n:] + 1)


def test_no_module_that_gives_text_is_taken_for_the_image(loaded: Loaded, jobs: list[Job]) -> None:
    """Of all modules that give tokens those of the text are refused, whatever their number, and the image's are not."""
    backbone, shapes = loaded.backbone, dict[str, torch.Size]()

    def note(name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 3 and output.shape[1] > 3:
                shapes[name] = output.shape

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in backbone.denoiser.named_modules() if name]
    denoise(sampling(backbone, num_steps=1), jobs[:1])
    for handle in handles:
        handle.remove()
    refused = [name for name in shapes if is_refused(backbone, name)]
    assert refused == [name for name in shapes if is_text(loaded.name, name)]
    assert len(shapes) > len(refused) > 1


def is_refused(backbone: Backbone, name: str) -> bool:
    try:
        backbone.with_layers([name])
    except BackboneError as error:
        assert f"{name} gives text tokens" in str(error)
        return True
    return False


def is_text(family: str, name: str) -> bool:
    """Say it by what is known of each architecture, written down without the code under test."""
    words = name.split(".")
    if family in ("flux", "sd3"):
        return any("context" in word or word.startswith("add_") or "add_out" in word for word in words)
    if family == "z_image":
        return words[0] == "context_refiner"
    return words[0] in ("caption_projection", "caption_norm") or words[-2:] in (["attn2", "to_k"], ["attn2", "to_v"])


def test_a_second_call_that_the_layout_does_not_have_is_refused(loaded: Loaded, jobs: list[Job]) -> None:
    """Every call of the denoiser is made twice before the scheduler steps, the second time with other latents."""
    backbone = sampling(loaded.backbone, num_steps=1)
    forward = type(backbone.denoiser).forward
    with hooked(backbone, backbone.layers[:1], look, 1) as clock:

        def again(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            if clock.num_calls == 1:
                first, others = (args[:1], args[1:]) if args else ((), ())
                given = {k: v.clone() if k == "hidden_states" else v for k, v in kwargs.items()}
                module(*(x.clone() if isinstance(x, Tensor) else list(x) for x in first), *others, **given)

        handle = backbone.denoiser.register_forward_hook(again, with_kwargs=True)
        try:
            with pytest.raises(BackboneError, match=r"ran 2 times in a step, .* one batch or in runs of their own"):
                denoise(backbone, jobs[:1])
        finally:
            handle.remove()
    assert type(backbone.denoiser).forward is forward


def test_a_loop_of_ones_own_needs_no_call_of_the_pipeline_before(loaded: Loaded) -> None:
    """Perturbed attention asks the pipeline whether it is on, and says so where nobody has told."""
    if loaded.name not in ("pag", "sd3"):
        pytest.skip("asks nothing")
    pipe = build(loaded.name)
    backbone = replace(loaded.backbone, pipe=pipe, sites=loaded.backbone.sites)
    n, seen = 3 if loaded.name == "pag" else 2, list[int]()

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        seen.append(len(tokens))

    def run() -> None:
        pipe.scheduler.set_timesteps(2)
        timestep, latents = pipe.scheduler.timesteps[0], torch.zeros(n, 4, 8, 8)
        if loaded.name == "pag":
            pipe.unet(latents, timestep, encoder_hidden_states=torch.zeros(n, 4, 32))
        else:
            pipe.transformer(
                latents, torch.zeros(n, 4, 64), pooled_projections=torch.zeros(n, 64), timestep=timestep.expand(n)
            )

    with torch.no_grad(), hooked(backbone, backbone.layers[:1], note, 1):
        if loaded.name == "pag":
            with pytest.raises(BackboneError, match=r"was never called.* _guidance_scale and _pag_scale"):
                run()
            pipe._guidance_scale, pipe._pag_scale = 3.0, 3.0
        run()
    assert seen == [1]


def test_a_negative_prompt_is_given_to_every_image(loaded: Loaded, jobs: list[Job]) -> None:
    """One text for all, as a setting gives it."""
    more = {"true_cfg_scale": 2.0} if loaded.name == "flux" else {}
    assert loaded.backbone.sampling is not None
    own = loaded.backbone.sampling.options
    one = sampling(loaded.backbone, options={**own, **more, "negative_prompt": "bad"})
    each = sampling(loaded.backbone, options={**own, **more, "negative_prompt": ["bad"] * len(jobs)})
    made = denoise(one, jobs)
    assert torch.equal(made, denoise(each, jobs))
    assert not torch.equal(made, loaded.plain)


def test_a_gated_layer_is_known_by_its_name_alone(loaded: Loaded, jobs: list[Job]) -> None:
    if loaded.name not in GATED:
        pytest.skip("no AdaLN gate")
    layer = next(site.layer for site in loaded.backbone.sites if site.kind == "self_attention") + "@gate"
    backbone, seen = loaded.backbone.with_layers([layer]), list[torch.Size]()

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        seen.append(tokens.shape)

    with hooked(backbone, [layer], note, 1):
        denoise(backbone, jobs[:1])
    assert {shape[:2] for shape in seen} == {(1, 64 if loaded.name == "sana" else 16)}
    with pytest.raises(BackboneError, match=r"No gate is known behind .*\.norm1: use the layer itself"):
        backbone.with_layers(["transformer_blocks.0.norm1@gate"])


def test_reference_tokens_are_refused(loaded: Loaded, jobs: list[Job]) -> None:
    """FLUX Kontext puts those of a reference picture behind the image's own, under an id of theirs."""
    if loaded.name != "flux":
        pytest.skip("has no reference tokens")

    def refer(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids = kwargs["img_ids"]
        reference = torch.cat([torch.ones_like(ids[:, :1]), ids[:, 1:]], dim=1)
        return args, kwargs | {
            "img_ids": torch.cat([ids, reference]), "hidden_states": torch.cat([kwargs["hidden_states"]] * 2, dim=1),
        }  # fmt: skip

    backbone = loaded.backbone
    handle = backbone.denoiser.register_forward_pre_hook(refer, with_kwargs=True)
    try:
        with pytest.raises(BackboneError, match="reference picture"), hooked(backbone, backbone.layers[:1], look, 1):
            denoise(backbone, jobs[:1])
    finally:
        handle.remove()
