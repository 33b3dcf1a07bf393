"""What a family promises, tried on a pipeline: the same promises that tests/backbones proves on tiny ones.

Two prompts with two images each. Which rows of a call are conditional is measured: those whose results follow the
prompt while all else, and the negative prompt, stays.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError, Site
from icm_pipeline.backbones.formats import order_of
from icm_pipeline.backbones.modules import walk
from icm_pipeline.checking.calling import NUM_IMAGES, Caller
from icm_pipeline.checking.shifts import OPTIONS, exact_shift, nothing_else_counts
from icm_pipeline.checking.subject import Subject, close, look, spans
from icm_pipeline.checking.watching import after_each, rows_of, watched
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.rows import Rows
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength


@dataclass(frozen=True)
class Finding:
    """A promise, and what was seen where it is not kept."""

    promise: str
    problem: str
    """Empty if it is kept."""


def check(backbone: Backbone, caller: Caller) -> Iterator[Finding]:
    """Yield what was found of each promise."""
    subject = Subject(backbone, caller)
    for promise, try_it in PROMISES.items():
        try:
            yield Finding(promise, try_it(subject))
        except Exception as error:  # of a family's own functions, too: whatever it is, the promise is not kept
            told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            yield Finding(promise, told)


def _repeats(subject: Subject) -> str:
    return "" if torch.equal(subject.caller.make(), subject.plain) else "two calls with the same seeds differ"


def _looking(subject: Subject) -> str:
    backbone, before = subject.backbone, _num_hooks(subject.backbone)
    with subject.hooked(backbone.layers, look) as clock:
        seen = subject.caller.make()
    if not torch.equal(seen, subject.plain):
        return "the pictures differ from those without hooks"
    if len(clock.ran) != subject.caller.num_steps:
        return f"{len(clock.ran)} of {subject.caller.num_steps} steps were counted"
    if (left := _num_hooks(backbone) - before) or not torch.equal(subject.caller.make(), subject.plain):
        return f"{left} hooks stay, or what they did"
    return ""


def _nothing(subject: Subject) -> str:
    with subject.hooked(subject.backbone.layers, Shift(subject.vectors(), OPTIONS, Strength(0.0))):
        return "" if torch.equal(subject.caller.make(), subject.plain) else "the pictures differ"


def _rows(subject: Subject) -> str:
    told: list[list[int]] = []
    with subject.hooked(subject.backbone.layers[:1], look) as clock:

        def note(module: Any, args: Any, output: Any) -> None:
            rows = range(len(rows_of(output)))
            told.append([] if clock.rows is None else list(rows[clock.rows]))

        handle = subject.backbone.denoiser.register_forward_hook(note)
        subject.caller.make()
        handle.remove()
    told, true = told[: len(subject.by_prompt)], subject.conditional()
    if told != true:
        return f"the family has {spans(told)}, and the prompt changes {spans(true)}"
    first = [[row for row in rows if row in own] for rows, own in zip(subject.by_first, true, strict=True)]
    expected = [rows[: NUM_IMAGES // 2] for rows in true]
    return "" if first == expected else f"the first prompt alone changes {spans(first)}, not {spans(expected)}"


def _unguided(subject: Subject) -> str:
    if not subject.caller.guides:
        return ""
    counts: list[int] = []

    def note(tokens: Tensor, site: Site, clock: StepClock) -> None:
        counts.append(len(tokens))

    with watched(subject.backbone.denoiser) as calls, subject.hooked(subject.backbone.layers[:1], note):
        subject.caller.make(guided=False)
    rows = [len(call.rows) for call in calls]
    is_kept = counts == rows and set(rows) == {NUM_IMAGES}
    return "" if is_kept else f"calls of {rows} rows, of which {counts} were taken as conditional"


def _timesteps(subject: Subject) -> str:
    backbone, wrong = subject.backbone, list[str]()
    with subject.hooked(backbone.layers[:1], look) as clock:

        def tell(module: Any, args: Any, kwargs: Any) -> None:
            inputs = inspect.signature(module.forward).bind(*args, **kwargs).arguments
            told = clock.place_of(backbone.family.timestep(backbone.pipe, inputs))
            if told != clock.place:
                wrong.append(f"pass {clock.place} has the timestep of pass {told}")

        handle = backbone.denoiser.register_forward_pre_hook(tell, with_kwargs=True)
        try:
            subject.caller.make()
        finally:
            handle.remove()
    return wrong[0] if wrong else ""


def _text_refused(subject: Subject) -> str:
    """Ask for every module that gives as many tokens as the text has, where no image has so many."""
    backbone, counts = subject.backbone, dict[str, int]()

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 3:
            counts[name] = output.shape[1]

    with after_each(dict(walk(backbone.denoiser)), note):
        subject.caller.make()
    image = {counts.get(site.module) for site in backbone.sites} | {subject.num_image_tokens}
    taken = [name for name, count in counts.items() if count == subject.num_text_tokens and count not in image]
    taken = [name for name in taken if name and not _is_refused(backbone, name)]
    return f"{', '.join(taken[:3])} ({len(taken)} in all) give as many tokens as the text has" if taken else ""


def _rows_alone(subject: Subject) -> str:
    backbone, found = subject.backbone, list[bool]()

    def again(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        handle.remove()
        given = inspect.signature(module.forward).bind(*args, **kwargs)
        whole = rows_of(output)
        rows = Rows.of([1, 2], NUM_IMAGES, len(whole), whole[0].device)
        given.arguments.update(rows.cut(given.arguments, backbone.family))
        alone = rows_of(module(*given.args, **given.kwargs))
        found.append(all(close(part, whole[row]) for part, row in zip(alone, rows.numbers, strict=True)))

    handle = backbone.denoiser.register_forward_hook(again, with_kwargs=True)
    subject.caller.make()
    return "" if all(found) else "they differ: name inputs without rows (shared_inputs) and lists (inputs_by_row)"


PROMISES: dict[str, Callable[[Subject], str]] = {
    "the same call gives the same pictures twice, to the bit": _repeats,
    "looking at every layer changes nothing, to the bit, and no hook stays": _looking,
    "an alpha of 0 changes nothing, to the bit": _nothing,
    "the conditional rows are those that follow the prompt": _rows,
    "a shift touches exactly the image tokens of these rows": exact_shift,
    "what else is in these rows does not count behind the last layer": nothing_else_counts,
    "without guidance every row is conditional": _unguided,
    "the timestep of every call tells its step": _timesteps,
    "modules that give text are refused": _text_refused,
    "rows cut out of a call give what they gave in it (look=)": _rows_alone,
}


def _num_hooks(backbone: Backbone) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in backbone.denoiser.modules())


def _is_refused(backbone: Backbone, name: str) -> bool:
    try:
        backbone.with_layers([name])
        for site in backbone.with_layers([name]).sites[-1:]:
            order_of(backbone.family, site)
    except BackboneError:
        return True
    return False
