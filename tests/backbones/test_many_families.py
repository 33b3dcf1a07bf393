"""The families whose pipelines are tested as a denoiser and a scheduler: the same promises as for the others.

Which rows of a call are conditional is measured, not written down: they are those whose outputs change with the prompt
alone. Which tokens are the image's follows from their number and, at the last layer, from what the result depends on.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError, Site
from icm_pipeline.backbones.modules import walk
from icm_pipeline.backbones.registry import attach
from icm_pipeline.hooks.clock import PREPARE, StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.hooks.rows import Rows
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.denoisers import LENGTH, TINY, build, make
from tests.helpers.hooks import look, num_hooks

NUM_IMAGES = 4  # two of each of two prompts
NUM_STEPS = 2
Outputs = dict[str, list[Any]]


@dataclass(frozen=True)
class Subject:
    """A tiny pipeline and its undisturbed run."""

    name: str
    backbone: Backbone
    plain: Tensor
    outputs: Outputs
    """By layer, of every call."""
    other_prompt: Outputs
    by_prompt: list[list[int]] = field(default_factory=list)
    """The rows of each call of the first step that change with the prompt."""


@pytest.fixture(scope="module", params=TINY)
def subject(request: pytest.FixtureRequest) -> Subject:
    return subject_of(request.param)


@cache
def subject_of(name: str) -> Subject:
    try:
        pipe = build(TINY[name])
    except ImportError as error:
        pytest.skip(str(error).strip().splitlines()[0])
    backbone = attach(pipe)
    with kept(backbone) as outputs:
        plain = run(name, backbone)
    with kept(backbone) as other_prompt:
        run(name, backbone, prompts=("a cat", "a hat"))
    last = backbone.layers[-1]
    calls = list(zip(outputs[last], other_prompt[last], strict=True))
    rows = [changed_rows(*pair) for pair in calls[: len(calls) // NUM_STEPS]]
    if TINY[name].perturbed:
        rows = [each[:NUM_IMAGES] for each in rows]
    return Subject(name, backbone, plain, outputs, other_prompt, rows)


def run(name: str, backbone: Backbone, **changes: Any) -> Tensor:
    with torch.no_grad():
        return make(TINY[name], backbone.pipe, num_steps=NUM_STEPS, **changes)


@contextmanager
def kept(backbone: Backbone) -> Iterator[Outputs]:
    """Keep copies of every site's whole outputs while the context lasts."""
    outputs: Outputs = {layer: [] for layer in backbone.layers}

    def keeping(layer: str) -> Callable[..., None]:
        return lambda module, args, output: outputs[layer].append(copied(output))

    handles = [backbone.denoiser.get_submodule(layer).register_forward_hook(keeping(layer)) for layer in outputs]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def shown(backbone: Backbone, layers: list[str], hook: Any) -> Any:
    """Enter `hooked`; a pipeline that prepares latents in its call itself does not tell how many images it makes."""
    tells = any(hasattr(backbone.pipe, name) for name in PREPARE)
    return hooked(backbone, layers, hook, None if tells else NUM_IMAGES)


def copied(output: Any) -> Any:
    return tuple(map(copied, output)) if isinstance(output, tuple) else None if output is None else output.clone()


def parts(output: Any) -> list[Tensor]:
    return [part for part in output if part is not None] if isinstance(output, tuple) else [output]


def changed_rows(old: Any, new: Any) -> list[int]:
    return [
        row
        for row in range(len(parts(old)[0]))
        if any(not torch.equal(a[row], b[row]) for a, b in zip(parts(old), parts(new), strict=True))
    ]


def directions_of(subject: Subject) -> SteeringVectors:
    """Return random directions for two options of every layer, at every step."""
    recorder, backbone = Recorder(list(range(NUM_STEPS))), subject.backbone
    with shown(backbone, backbone.layers, recorder):
        run(subject.name, backbone)
    recording, generator = recorder.recording(), torch.Generator().manual_seed(0)
    return SteeringVectors(
        directions={
            layer: torch.randn(NUM_STEPS, 2, x.shape[-1], generator=generator)
            for layer, x in recording.activations.items()
        },
        mean_norms={layer: x.norm(dim=-1).mean(0) for layer, x in recording.activations.items()},
        steps=tuple(recording.steps), noise_levels=tuple(recording.noise_levels), options=("a", "b"), model="tiny",
        attribute="letter",
    )  # fmt: skip


