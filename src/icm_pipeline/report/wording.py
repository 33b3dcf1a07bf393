"""A way of steering in words."""

from collections.abc import Sequence
from typing import Any

from icm_pipeline.results.sweeps import SweepJob

AXIS_NAMES = {
    "alpha": "alpha", "k": "k, steered layers", "first_step": "first steered step", "last_step": "last steered step",
}  # fmt: skip
KIND_NAMES = {
    "self_attention": "self-attention", "cross_attention": "cross-attention", "feed_forward": "feed-forward",
    "gated_self_attention": "gated self-attention", "gated_feed_forward": "gated feed-forward", "block": "blocks",
    "mixed": "mixed",
}  # fmt: skip


def describe(steering: dict[str, Any], told: Sequence[str] = ()) -> str:
    """Return a way of steering in a few words: which layers, how far, and whatever is unusual about it.

    told: settings of what the steering was made from that are to be told as well.
    """
    return ", ".join(words_of(steering, told))


def words_of(steering: dict[str, Any], told: Sequence[str]) -> list[str]:
    if steering["method"] == "none":
        return ["no steering", *told]
    unit = "" if steering["alpha_unit"] == "relative" else " (activation units)"
    last = steering["last_step"]
    window = f"steps {steering['first_step']} to {'the end' if last is None else last}"
    unusual = {
        f"{steering['direction'].replace('_', ' ')} direction": steering["direction"] != "probe",
        window: steering["first_step"] > 0 or last is not None,
        "one vector for all steps": steering["vector"] == "mean",
        "norm-preserving": steering["norm_preserving"],
        f"drawn per {steering['assignment']}": steering["assignment"] != "quota",
        f"towards {steering['target_shares']}": steering["target_shares"] is not None,
    }
    words = [f"{_which_layers(steering)} {KIND_NAMES[steering['kind']]}", f"alpha {steering['alpha']:g}{unit}"]
    return [*words, *(word for word, applies in unusual.items() if applies), *told]


def _which_layers(steering: dict[str, Any]) -> str:
    k = len(steering["layers"])
    return {"top": f"best {k}", "all": f"all {k}", "named": f"{k} named"}.get(
        steering["rule"], f"{steering['rule']} {k}"
    )


def phrase(job: SweepJob, names: Sequence[str]) -> str:
    """Return some of a job's factors in a few words, such as `best 4 cross-attention, alpha 2`."""
    words, told = [], job.factors
    if {"rule", "kind", "k"} & set(names):
        rule = {"top": "best", "all": "all", "named": "named"}.get(told["rule"], told["rule"])
        kind = f" {KIND_NAMES.get(told['kind'], told['kind'].replace('_', ' '))}" if "kind" in names else ""
        words.append(f"{rule} {told['k']}{kind}" if {"rule", "kind"} & set(names) else f"k = {told['k']}")
    for name in names:
        value = told.get(name)
        if name in ("model", "attribute", "method"):
            words.append(str(value).replace("_", " "))
        elif name == "alpha":
            words.append(f"alpha {value:.3g}")
        elif name not in ("rule", "kind", "k", "first_step", "last_step"):
            words.append(f"{name} = {value}")
    return ", ".join(words + _steps(told, names))


def _steps(told: dict[str, Any], names: Sequence[str]) -> list[str]:
    last = "the end" if told["last_step"] == "end" else str(told["last_step"])
    if {"first_step", "last_step"} <= set(names):
        return [f"steps {told['first_step']} to {last}"]
    if "first_step" in names:
        return [f"from step {told['first_step']}"]
    return [f"to {last}" if last == "the end" else f"to step {last}"] if "last_step" in names else []
