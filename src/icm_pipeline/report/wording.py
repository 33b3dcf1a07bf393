"""A way of steering in words, for pages, tables and figures alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from icm_pipeline.results.evaluation import Evaluation
from icm_pipeline.results.steering import Steering
from icm_pipeline.text import count_text

AXIS_NAMES = {
    "alpha": "alpha", "k": "k, steered layers", "first_step": "first steered step", "last_step": "last steered step",
}  # fmt: skip
KIND_NAMES = {
    "self_attention": "self-attention", "cross_attention": "cross-attention", "feed_forward": "feed-forward",
    "gated_self_attention": "gated self-attention", "gated_feed_forward": "gated feed-forward", "block": "blocks",
    "mixed": "mixed",
}  # fmt: skip


def title_of(evaluation: Evaluation, told: Sequence[str] = ()) -> str:
    """Return what was evaluated: the attribute, and the model with its way of steering, or the folder."""
    attribute, model = evaluation.attribute.replace("_", " "), evaluation.model
    if evaluation.steering is None:
        return f"{attribute} in {model}, {count_text(evaluation.num_images, 'image')}"
    return f"{attribute} on {model}: {describe(evaluation.steering, told)}"


def describe(steering: Steering, told: Sequence[str] = ()) -> str:
    """Return a way of steering in a few words: which layers, how far, and whatever is unusual about it.

    told: settings of what the steering was made from, to be told after it.
    """
    return ", ".join(words_of(steering, told))


def words_of(steering: Steering, told: Sequence[str]) -> list[str]:
    """Return the words of `describe` one by one."""
    if steering.method == "none":
        return ["no steering", *told]
    unit = "" if steering.alpha_unit == "relative" else " (activation units)"
    first, last = steering.first_step, steering.last_step
    unusual = {
        f"{steering.direction.replace('_', ' ')} direction": steering.direction != "probe",
        _window(first, "end" if last is None else last): first > 0 or last is not None,
        "one vector for all steps": steering.vector == "mean",
        "norm-preserving": steering.norm_preserving,
        f"drawn per {steering.assignment}": steering.assignment != "quota",
        f"towards {steering.target_shares}": steering.target_shares is not None,
    }
    layers = f"{_count(steering.rule, len(steering.layers))} {KIND_NAMES[steering.kind]}"
    return [
        layers, f"alpha {steering.alpha:g}{unit}", *(word for word, applies in unusual.items() if applies), *told
    ]  # fmt: skip


def phrase(factors: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return some factors of a sweep's job in a few words, such as `best 4 cross-attention, alpha 2`."""
    words = []
    if {"rule", "kind", "k"} & set(names):
        kind = f" {KIND_NAMES[factors['kind']]}" if "kind" in names else ""
        count = _count(factors["rule"], factors["k"]) if {"rule", "kind"} & set(names) else f"k = {factors['k']}"
        words.append(f"{count}{kind}")
    for name in names:
        value = factors.get(name)
        if name in ("model", "attribute", "method"):
            words.append(str(value).replace("_", " "))
        elif name == "alpha":
            words.append(f"alpha {value:.3g}")
        elif name not in ("rule", "kind", "k", "first_step", "last_step"):
            words.append(f"{name} = {value}")
    first, last = (factors[name] if name in names else None for name in ("first_step", "last_step"))
    return ", ".join([*words, _window(first, last)] if first is not None or last is not None else words)


def _count(rule: str, k: int) -> str:
    return {"top": f"best {k}", "named": f"{k} named"}.get(rule, f"{rule} {k}")


def _window(first: int | None, last: int | str | None) -> str:
    """Return the steered steps in words; what is None is left unsaid, and `end` is the last step."""
    end = "the end" if last == "end" else last
    if first is None:
        return f"to {end}" if last == "end" else f"to step {end}"
    return f"from step {first}" if last is None else f"steps {first} to {end}"