def test_looking_and_alpha_zero_change_nothing_bitwise(subject: Subject) -> None:
    backbone, vectors = subject.backbone, directions_of(subject)
    with (
        shown(backbone, backbone.layers, look) as clock,
        shown(backbone, backbone.layers, Shift(vectors, [0, 1, 0, 1], Strength(0.0))),
    ):
        assert torch.equal(run(subject.name, backbone), subject.plain)
    assert len(clock.ran) == NUM_STEPS
    assert num_hooks(backbone) == 0
    assert torch.equal(run(subject.name, backbone), subject.plain)


def test_a_shift_touches_exactly_the_image_tokens_of_the_rows_that_follow_the_prompt(subject: Subject) -> None:
    backbone, options = subject.backbone, [0, 1, 1, 0]
    vectors = directions_of(subject)
    shift = Shift(vectors, options, Strength(1.5))
    with kept(backbone) as before, shown(backbone, backbone.layers, shift), kept(backbone) as after:
        run(subject.name, backbone)
    calls_a_step = len(subject.by_prompt)
    for layer in backbone.layers:
        num_seen = []
        for call, (old, new) in enumerate(zip(before[layer], after[layer], strict=True)):
            step, place = divmod(call, calls_a_step)
            assert changed_rows(old, new) == subject.by_prompt[place], (layer, call)
            moved = next((b for a, b in zip(parts(old), parts(new), strict=True) if not torch.equal(a, b)), None)
            if moved is None:
                continue
            expected = 1.5 * vectors.directions[layer][step, options]
            places = moved_places(old, new)
            for image, row in enumerate(subject.by_prompt[place]):
                mine = places[row]
                num_seen.append(len(mine))
                assert all(torch.equal(b, a + expected[image]) for a, b in mine)
        assert set(num_seen) == {num_image_tokens(subject, layer)}


def moved_places(old: Any, new: Any) -> list[list[tuple[Tensor, Tensor]]]:
    """Return the tokens that differ, old and new, by row."""
    rows: list[list[tuple[Tensor, Tensor]]] = [[] for _ in parts(old)[0]]
    for before, after in zip(parts(old), parts(new), strict=True):
        a, b = (x.flatten(2).transpose(1, 2) if x.dim() == 4 else x for x in (before, after))
        for row, place in (a != b).any(-1).nonzero().tolist():
            rows[row].append((a[row, place], b[row, place]))
    return rows


def num_image_tokens(subject: Subject, layer: str) -> int:
    """Return how many tokens a layer has for the image: as the latents are cut; of a UNet, as many as the layer has."""
    output = parts(subject.outputs[layer][0])[0]
    if "UNet" in type(subject.backbone.denoiser).__name__:
        return output[0, 0].numel() if output.dim() == 4 else output.shape[1]
    return TINY[subject.name].num_image_tokens


