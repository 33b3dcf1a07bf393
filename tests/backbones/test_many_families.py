"""The families whose pipelines are tested as a denoiser and a scheduler: the same promises as for the others.

Which rows of a call are conditional is measured, not written down: they are those whose outputs change with the prompt
alone. Which tokens are the image's follows from their number and, at the last layer, from what the result depends on.
"""

import inspect
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError, Site
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.rows import Rows
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.denoisers import TINY
from tests.helpers.hooks import add_one, look, num_hooks
from tests.helpers.subjects import (
    NUM_STEPS,
    Subject,
    changed_rows,
    kept,
    parts,
    result_of,
    run,
    run_first_call,
    shown,
    subject_of,
)
from tests.helpers.tiny import LENGTH, make


@pytest.fixture(scope="module", params=TINY)
def subject(request: pytest.FixtureRequest) -> Subject:
    return subject_of(request.param)


def test_looking_and_alpha_zero_change_nothing_bitwise(subject: Subject) -> None:
    backbone, vectors, options = subject.backbone, subject.vectors, [0, 1, 0, 1][: subject.num_images]
    with (
        shown(subject.name, backbone, backbone.layers, look) as clock,
        shown(subject.name, backbone, backbone.layers, Shift(vectors, options, Strength(0.0))),
    ):
        assert torch.equal(run(subject.name, backbone), subject.plain)
    assert len(clock.ran) == NUM_STEPS
    assert num_hooks(backbone) == 0
    assert torch.equal(run(subject.name, backbone), subject.plain)


def test_a_shift_touches_exactly_the_image_tokens_of_the_rows_that_follow_the_prompt(subject: Subject) -> None:
    backbone, options = subject.backbone, [0, 1, 1, 0][: subject.num_images]
    vectors = subject.vectors
    shift = Shift(vectors, options, Strength(1.5))
    with kept(backbone) as before, shown(subject.name, backbone, backbone.layers, shift), kept(backbone) as after:
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
    backbone, layer, results = subject.backbone, subject.backbone.layers[-1], [subject.result]

    def more(part: Tensor) -> Tensor:
        return part + (ramp(part.shape[1])[:, None, None] if part.dim() == 4 else ramp(part.shape[-1]))

    def everywhere(module: Any, args: Any, output: Any) -> Any:
        return tuple(map(more, output)) if isinstance(output, tuple) else more(output)

    def back(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        return tokens - ramp(tokens.shape[-1])

    def keep(args: Any, kwargs: Any, output: Any) -> None:
        results.append(result_of(output))

    with ExitStack() as stack:
        stack.callback(backbone.denoiser.get_submodule(layer).register_forward_hook(everywhere).remove)
        run_first_call(subject.name, backbone, keep)
        stack.enter_context(shown(subject.name, backbone, [layer], back))
        run_first_call(subject.name, backbone, keep)
    assert not torch.allclose(results[1], results[0], rtol=1e-3)
    found, true = (result[subject.by_prompt[0]] for result in (results[2], results[0]))
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

    backbone, layers = subject.backbone, subject.backbone.layers[:1]
    with kept(backbone) as outputs, shown(subject.name, backbone, layers, note):
        run(subject.name, backbone, guided=False)
    assert shapes == [subject.num_images] * NUM_STEPS
    assert len(outputs[layers[0]]) == NUM_STEPS


def test_the_timestep_of_every_call_tells_the_step(subject: Subject) -> None:
    """A run that begins midway is placed by it."""
    backbone, places = subject.backbone, list[tuple[int, int]]()

    def tell(module: Any, args: Any, kwargs: Any) -> None:
        inputs = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        places.append((clock.place_of(backbone.family.timestep(backbone.pipe, inputs)), clock.place))

    with shown(subject.name, backbone, backbone.layers[:1], look) as clock:
        handle = backbone.denoiser.register_forward_pre_hook(tell, with_kwargs=True)
        run(subject.name, backbone)
        handle.remove()
    assert places and all(told == true for told, true in places)


def test_modules_that_give_text_are_refused_by_name(subject: Subject) -> None:
    backbone, shapes = subject.backbone, subject.shapes
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
    images = [1, 2] if subject.num_images > 1 else [0]

    def again(args: Any, kwargs: Any, output: Any) -> None:
        denoiser = backbone.denoiser
        given = inspect.signature(denoiser.forward).bind(*args, **kwargs)
        num_rows = backbone.family.describe(backbone.pipe, args, kwargs).num_rows
        rows = Rows.of(images, subject.num_images, num_rows, torch.device("cpu"))
        given.arguments.update(rows.cut(given.arguments, backbone.family))
        compared.append((result_of(denoiser(*given.args, **given.kwargs)), result_of(output)[rows.numbers]))

    if subject.name == "omnigen_pictures":
        with pytest.raises(BackboneError, match=r"by the number of a row .* \(OmniGen's pictures\)"):
            run_first_call(subject.name, backbone, again)
        return
    run_first_call(subject.name, backbone, again)
    for part, whole in compared:
        torch.testing.assert_close(part, whole)
    assert compared


@pytest.mark.parametrize("in_place", [False, True])
def test_texts_of_unequal_length_leave_the_image_where_each_row_has_it(in_place: bool) -> None:
    """Lumina 2 puts each row's image directly behind as many text tokens as that row has."""
    tiny, subject = TINY["lumina2"], subject_of("lumina2")
    backbone, mask = subject.backbone, torch.ones(subject.num_images, LENGTH, dtype=torch.bool)
    mask[0, 4:] = mask[2, 1:] = False
    layer, num_tokens = backbone.layers[0], tiny.num_image_tokens
    hook = Shift(ones_of(subject), [0] * 4, Strength(1.0)) if in_place else add_one
    with kept(backbone) as before, hooked(backbone, [layer], hook), kept(backbone) as after, torch.no_grad():
        make(tiny, backbone.pipe, prompt_attention_mask=mask)
    old, new = before[layer][0], after[layer][0]
    for row, start in enumerate(mask.sum(1).tolist()):
        assert torch.equal(new[row, start : start + num_tokens], old[row, start : start + num_tokens] + 1)
        assert torch.equal(new[row, :start], old[row, :start])
        assert torch.equal(new[row, start + num_tokens :], old[row, start + num_tokens :])


def ones_of(subject: Subject) -> SteeringVectors:
    """Return directions that add 1 everywhere."""
    vectors = subject.vectors
    return replace(vectors, directions={layer: torch.ones_like(x) for layer, x in vectors.directions.items()})
