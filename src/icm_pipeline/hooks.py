"""The one hook mechanism: show a hook the conditional image tokens of some layers, step by step.

One StepClock per run owns the step. It is driven by the scheduler, whose `set_timesteps` starts it and whose `step`
advances it, because timesteps repeat (PNDM), are called more than once (Heun) and are scaled differently from model to
model, and because some schedulers have no step index. What gated sites and compiled denoisers need besides is in
`gate_hooks` and `compiled_hooks`.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, BackboneError, Call, Family, Site, is_compiled, uncompiled, way_to
from icm_pipeline.backbones.schedulers import noise_levels, step_numbers
from icm_pipeline.compiled_hooks import switched_on
from icm_pipeline.gate_hooks import CaughtGates, away_from_zero


class StepClock:
    """Where the pipeline is.

    step: the denoising step of num_steps, from 0; passes at the same noise level are one step. noise_level: of that
    step, see `noise_levels`. num_images: the current batch's size, which the pipeline tells when it prepares latents;
    None where it is not known.
    num_calls, run: how often the denoiser ran and the scheduler was set up since the clock was made. Of this run:
    num_passes, how often the scheduler stepped; calls_in_run, how often the denoiser ran; reached, the layers it ran.
    """

    def __init__(self, num_images: int | None = None) -> None:
        self.num_images = num_images
        self.num_calls = 0
        self.run = 0
        self.reached: set[str] = set()
        self.call: Call | None = None
        self.rows: slice | None = slice(0, None)
        self._start([0], [1.0])

    def _start(self, steps: list[int], levels: list[float]) -> None:
        self._steps, self._levels = steps, levels
        self.num_steps = steps[-1] + 1
        self.reached.clear()
        self.calls_in_run = 0
        self._stand_at(0)

    def _stand_at(self, number: int) -> None:
        """Stand at a pass of this run; after the last one the clock stays there."""
        self.num_passes, self._calls_in_pass = number, 0
        reached = min(number, len(self._steps) - 1)
        self.step, self.noise_level = self._steps[reached], self._levels[reached]  # hooks read them at every layer

    @property
    def is_over(self) -> bool:
        """Say whether the scheduler has made every step of this run."""
        return self.num_passes >= len(self._steps)

    def _count_call(self, call: Call, rows: slice | None) -> None:
        self.call, self.rows = call, rows
        self.num_calls += 1
        self.calls_in_run += 1
        self._calls_in_pass += 1

    def at(self, step: int, levels: Sequence[float]) -> "StepClock":
        """Set the clock by hand to a step of a run with these noise levels, for a hook without a pipeline."""
        self._start(list(range(len(levels))), list(levels))
        self._stand_at(step)
        return self


class Hook(Protocol):
    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        """Look at tokens [n, s, d] of the conditional rows; return None, or new tokens of the same shape and dtype.

        `tokens` is a view of what the layer returned: a hook that writes into it changes the picture.
        """


@contextmanager
def hooked(
    backbone: Backbone, layers: Sequence[str], hook: Hook | None, num_images: int | None = None
) -> Iterator[StepClock]:
    """Call `hook` with the conditional image tokens of every named layer while the context lasts.

    Without a hook, and so without layers, there is only the clock. num_images: how many images are made at once, None
    to let the pipeline tell; a pipeline that makes another number is refused. Of several contexts the outer one's hook
    sees a layer first. Everything registered or wrapped is taken off again on exit, after an exception too; on a
    compiled denoiser hooks that do nothing stay. Raises BackboneError for a call of the denoiser whose step or images
    are not known and, when the next run begins or on exit, if a layer was never reached in a run.
    """
    assert hook is not None or not layers
    clock = StepClock(num_images)
    sites = [backbone.site(layer) for layer in layers]
    denoiser = backbone.denoiser
    with ExitStack() as stack:
        _drive(backbone.pipe, clock, num_images, lambda: _check_reached(backbone, denoiser, layers, clock), stack)
        _count_calls(backbone, clock, stack)
        if hook is None:
            yield clock
            return
        gates = CaughtGates(backbone, stack)
        ways = [way_to(uncompiled(denoiser), site.module) for site in sites]
        modules = [way[-1] for way in ways]
        afters = [_after(site, backbone.family, hook, clock, gates) for site in sites]
        if any(map(is_compiled, {denoiser, *(module for way in ways for module in way)})):
            stack.enter_context(switched_on(sites, modules, afters))
        else:
            for site, module, after in zip(sites, modules, afters, strict=True):
                if site.gated:
                    gates.watch(site)
                stack.callback(module.register_forward_hook(after).remove)
        yield clock
        _check_reached(backbone, denoiser, layers, clock)


def _check_reached(backbone: Backbone, denoiser: nn.Module, layers: Sequence[str], clock: StepClock) -> None:
    """Raise BackboneError if the run that ends has left a layer out, so that nothing is skipped in silence.

    A run without this denoiser is another pipeline's, with the same scheduler, unless the denoiser was replaced.
    """
    missed = [layer for layer in layers if layer not in clock.reached]
    if clock.num_passes and missed and (clock.calls_in_run or backbone.denoiser is not denoiser):
        raise BackboneError(
            f"{len(missed)} of {len(layers)} layers were never reached in {clock.num_passes} steps of {backbone.name}, "
            f"{missed[0]} among them. Was the denoiser or a part of it replaced or compiled meanwhile?"
        )


def _count_calls(backbone: Backbone, clock: StepClock, stack: ExitStack) -> None:
    """Tell the clock, before each call of the denoiser, what the call is."""

    scheduler = backbone.pipe.scheduler

    def before(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        num_images = _known_images(backbone, scheduler, clock)
        num_rows, num_text, num_image = backbone.family.describe(args, kwargs)
        call = Call(num_rows, num_images, clock._calls_in_pass, num_text, num_image)
        clock._count_call(call, backbone.family.conditional_rows(backbone.pipe, call))

    def calling(compiled: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before(args, kwargs)
        return compiled(*args, **kwargs)

    denoiser = backbone.denoiser
    if denoiser._compiled_call_impl is not None:  # by its own compile(), which looks at no hook registered later
        wrap_method(denoiser, "_compiled_call_impl", calling, stack)
    else:
        handle = denoiser.register_forward_pre_hook(lambda _, args, kwargs: before(args, kwargs), with_kwargs=True)
        stack.callback(handle.remove)


def _known_images(backbone: Backbone, scheduler: Any, clock: StepClock) -> int:
    """Return how many images a call of the denoiser makes; raises BackboneError if that or its step is not known."""
    name = backbone.name
    if backbone.pipe.scheduler is not scheduler:
        raise BackboneError(f"The scheduler of {name} was replaced inside the context: replace it before.")
    if clock.run == 0:
        raise BackboneError(
            f"The denoiser of {name} ran before its scheduler's set_timesteps, so its step is not known: begin the run "
            "inside the context."
        )
    if clock.num_images is None:
        raise BackboneError(
            f"The denoiser of {name} ran outside of the pipeline that was given, so how many images it makes is not "
            "known: give num_images, or the pipeline that runs."
        )
    return clock.num_images


def _after(site: Site, family: Family, hook: Hook, clock: StepClock, gates: CaughtGates) -> Callable[..., Any]:
    """Return what runs after a site's module: (module, args, output) -> new output or None.

    It runs at every layer of every step: on a GPU that waits for the CPU each microsecond of it counts.
    """
    layer, gated, read = site.layer, site.gated, family.read

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        clock.reached.add(layer)
        call, rows = clock.call, clock.rows
        if call is None or rows is None:
            return None
        tokens = read(output, site, call)
        if tokens.shape[0] != call.num_rows:
            raise BackboneError(f"{layer} gave {len(tokens)} rows where the denoiser has {call.num_rows}.")
        seen = tokens[rows]
        gate = gates.of(site)[rows] if gated else None
        changed = hook(seen if gate is None else seen * gate, site, clock)
        if changed is None:
            return None
        if changed.shape != seen.shape or changed.dtype != seen.dtype:
            raise BackboneError(
                f"The hook at {layer} was given {tuple(seen.shape)} in {seen.dtype} and returned "
                f"{tuple(changed.shape)} in {changed.dtype}: return the same shape and dtype, or None."
            )
        if gate is not None:
            changed = seen + (changed - seen * gate) / away_from_zero(gate)
        whole = torch.cat([tokens[: rows.start], changed, tokens[rows.stop :]])
        return family.write(output, whole, site, call)

    return after


def _drive(pipe: Any, clock: StepClock, expected: int | None, before_run: Callable[[], None], stack: ExitStack) -> None:
    """Let the scheduler drive the clock and the pipeline tell its number of images, while the stack lasts.

    before_run is called when the next run begins.
    """

    def starting(set_timesteps: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before_run()
        result = set_timesteps(*args, **kwargs)
        levels = noise_levels(pipe.scheduler)
        clock._start(step_numbers(levels), levels)
        clock.run += 1
        return result

    def advancing(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        clock._stand_at(clock.num_passes + 1)
        if clock.is_over:
            clock.num_images = expected  # the next run's pipeline tells its own
        return result

    def preparing(prepare_latents: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = prepare_latents(*args, **kwargs)
        latents = result[0] if isinstance(result, tuple) else result
        if expected is not None and len(latents) != expected:
            raise BackboneError(f"{expected} image(s) were expected and the pipeline makes {len(latents)}.")
        clock.num_images = len(latents)
        return result

    wrap_method(pipe.scheduler, "set_timesteps", starting, stack)
    wrap_method(pipe.scheduler, "step", advancing, stack)
    wrap_method(pipe, "prepare_latents", preparing, stack)


def wrap_method(owner: Any, name: str, around: Callable[..., Any], stack: ExitStack) -> None:
    """Put `around(method, ...)` in a method's place; `functools.wraps` keeps the signature that pipelines inspect."""
    method, own = getattr(owner, name), vars(owner).get(name)

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(method, *args, **kwargs)

    def unwrap() -> None:
        delattr(owner, name)
        if own is not None:  # a wrapper that was there before, as of an outer hooked()
            setattr(owner, name, own)

    setattr(owner, name, wrapped)
    stack.callback(unwrap)
