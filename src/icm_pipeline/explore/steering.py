"""What a batch is steered by: the vectors of a setting, or a rival as its run used it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from icm_pipeline.api import steer
from icm_pipeline.backbones.base import Backbone
from icm_pipeline.explore.material import Material, Rival
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.looking import Look
from icm_pipeline.methods.strength import with_strength


class Where(Protocol):
    """Where a batch is steered."""

    @property
    def layers(self) -> tuple[str, ...]: ...

    @property
    def first_step(self) -> int: ...

    @property
    def last_step(self) -> int: ...


def steering_of(
    material: Material, where: Where, num_images: int, **aim: Any
) -> Callable[[Backbone], AbstractContextManager[Any]]:
    """Return what steers a batch: the layers and the window of `where`; aim: options or shares, and alpha."""
    strength = material.strength
    return partial(
        steer, vectors=material.vectors, layers=list(where.layers), window=(where.first_step, where.last_step),
        alpha_unit=strength.alpha_unit, norm_preserving=strength.norm_preserving, num_images=num_images, **aim,
    )  # fmt: skip


@contextmanager
def noted(steering: AbstractContextManager[Any], looks: list[Look]) -> Iterator[None]:
    """Note the looks of a context that ends well."""
    with steering as found:
        yield
    looks += found


def changed_to(look: Look) -> list[str]:
    """Return what each image of a look is steered to; empty for one that goes on as it was."""
    pairs = zip(look.options, look.steered.tolist(), strict=True)
    return [option or "" if is_steered else "" for option, is_steered in pairs]


def scaled(rival: Rival, factor: float, option_of: Mapping[str, int]) -> MethodInputs:
    """Return what a rival is given, so many times as strong as in its run where anything says how strong it is."""
    settings, name = rival.settings, rival.settings.method.strength
    tuned = {option: replace(found, alpha=factor * found.alpha) for option, found in rival.tuned.items()}
    own = settings.alpha if name == "alpha" else settings.method.params.get(str(name).removeprefix("params."))
    if name is not None and isinstance(own, (int, float)):
        settings = with_strength(settings, factor * own)
    return MethodInputs(settings, rival.artifacts, rival.layers, option_of, tuned)
