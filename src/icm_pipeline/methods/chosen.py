"""Which vectors are used, and how strongly: as they were used last, except for what is given."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from icm_pipeline.methods.strength import Strength, checked_alpha
from icm_pipeline.methods.vectors import SteeringVectors, load_vectors

log = logging.getLogger(__name__)

OneAttribute = SteeringVectors | str | Path


_warned: set[tuple[str, str]] = set()


def warn_of_another_model(vectors: SteeringVectors, loaded: str | Path | None) -> None:
    """Warn, once a pair, where a model was loaded from another name than the one that vectors were made with.

    Layers of one name and width may do something else in another model; in one that was fine-tuned from it they may do
    the same. A pipeline that was put together in memory has no name.
    """
    made_with = str(vectors.made_with.get("path") or "")
    names = _last_name(made_with), _last_name(str(loaded or ""))
    if not all(names) or names[0] == names[1] or names in _warned:
        return
    _warned.add(names)
    log.warning(
        "These vectors were made with %s and this model was loaded from %s: if it is another one, and was not "
        "fine-tuned from it, they mean nothing in it.", made_with, loaded,
    )  # fmt: skip


def _last_name(path: str) -> str:
    """Return the last part of a model's path or name, also of a snapshot in the hub's cache."""
    cached = re.search(r"models--(?:[^/\\]*--)?([^/\\]+)[/\\]snapshots", path)
    return cached.group(1) if cached else re.split(r"[/\\:]", path.rstrip("/\\"))[-1]


def check_layers(layers: Sequence[str] | None) -> None:
    """Raise ValueError for a string where a list of names belongs: it would be taken letter by letter."""
    if isinstance(layers, str):
        raise ValueError(f"layers={layers!r}: give a list, [{layers!r}].")


def chosen_vectors(
    vectors: OneAttribute,
    option: str | Sequence[str] | None,
    layers: Sequence[str] | None,
    alpha: float | Sequence[float] | None,
    alpha_unit: str | None,
    window: tuple[int, int | None] | None,
    norm_preserving: bool | None,
) -> tuple[SteeringVectors, Strength]:
    """Return the vectors of the layers and how strongly to steer: as it was done last, except for what is given."""
    chosen = vectors if isinstance(vectors, SteeringVectors) else load_vectors(vectors)
    check_layers(layers)
    chosen = chosen if layers is None else chosen.of_layers(layers)
    used, alpha = chosen.strength, None if alpha is None else checked_alpha(alpha)
    if used is None:
        if alpha is None:
            raise ValueError("These vectors were not used to steer yet, so they know no alpha: give alpha=.")
        used = Strength(alpha)
    if alpha_unit not in (None, "relative", "activation"):
        raise ValueError(f"alpha_unit={alpha_unit!r} is not known; choose relative or activation.")
    if alpha is None and alpha_unit not in (None, used.alpha_unit):
        known = f"{used.alpha:g}" if isinstance(used.alpha, (int, float)) else used.alpha
        raise ValueError(
            f"alpha={known} was in units of {used.alpha_unit}: give an alpha= for alpha_unit={alpha_unit!r}."
        )
    if alpha is None and chosen.tuned and option is not None:
        alpha = chosen.alpha_of(option) if isinstance(option, str) else [chosen.alpha_of(name) for name in option]
    given = {"alpha": alpha, "alpha_unit": alpha_unit, "norm_preserving": norm_preserving}
    strength = replace(used, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    if window is not None:
        if isinstance(window, str) or not isinstance(window, Sequence) or len(window) != 2:
            raise ValueError(
                f"window={window!r}: give the first and the last step, as (3, 20), None for the run's last."
            )
        first, last = window
        if first < 0 or (last is not None and last < first):
            raise ValueError(
                f"window={window} holds no step: give the first and the last step, None for the run's last."
            )
        strength = replace(strength, first_step=first, last_step=last, num_steps=None)
    return chosen, strength
