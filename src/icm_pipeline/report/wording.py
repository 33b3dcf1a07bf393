"""A way of steering in words, for pages, tables and figures alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.methods.icm import layers_in_words, window_in_words
from icm_pipeline.methods.registry import words_of
from icm_pipeline.results.evaluation import Evaluation
from icm_pipeline.results.steering import Steering
from icm_pipeline.text import count_text

AXIS_NAMES = {
    "alpha": "alpha", "k": "k, steered layers", "first_step": "first steered step", "last_step": "last steered step",
}  # fmt: skip
FEW_IMAGES, FEW_FEATURES = 50, 1000  # below which intervals, FID and KID come with a caution


def title_of(evaluation: Evaluation, told: Sequence[str] = ()) -> str:
    """Return what was evaluated: the attribute, and the model with its way of steering, or the folder."""
    attribute, model = evaluation.attribute.replace("_", " "), evaluation.model
    if evaluation.steering is None:
        return f"{attribute} in {model}, {count_text(evaluation.num_images, 'image')}"
    return f"{attribute} on {model}: {describe(evaluation.steering, told)}"


def describe(steering: Steering, told: Sequence[str] = ()) -> str:
    """Return a way of steering in a few words: which layers, how far, what is unusual about it, and `told` after it."""
    return ", ".join([*words_of(steering), *told])


def cautions(evaluation: Evaluation) -> list[str]:
    """Return in a sentence each what the figures of few images cannot tell."""
    number, reference = evaluation.num_images, evaluation.reference
    found = caution_of_intervals(number)
    if reference and (few := min(number, reference.num_images)) < FEW_FEATURES:
        found.append(
            f"Caution: of {few} images, FID depends on their number, so compare it between sets of one size only; "
            f"KID varies by {reference.kid_deviation:.2g} between draws. Take {FEW_FEATURES} or more."
        )
    return found


def caution_of_intervals(number: int) -> list[str]:
    """Return in a sentence what intervals of a number of images cannot tell; nothing of enough."""
    if number >= FEW_IMAGES:
        return []
    return [
        f"Caution: intervals of {number} images find only what these few show, and are too narrow where all of "
        f"them agree. Take {FEW_IMAGES} or more."
    ]


def phrase(factors: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return some factors of a sweep's job in a few words, such as `best 4 cross-attention, alpha 2`."""
    words = []
    if {"rule", "kind", "k"} & set(names):
        kind = f" {KIND_NAMES[factors['kind']]}" if "kind" in names else ""
        ruled = {"rule", "kind"} & set(names)
        count = layers_in_words(factors["rule"], factors["k"]) if ruled else f"k = {factors['k']}"
        words.append(f"{count}{kind}")
    for name in names:
        value = factors.get(name)
        if name in ("model", "attribute", "method"):
            words.append(str(value).replace("_", " "))
        elif name == "alpha":
            words.append(f"alpha {value}" if isinstance(value, str) else f"alpha {value:.3g}")
        elif value is not None and name not in ("rule", "kind", "k", "first_step", "last_step"):
            words.append(f"{name} = {value}")
    first, last = (factors[name] if name in names else None for name in ("first_step", "last_step"))
    return ", ".join([*words, window_in_words(first, last)] if first is not None or last is not None else words)