def test_at_the_last_layer_the_result_depends_on_no_other_token(subject: Subject) -> None:
    """Whatever stands in a conditional row beside the image's tokens is thrown away behind the last layer."""
    backbone, layer, results = subject.backbone, subject.backbone.layers[-1], list[Tensor]()

    def more(part: Tensor) -> Tensor:
        return part + (ramp(part.shape[1])[:, None, None] if part.dim() == 4 else ramp(part.shape[-1]))

    def everywhere(module: Any, args: Any, output: Any) -> Any:
        return tuple(map(more, output)) if isinstance(output, tuple) else more(output)

    def back(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        return tokens - ramp(tokens.shape[-1])

    def keep(module: Any, args: Any, output: Any) -> None:
        results.append(output[0])

    with ExitStack() as stack:
        stack.callback(backbone.denoiser.register_forward_hook(keep).remove)
        run(subject.name, backbone)
        plain = results[0]
        results.clear()
        stack.callback(backbone.denoiser.get_submodule(layer).register_forward_hook(everywhere).remove)
        run(subject.name, backbone)
        assert not torch.allclose(results[0], plain, rtol=1e-3)
        results.clear()
        stack.enter_context(shown(backbone, [layer], back))
        run(subject.name, backbone)
    found, true = (result[subject.by_prompt[0]] for result in (results[0], plain))
    if found.dim() == 3:  # behind the image's tokens come those of reference pictures
        found, true = (part[:, : TINY[subject.name].num_image_tokens] for part in (found, true))
    torch.testing.assert_close(found, true, rtol=1e-3, atol=1e-4)


def ramp(width: int) -> Tensor:
    """Return what no norm takes away, other than a constant."""
    return torch.linspace(-1, 1, width)


def test_without_guidance_every_row_is_conditional(subject: Subject) -> None:
    shapes: list[int] = []

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        shapes.append(len(tokens))

    with kept(subject.backbone) as outputs, shown(subject.backbone, subject.backbone.layers[:1], note):
        run(subject.name, subject.backbone, guided=False)
    assert shapes == [NUM_IMAGES] * NUM_STEPS
    assert len(outputs[subject.backbone.layers[0]]) == NUM_STEPS


def test_the_timestep_of_every_call_tells_the_step(subject: Subject) -> None:
    """A run that begins midway is placed by it."""
    backbone, places = subject.backbone, list[tuple[int, int]]()

    def tell(module: Any, args: Any, kwargs: Any) -> None:
        inputs = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        places.append((clock.place_of(backbone.family.timestep(backbone.pipe, inputs)), clock.place))

    with shown(backbone, backbone.layers[:1], look) as clock:
        handle = backbone.denoiser.register_forward_pre_hook(tell, with_kwargs=True)
        run(subject.name, backbone)
        handle.remove()
    assert places and all(told == true for told, true in places)


def test_modules_that_give_text_are_refused_by_name(subject: Subject) -> None:
    backbone = subject.backbone
    shapes: dict[str, torch.Size] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(module: Any, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 3:
                shapes[name] = output.shape

        return note

    handles = [module.register_forward_hook(noting(name)) for name, module in walk(backbone.denoiser) if name]
    run(subject.name, backbone)
    for handle in handles:
        handle.remove()
    assert [name for name, shape in shapes.items() if shape[1] == LENGTH and not is_refused(backbone, name)] == []
    image = [name for name, shape in shapes.items() if shape[1] == TINY[subject.name].num_image_tokens]
    assert [name for name in image if is_refused(backbone, name)] == []


def is_refused(backbone: Backbone, name: str) -> bool:
    try:
        backbone.with_layers([name])
    except BackboneError as error:
        assert f"{name} gives text tokens" in str(error)
        return True
    return False


def test_rows_cut_out_of_a_call_give_what_they_gave_in_it(subject: Subject) -> None:
    """As `look=` rewinds some images of a batch alone."""
    backbone, compared = subject.backbone, list[tuple[Tensor, Tensor]]()

    def again(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        handle.remove()
        given = inspect.signature(module.forward).bind(*args, **kwargs)
        num_rows = backbone.family.describe(backbone.pipe, args, kwargs).num_rows
        rows = Rows.of([1, 2], NUM_IMAGES, num_rows, torch.device("cpu"))
        given.arguments.update(rows.cut(given.arguments, backbone.family))
        compared.append((module(*given.args, **given.kwargs)[0], output[0][rows.numbers]))

    handle = backbone.denoiser.register_forward_hook(again, with_kwargs=True)
    run(subject.name, backbone)
    for part, whole in compared:
        torch.testing.assert_close(part, whole)
    assert compared


def test_texts_of_unequal_length_leave_the_image_where_each_row_has_it() -> None:
    """Lumina 2 puts each row's image directly behind as many text tokens as that row has."""
    tiny, subject = TINY["lumina2"], subject_of("lumina2")
    backbone, mask = subject.backbone, torch.ones(NUM_IMAGES, LENGTH, dtype=torch.bool)
    mask[0, 4:] = mask[2, 1:] = False
    layer, num_tokens = backbone.layers[0], tiny.num_image_tokens

    def add_one(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        assert tokens.shape[1] == num_tokens
        return tokens + 1

    with kept(backbone) as before, hooked(backbone, [layer], add_one), kept(backbone) as after, torch.no_grad():
        make(tiny, backbone.pipe, prompt_attention_mask=mask)
    old, new = before[layer][0], after[layer][0]
    for row, start in enumerate(mask.sum(1).tolist()):
        assert torch.equal(new[row, start : start + num_tokens], old[row, start : start + num_tokens] + 1)
        assert torch.equal(new[row, :start], old[row, :start])
        assert torch.equal(new[row, start + num_tokens :], old[row, start + num_tokens :])
