"""Where a shift arrives: at the image tokens of the conditional rows, all of them and nothing else."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Site
from icm_pipeline.checking.subject import Subject, close, look, span
from icm_pipeline.checking.watching import after_each, changed_rows, parts_of, watched
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength

ALPHA, OPTIONS = 1.5, [0, 1, 1, 0]


def exact_shift(subject: Subject) -> str:
    """Compare each layer's output before and after the shift, as it is made: of a large model nothing is kept."""
    backbone, vectors = subject.backbone, subject.vectors()
    before: dict[str, list[Tensor]] = {}
    calls, problems = dict.fromkeys(backbone.layers, 0), dict[str, str]()
    true = subject.conditional()

    def keep(layer: str, output: Any) -> None:
        before[layer] = [part.detach().clone() for part in parts_of(output)]

    with ExitStack() as stack:
        modules = subject.modules(backbone.layers)
        stack.enter_context(after_each(modules, keep))
        clock = stack.enter_context(subject.hooked(backbone.layers, Shift(vectors, OPTIONS, Strength(ALPHA))))

        def compare(layer: str, output: Any) -> None:
            rows = true[calls[layer] % len(true)]
            calls[layer] += 1
            expected = ALPHA * vectors.directions[layer][clock.step, OPTIONS]
            if found := _misplaced(subject, before.pop(layer), parts_of(output), rows, expected):
                problems.setdefault(layer, f"step {clock.step}: {found}")

        stack.enter_context(after_each(modules, compare))
        subject.caller.make()
    more = f", and {len(problems) - 1} more layers" if len(problems) > 1 else ""
    return next((f"{layer}, {problem}{more}" for layer, problem in problems.items()), "")


def _misplaced(subject: Subject, old: list[Tensor], new: list[Tensor], rows: list[int], expected: Tensor) -> str:
    """Return what differs between outputs other than image tokens of the conditional rows, shifted as expected."""
    changed = sorted({row for a, b in zip(old, new, strict=True) for row in changed_rows(list(a), list(b))})
    if changed != rows:
        return f"{span(changed)} were changed, and {span(rows)} are conditional"
    for a, b in zip(old, new, strict=True):
        tokens = [part.flatten(2).transpose(1, 2) if part.dim() == 4 else part for part in (a, b)]
        where = (tokens[0] != tokens[1]).any(-1)
        if not where.any():
            continue
        counts = {int(count) for count in where[rows].sum(1)}
        if counts != {_num_image_tokens(subject, tokens[0].shape[1])}:
            return f"{counts} tokens were changed, and the image has {_num_image_tokens(subject, tokens[0].shape[1])}"
        for row, shift in zip(rows, expected, strict=True):
            moved = tokens[0][row][where[row]] + shift.to(tokens[0])
            if not torch.equal(moved, tokens[1][row][where[row]]):
                return "the change is another than alpha times the direction"
    return ""


def _num_image_tokens(subject: Subject, num_tokens: int) -> int:
    """Return how many tokens the image has, as its latents are cut; of a UNet, as many as the layer gives."""
    return subject.num_image_tokens or num_tokens


def nothing_else_counts(subject: Subject) -> str:
    """Move every token behind the last layer, and the image's back: the denoiser must give what it gave."""
    backbone, layer = subject.backbone, subject.backbone.layers[-1]
    results: list[list[list[Tensor]]] = []

    def everywhere(name: str, output: Any) -> Any:
        return tuple(map(_ramped, output)) if isinstance(output, tuple) else _ramped(output)

    def back(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
        return tokens - _ramp(tokens)

    module = subject.modules([layer])
    for moved, hook in ((False, look), (True, look), (True, back)):
        with ExitStack() as stack:
            calls = stack.enter_context(watched(backbone.denoiser))
            if moved:
                stack.enter_context(after_each(module, everywhere))
            stack.enter_context(subject.hooked([layer], hook))
            subject.caller.make()
        results.append([call.rows for call in calls[:1]])
    plain, moved_all, moved_back = (result[0] for result in results)
    rows, same = subject.conditional()[0], partial(close, count=subject.num_image_tokens)
    if all(same(moved_all[row], plain[row]) for row in rows):
        return f"{layer} does not count for what the denoiser gives, so this cannot be told"
    wrong = [row for row in rows if not same(moved_back[row], plain[row])]
    return f"row {wrong[0]} depends on tokens of {layer} that are not among the image's" if wrong else ""


def _ramp(tokens: Tensor) -> Tensor:
    """Return what no norm takes away, other than a constant."""
    return torch.linspace(-1, 1, tokens.shape[-1], device=tokens.device, dtype=tokens.dtype)


def _ramped(part: Any) -> Any:
    if not isinstance(part, Tensor):
        return part
    return part + (_ramp(part.transpose(1, -1)).view(-1, 1, 1) if part.dim() == 4 else _ramp(part))
