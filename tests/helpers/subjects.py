"""The undisturbed run of a tiny pipeline, kept for its family's tests: what its layers give, who follows the prompt."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.modules import walk
from icm_pipeline.backbones.registry import attach
from icm_pipeline.hooks.clock import PREPARE
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder, Recording
from icm_pipeline.hooks.wrapping import wrapped
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.denoisers import TINY
from tests.helpers.tiny import build, make

NUM_STEPS = 2
Outputs = dict[str, list[Any]]


@dataclass(frozen=True)
class Subject:
    """A tiny pipeline and its undisturbed run."""

    name: str
    backbone: Backbone
    plain: Tensor
    result: Tensor
    """What the first call of the denoiser gives, of every row."""
    outputs: Outputs
    """By layer, of every call."""
    shapes: dict[str, torch.Size]
    """Of every module that gives tokens, by its name."""
    by_prompt: list[list[int]]
    """The rows of each call of the first step that change with the prompt."""
    vectors: SteeringVectors
    """Random directions for two options of every layer, at every step."""

    @property
    def num_images(self) -> int:
        return TINY[self.name].num_images


class EnoughError(Exception):
    """The rest of a run would show nothing new."""


@cache
def subject_of(name: str) -> Subject:
    try:
        pipe = build(TINY[name])
    except ImportError as error:
        pytest.skip(str(error).strip().splitlines()[0])
    backbone, recorder, results = attach(pipe), Recorder(list(range(NUM_STEPS))), list[Tensor]()
    with kept(backbone) as outputs, heard(backbone, lambda output: results.append(result_of(output))):
        plain = run(name, backbone)
    with kept(backbone) as other_prompt, shaped(backbone) as shapes, stopped(name, backbone):
        run(name, backbone, prompts=("a cat", "a hat"))
    with shown(name, backbone, backbone.layers, recorder):
        run(name, backbone)
    last, num_calls = backbone.layers[-1], len(outputs[backbone.layers[-1]]) // NUM_STEPS
    calls = zip(outputs[last][:num_calls], other_prompt[last][:num_calls], strict=True)
    rows = [changed_rows(*pair) for pair in calls]
    if TINY[name].perturbed:
        rows = [each[: TINY[name].num_images] for each in rows]
    return Subject(name, backbone, plain, results[0], outputs, shapes, rows, directions_of(recorder.recording()))


def run(name: str, backbone: Backbone, **changes: Any) -> Tensor:
    with torch.no_grad():
        return make(TINY[name], backbone.pipe, num_steps=NUM_STEPS, **changes)


def run_first_call(name: str, backbone: Backbone, see: Callable[..., None]) -> None:
    """Run until the denoiser's first call is done; see: (args, kwargs, output) of it."""

    def stop(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        handle.remove()
        see(args, kwargs, output)
        if not TINY[name].perturbed:  # which takes its processors off at its end alone
            raise EnoughError

    handle = backbone.denoiser.register_forward_hook(stop, with_kwargs=True)
    with suppress(EnoughError):
        run(name, backbone)


@contextmanager
def stopped(name: str, backbone: Backbone) -> Iterator[None]:
    """End a run where its first step does."""

    def stop(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if TINY[name].perturbed:
            return step(*args, **kwargs)
        raise EnoughError

    with wrapped(backbone.pipe.scheduler, "step", stop), suppress(EnoughError):
        yield


@contextmanager
def heard(backbone: Backbone, hear: Callable[[Any], Any]) -> Iterator[None]:
    """Show what every call of the denoiser gives while the context lasts."""
    handle = backbone.denoiser.register_forward_hook(lambda module, args, output: hear(output) and None)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def shaped(backbone: Backbone) -> Iterator[dict[str, torch.Size]]:
    """Keep the shapes of what gives tokens while the context lasts."""
    shapes: dict[str, torch.Size] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(module: Any, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 3:
                shapes[name] = output.shape

        return note

    handles = [module.register_forward_hook(noting(name)) for name, module in walk(backbone.denoiser) if name]
    try:
        yield shapes
    finally:
        for handle in handles:
            handle.remove()


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


def shown(name: str, backbone: Backbone, layers: list[str], hook: Any) -> Any:
    """Enter `hooked`; a pipeline that prepares latents in its call itself does not tell how many images it makes."""
    tells = any(hasattr(backbone.pipe, method) for method in PREPARE)
    return hooked(backbone, layers, hook, None if tells else TINY[name].num_images)


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


def directions_of(recording: Recording) -> SteeringVectors:
    generator = torch.Generator().manual_seed(0)
    return SteeringVectors(
        directions={
            layer: torch.randn(NUM_STEPS, 2, x.shape[-1], generator=generator)
            for layer, x in recording.activations.items()
        },
        mean_norms={layer: x.norm(dim=-1).mean(0) for layer, x in recording.activations.items()},
        steps=tuple(recording.steps), noise_levels=tuple(recording.noise_levels), options=("a", "b"), model="tiny",
        attribute="letter",
    )  # fmt: skip


def result_of(output: Any) -> Tensor:
    """Return what a call of the denoiser gives, of every row."""
    return torch.stack(output[0]) if isinstance(output[0], list) else output[0]
