"""Look, then rewind: a run goes some steps unchanged, is judged, and begins again for the images that are to change.

All of it happens in one call of the pipeline, whose own loop takes the passes of the changed steps twice
(`hooks.repeats`), so that guidance, scaling and noise are its own both times. At the end of the look the scheduler and
the random generators are set back to the first changed step (`hooks.snapshots`). In the repeated passes the denoiser
computes the rows of the images to change; those of the others are what it returned in the look, from which the
pipeline comes to the same latents, to the bit.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError, Site
from icm_pipeline.backbones.guidance import MODULAR
from icm_pipeline.backbones.modules import is_compiled, parts_of, uncompiled
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.guiders import guiders_of
from icm_pipeline.hooks.hooked import Hook, hooked
from icm_pipeline.hooks.reached import note_computed
from icm_pipeline.hooks.recording import Recorder, Recording
from icm_pipeline.hooks.repeats import Repeats, Schedule, repeated
from icm_pipeline.hooks.rows import Rows, compute_only, computed_images, detached
from icm_pipeline.hooks.snapshots import Draws, Snapshot, snapshot
from icm_pipeline.hooks.wrapping import is_around, wrapped


@dataclass(frozen=True)
class Choice:
    """What a look has decided."""

    images: Sequence[int]
    """Those to change; the others go on as they were."""
    hook: Hook
    """What is shown the layers from the first changed step on. Until the look's end a call has the rows of `images`."""


class Plan(Protocol):
    """What is looked for, and who is changed."""

    def span(self, schedule: Schedule) -> range:
        """Return the steps of a run from the first changed one to before the look's end; raises ValueError."""

    def decide(self, recording: Recording, clock: StepClock) -> Choice:
        """Choose by what was read in the last step of the look, of all images."""

    def end_run(self, clock: StepClock) -> None:
        """Take note that a run has ended well."""


@contextmanager
def looking(
    backbone: Backbone, read: Sequence[str], changed: Sequence[str], plan: Plan, num_images: int | None = None
) -> Iterator[StepClock]:
    """Look, choose and rewind in every run while the context lasts.

    read: the layers that are recorded in the last step of a look; changed: those that the plan's hook is shown.
    Everything is taken off again on exit, after an exception too. Raises BackboneError where `hooked` does, for a
    compiled denoiser, and when it runs for a pipeline or a loop that does not take the repeated passes as it took them
    first.
    """
    denoiser, scheduler = backbone.denoiser, backbone.pipe.scheduler
    if backbone.family.rows == MODULAR or guiders_of(backbone.pipe):
        raise BackboneError(
            f"{backbone.name} is modular or has a guider: guiders count the loop's passes, of which look= repeats "
            "some, and go on from what they saw before. Steer towards an option, or take a pipeline without one."
        )
    if is_compiled(denoiser) or any(map(is_compiled, parts_of(uncompiled(denoiser)))):
        raise BackboneError(
            f"The denoiser of {backbone.name} is compiled, and look= would compile it again for every number of images "
            "that it rewinds: use it before compiling."
        )
    with ExitStack() as stack:
        run = _Looking(backbone, read, changed, plan, stack)
        run.repeats = stack.enter_context(repeated(scheduler, run.begin))
        run.clock = stack.enter_context(hooked(backbone, list(dict.fromkeys([*read, *changed])), run, num_images))
        stack.callback(compute_only, denoiser, None)
        run.put_around()
        stack.enter_context(wrapped(scheduler, "step", run.step))
        yield run.clock


