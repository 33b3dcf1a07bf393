"""The one hook mechanism: show a hook the conditional image tokens of some layers, step by step.

One StepClock per run owns the step. It is driven by the scheduler, whose `set_timesteps` starts it and whose `step`
advances it, because timesteps repeat (PNDM), are called more than once (Heun) and are scaled differently from model to
model, and because some schedulers have no step index. What gated sites and compiled denoisers need besides is in
`hooks.gated` and `hooks.compiled`.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, BackboneError, Call, Family, Site
from icm_pipeline.backbones.formats import gives_image_alone, order_of
from icm_pipeline.backbones.guidance import MODULAR, conditional_rows
from icm_pipeline.backbones.modules import is_compiled, path_to, splits_tokens, uncompiled
from icm_pipeline.hooks.caches import check_caches, reset_caches
from icm_pipeline.hooks.clock import StepClock, drive
from icm_pipeline.hooks.compiled import switched_on
from icm_pipeline.hooks.gated import CaughtGates, away_from_zero
from icm_pipeline.hooks.guiders import listen_to_guiders
from icm_pipeline.hooks.owned import is_own
from icm_pipeline.hooks.reached import check_every_step, note_computed
from icm_pipeline.hooks.rows import computed_images
from icm_pipeline.hooks.turns import check_turn, own_turn
from icm_pipeline.hooks.wrapping import wrapped


class Hook(Protocol):
    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        """Look at tokens [n, s, d] of the conditional rows; return None, or new tokens of the same shape and dtype.

        `tokens` is a view of what the layer returned: a hook that writes into it changes the picture.

        A hook may also have `write_into(tokens, site, clock)`, which changes them in place: it is called instead where
        nobody else holds what the layer returned, and saves a copy of it. It may have `of_all_rows(tokens, site,
        clock)`: it is called instead with every row of an output that is small, and returns None or that output with
        the conditional rows changed alone. A hook with a method `end_run(clock)` is told when a run has ended, unless
        that was interrupted.
        """


SMALL, SMALL_ON_CPU = 1 << 22, 1 << 15
"""The most elements of a small output: one operation on all rows takes less than the host needs to cut some out."""


@contextmanager
def hooked(
    backbone: Backbone,
    layers: Sequence[str],
    hook: Hook | None,
    num_images: int | None = None,
    *,
    reused: bool = False,
    whole: bool = False,
) -> Iterator[StepClock]:
    """Call `hook` with the conditional image tokens of every named layer while the context lasts.

    Without a hook, and so without layers, there is only the clock.

    Example:
        def doubled(tokens, site, clock):
            return 2 * tokens if clock.step < 10 else None

        with hooked(attach(pipe), ["mid_block.attentions.0.transformer_blocks.0.attn1"], doubled):
            images = pipe("a face of a doctor").images

    num_images: how many images are made at once, None to let the pipeline tell; a pipeline that makes another number
    is refused. reused: whether the hook may see an output that a cache kept from an earlier step, as a shift may.
    whole: whether it sees all rows of a call, in the call's order. Of several contexts the outer one's hook sees a
    layer first. Everything registered or wrapped is taken off again on exit, after an exception too, and diffusers'
    caches are emptied; on a compiled denoiser hooks that do nothing stay.
    Raises BackboneError for a cache that skips layers, for a context or call of another thread, for a call of the
    denoiser whose step or images are not known and at the end of a step in which a layer did not run.
    """
    assert hook is not None or not layers
    clock = StepClock(num_images)
    sites = [backbone.site(layer) for layer in layers]
    denoiser = backbone.denoiser

    def end_run(is_seen: bool) -> None:
        """End the run; where nobody saw its end, one of the pipeline's own was interrupted."""
        if not clock.is_open:
            return
        clock.is_open = False
        told = getattr(hook, "end_run", None)
        if told is not None and (is_seen or (clock.calls_in_run and not clock.is_pipelines)):
            told(clock)

    with ExitStack() as stack:
        thread = stack.enter_context(own_turn(backbone))
        ways = [path_to(uncompiled(denoiser), site.module) for site in sites]

        def check() -> None:
            if hook is not None:
                check_caches(backbone, ways, reused)
                _check_whole(backbone)

        def between_runs(is_seen: bool) -> None:
            end_run(is_seen)
            if not is_seen:  # the next one begins
                check()

        check()
        drive(backbone.pipe, clock, num_images, between_runs, stack)
        listen_to_guiders(backbone.pipe, clock, stack)
        _count_calls(backbone, clock, thread, stack)
        if hook is None:
            yield clock
            return
        check_every_step(backbone, layers, clock, stack)
        gates = CaughtGates(backbone, stack)
        modules = [way[-1] for way in ways]
        afters = [_after(site, backbone.family, hook, clock, gates, whole) for site in sites]
        if any(map(is_compiled, {denoiser, *(module for way in ways for module in way)})):
            stack.enter_context(switched_on(sites, modules, afters))
        else:
            for site, module, after in zip(sites, modules, afters, strict=True):
                if site.gated:
                    gates.watch(site)
                stack.callback(module.register_forward_hook(after).remove)
        is_whole = False
        try:
            yield clock
            is_whole = not (clock.is_open and clock.calls_in_run)
            end_run(False)
        finally:
            if not is_whole:  # diffusers has emptied them at the end of a whole run
                reset_caches(backbone)


def _check_whole(backbone: Backbone) -> None:
    if splits_tokens(backbone.denoiser):
        raise BackboneError(
            f"Context parallelism is enabled on the denoiser of {backbone.name}: each process has some tokens, and "
            "which of them are the image's is not known. Run without enable_parallelism()."
        )