class _Looking:
    """The hook, and what is put around the denoiser and the scheduler's step."""

    clock: StepClock
    repeats: Repeats

    def __init__(
        self, backbone: Backbone, read: Sequence[str], changed: Sequence[str], plan: Plan, stack: ExitStack
    ) -> None:
        self._backbone, self._plan, self._stack = backbone, plan, stack
        self._read, self._changed = frozenset(read), frozenset(changed)
        self._put: dict[Any, Callable[..., Any]] = {}  # around the forward of a module
        self._forget()

    def _forget(self) -> None:
        self._recorder: Recorder | None = None
        self._choice: Choice | None = None
        self._snapshot: Snapshot | None = None
        self._draws = Draws()
        self._kept: dict[tuple[int, int], Any] = {}  # by pass, and call in the pass
        self._scale: Any = None  # of a ControlNet

    def begin(self, schedule: Schedule) -> range:
        """Begin a run: return the steps that it takes twice."""
        compute_only(self._backbone.denoiser, None)
        self._forget()
        self.put_around()
        steps = self._plan.span(schedule)
        self._recorder = Recorder([steps.stop - 1])
        return steps

    def put_around(self) -> None:
        """Stand around the denoiser and the ControlNet, again where offloading between two calls has put us off."""
        controlnet = getattr(self._backbone.pipe, "controlnet", None)
        for module, around in ((self._backbone.denoiser, self.forward), (controlnet, self.control)):
            if isinstance(module, torch.nn.Module) and not is_around(module, "forward", self._put.get(module)):
                self._put[module] = self._stack.enter_context(wrapped(module, "forward", around))

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        if self._choice is not None:
            return self._choice.hook(tokens, site, clock) if site.layer in self._changed else None
        if self._recorder is not None and site.layer in self._read:
            self._recorder(tokens, site, clock)
        return None

    def write_into(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
        into = getattr(self._choice.hook, "write_into", None) if self._choice is not None else None
        if into is None:
            changed = self(tokens, site, clock)
            if changed is not None:
                tokens.copy_(changed)
        elif site.layer in self._changed:
            into(tokens, site, clock)

    def end_run(self, clock: StepClock) -> None:
        """Raise BackboneError for a run that ended before it was through with the repeated passes."""
        passes = len(clock.steps) if not clock.is_pipelines else self.repeats.num_before + self.repeats.num_repeated
        if self._choice is None or clock.place < passes:
            raise BackboneError(
                f"The run ended after pass {clock.place} of {len(clock.steps)}, of which {self.repeats.num_repeated} "
                "are taken twice: let it run longer, or look less far. A loop of your own has to take each timestep "
                "that `scheduler.timesteps` holds when the loop begins."
            )
        self._plan.end_run(clock)

    @property
    def _is_repeated(self) -> bool:
        return 0 <= self.clock.place - self.repeats.num_before < self.repeats.num_repeated

    def forward(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Compute what a call has to compute, and return a result for all rows."""
        self.repeats.restore()
        clock, repeats = self.clock, self.repeats
        assert clock.call is not None
        if clock.calls_in_run == 1 and clock.place > 0:
            raise BackboneError(
                "The run begins midway in its schedule, with a picture's latents: look= needs a run from the first "
                "step (strength=1, no denoising_start)."
            )
        if clock.call.skips_layers:
            raise BackboneError(
                "Skip-layer guidance counts the loop's passes, of which look= repeats some: leave it out."
            )
        call = clock.calls_in_pass - 1
        if self._is_repeated:
            return self._again(forward, self._kept.pop((clock.place - repeats.num_repeated, call), None), args, kwargs)
        output = forward(*args, **kwargs)
        if repeats.num_before - repeats.num_repeated <= clock.place < repeats.num_before:
            self._kept[clock.place, call] = (self._num_rows(args, kwargs), detached(output))
        return output

    def _num_rows(self, args: Any, kwargs: Any) -> int:
        return self._backbone.family.describe(self._backbone.pipe, args, kwargs).num_rows

    def _again(self, forward: Callable[..., Any], before: Any, args: Any, kwargs: Any) -> Any:
        """Compute the rows of the images to change, and put them into what the look's call returned."""
        denoiser, family = self._backbone.denoiser, self._backbone.family
        images, num_images, num_rows = computed_images(denoiser), self.clock.num_images, self._num_rows(args, kwargs)
        if before is None or before[0] != num_rows or num_images is None:
            raise BackboneError(
                f"The {self._backbone.name} does not call its denoiser in step {self.clock.step} as it did in the "
                "look: does a callback change guidance by the number of the pass?"
            )
        if images is None:
            return forward(*args, **kwargs)
        if not images:
            note_computed(denoiser, False)
            return before[1]
        given = inspect.signature(forward).bind(*args, **kwargs)
        assert self._snapshot is not None
        rows = Rows.of(images, num_images, num_rows, self._snapshot.sample.device)
        given.arguments.update(rows.cut(given.arguments, family))
        return rows.put(before[1], forward(*given.args, **given.kwargs))

    def step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Let the scheduler step; note its state where the repeated passes begin, and set it back to that."""
        self.repeats.restore()
        place, end, again = self.clock.place, self.repeats.num_before, self.repeats.num_repeated
        given = inspect.signature(step).bind(*args, **kwargs).arguments
        if place == end:
            self._check_repeated(given)
        if place == end - again:
            self._check_whole(given["sample"])
            self._snapshot = snapshot(self._backbone.pipe.scheduler, given["sample"], given.get("generator"))
        with self._draws if end - again <= place < end else nullcontext():
            result = step(*args, **kwargs)
        if place == end - 1:
            return self._rewound(result)
        if place == end + again - 1:
            compute_only(self._backbone.denoiser, None)
        return result

    def _check_whole(self, sample: Tensor) -> None:
        if len(sample) != self.clock.num_images:
            raise BackboneError(
                f"The scheduler steps {len(sample)} of {self.clock.num_images} image(s): look= needs the whole batch "
                "in one step."
            )

    def _check_repeated(self, given: dict[str, Any]) -> None:
        """Raise BackboneError unless the loop has begun again where it was set back to."""
        assert self._snapshot is not None
        if self.clock.place_of(given["timestep"]) != self.clock.place:
            raise BackboneError(
                "This loop does not take the repeated passes: take the timesteps from `scheduler.timesteps` once, "
                "where the loop begins, and all of them."
            )
        if not torch.equal(given["sample"], self._snapshot.sample):
            raise BackboneError(
                f"The latents that {self._backbone.name} goes on with are not those that it was set back to: a "
                "callback or a picture changes them between steps, which look= does not know how to repeat."
            )
        self._snapshot = replace(self._snapshot, state={})

    def _rewound(self, result: Any) -> Any:
        """Decide, set the run back, and return the scheduler's result with the latents from before the change."""
        assert self._snapshot is not None and self._recorder is not None and self.clock.num_images is not None
        self._choice, self._recorder = self._plan.decide(self._recorder.recording(), self.clock), None
        images = sorted(self._choice.images)
        compute_only(self._backbone.denoiser, None if len(images) == self.clock.num_images else images)
        self._snapshot.put_back(self._backbone.pipe.scheduler, self._draws.has_drawn)
        latents = self._snapshot.sample.clone()
        return (latents, *result[1:]) if isinstance(result, tuple) else replace(result, prev_sample=latents)

    def control(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Refuse a ControlNet that is switched on or off by the number of the pass."""
        given = inspect.signature(forward).bind(*args, **kwargs).arguments.get("conditioning_scale")
        if self.clock.calls_in_run == 0:
            self._scale = given
        if given != self._scale:
            raise BackboneError(
                "The ControlNet's scale changes within the run (control_guidance_start or _end), counted in the loop's "
                "passes, of which look= repeats some: leave them at 0 and 1."
            )
        return forward(*args, **kwargs)