def _count_calls(backbone: Backbone, clock: StepClock, thread: int, stack: ExitStack) -> None:
    """Tell the clock, before each call of the denoiser, what the call is."""
    denoiser, pipe, family = backbone.denoiser, backbone.pipe, backbone.family
    scheduler = pipe.scheduler

    def before(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check_turn(backbone, thread)
        note_computed(denoiser, True)
        num_images = _known_images(backbone, scheduler, clock)
        if clock.calls_in_run == 0:
            inputs = inspect.signature(uncompiled(denoiser).forward).bind(*args, **kwargs).arguments
            family.check_run(inputs)
            if clock.num_passes == 0:  # where a run begins the scheduler knows, or the timestep says
                begin = getattr(scheduler, "begin_index", None)
                clock.stand_at(clock.place_of(family.timestep_of(pipe, inputs)) if begin is None else begin)
        latents, num_rows, num_text, num_image, skips_layers = family.described(pipe, args, kwargs)
        if num_images is None:
            num_images = clock.count_rows(num_rows)
        images, repeats = computed_images(denoiser) or None, clock.repeats(latents)
        index, prediction = clock.calls_in_pass, clock.prediction
        call = Call(num_rows, num_images, index, num_text, num_image, repeats, skips_layers, prediction)
        if images is not None:
            call = replace(call, num_rows=call.rows_per_image * len(images), num_images=len(images))
        clock.begin_call(call, conditional_rows(family.rows, pipe, call), latents, images)

    def calling(compiled: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before(args, kwargs)
        return compiled(*args, **kwargs)

    if denoiser._compiled_call_impl is not None:  # by its own compile(), which looks at no hook registered later
        stack.enter_context(wrapped(denoiser, "_compiled_call_impl", calling))
    else:
        handle = denoiser.register_forward_pre_hook(lambda _, args, kwargs: before(args, kwargs), with_kwargs=True)
        stack.callback(handle.remove)


def _known_images(backbone: Backbone, scheduler: Any, clock: StepClock) -> int | None:
    """Return how many images a call of the denoiser makes, None where each of its rows is one.

    Raises BackboneError if that or its step is not known.
    """
    name = backbone.name
    if backbone.pipe.scheduler is not scheduler:
        raise BackboneError(f"The scheduler of {name} was replaced inside the context: replace it before.")
    if clock.run == 0:
        raise BackboneError(
            f"The denoiser of {name} ran before its scheduler's set_timesteps, so its step is not known: begin the run "
            "inside the context."
        )
    if clock.place >= len(clock.steps):
        raise BackboneError(
            f"The denoiser of {name} ran again after the last of {len(clock.steps)} timesteps: call the scheduler's "
            "set_timesteps before each run."
        )
    if clock.num_images is None and backbone.family.rows != MODULAR:
        raise BackboneError(
            f"The denoiser of {name} ran outside of the pipeline that was given, so how many images it makes is not "
            "known: give num_images, or the pipeline that runs."
        )
    return clock.num_images


def _after(
    site: Site, family: Family, hook: Hook, clock: StepClock, gates: CaughtGates, whole: bool
) -> Callable[..., Any]:
    """Return what runs after a site's module: (module, args, output) -> new output or None.

    It runs at every layer of every step: on a GPU that waits for the CPU each microsecond of it counts.
    """
    layer, gated, (read, write) = site.layer, site.gated, order_of(family, site)
    write_into = None if gated else getattr(hook, "write_into", None)
    is_plain = not (gated or whole) and gives_image_alone(read, site)
    of_all_rows = getattr(hook, "of_all_rows", None) if is_plain else None
    small_shape: torch.Size | None = None  # one that was found to be small

    def check_alike(seen: Tensor, changed: Tensor) -> None:
        if changed.shape != seen.shape or changed.dtype != seen.dtype:
            raise BackboneError(
                f"The hook at {layer} was given {tuple(seen.shape)} in {seen.dtype} and returned "
                f"{tuple(changed.shape)} in {changed.dtype}: return the same shape and dtype, or None."
            )

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        call, rows = clock.call, clock.rows
        if call is None or rows is None:
            return None
        clock.reached.add(layer)
        if of_all_rows is not None and type(output) is Tensor and clock.images is None:
            nonlocal small_shape
            shape = output.shape
            if shape != small_shape and len(shape) == 3 and shape.numel() <= (SMALL_ON_CPU if output.is_cpu else SMALL):
                small_shape = shape
            if shape == small_shape and shape[0] == call.num_rows:
                changed = of_all_rows(output, site, clock)
                if changed is not None:
                    check_alike(output, changed)
                return changed
        rows = slice(0, call.num_rows) if whole else rows
        into = write_into if write_into and is_own(output) else None  # asked before anything here holds it too
        if type(call.num_text_tokens) is tuple:  # each row's tokens lie elsewhere, so that what is read is a copy
            into = None
        tokens = read(output, site, call)
        if tokens.size(0) != call.num_rows:
            raise BackboneError(f"{layer} gave {len(tokens)} rows where the denoiser has {call.num_rows}.")
        seen = tokens[rows]
        if into:
            into(seen, site, clock)
            return None
        gate = gates.of(site)[rows] if gated else None
        changed = hook(seen if gate is None else seen * gate, site, clock)
        if changed is None:
            return None
        check_alike(seen, changed)
        if gate is not None:
            changed = seen + (changed - seen * gate) / away_from_zero(gate)
        every = torch.cat([tokens[: rows.start], changed, tokens[rows.stop :]])
        return write(output, every, site, call)

    return after
