"""What of a setting counts for a key: what the chosen rule, method or judge does not read changes no result.

Values keep their names, and None stands for those that do not count, so that a manifest still tells what was set.
"""

from collections.abc import Collection
from typing import Any

from icm_pipeline.config.schema import Settings
from icm_pipeline.config.values import value_at

READ_BY_RULE = {
    "top": ("kind", "k"), "worst": ("kind", "k"), "random": ("kind", "k", "seed"), "all": ("kind",),
    "named": ("names",), "causal": ("kind", "k"),
}  # fmt: skip
YOUNGER = {"evaluate.seeds_before": 0}  # than many keys, which do not have it where it is this
READ_OF_DRIFT = ("name", "options")  # the prompts are the evaluated attribute's


def relevant(settings: Settings, dotted: str, read_by_method: Collection[str]) -> Any:
    """Return a setting's value or group as plain data, with None in place of what changes nothing beside the others.

    read_by_method: what the method reads of alpha and its settings.
    """
    value = value_at(settings, dotted)
    if dotted == "layers":
        return _only(value, ("rule", *READ_BY_RULE[value["rule"]]))
    if dotted == "audit.claims":
        return list(settings.audit.asked)
    if dotted == "evaluate.drift":
        return {key: {name: other[name] for name in READ_OF_DRIFT} for key, other in value.items()}
    if dotted == "method.target_shares":
        return _target(settings)
    if dotted == "method":
        value["target_shares"] = _target(settings)
        for name, without in (("look", None), ("tries", 1)):  # younger than many keys
            if value[name] == without:
                del value[name]
        if value["params"].get("rows") == "conditional":  # of h_distribution, younger too
            del value["params"]["rows"]
        value["params"] = _params(value["params"])
        for name in (
            "wanted_share",
            "strength",
            "strengths",
            "shares_table",
            "shares_by_prompt",
        ):  # what they change is another artifact's
            del value[name]
        if settings.searched in {f"params.{name}" for name in value["params"]}:
            value["params"][str(settings.searched).removeprefix("params.")] = None
        read = [name for name in value if {"method", f"method.{name}"} & set(read_by_method)]
        unread = {"draw_size"} if value["assignment"] != "batch" else set()
        return _only(value, [name for name in read if name not in unread and value[name] != {}])
    if dotted == "method.params":
        return _params(value)
    if dotted == "alpha" and ("alpha" not in read_by_method or settings.searched == "alpha"):
        return None
    return value


def _params(params: dict[str, Any]) -> dict[str, Any]:
    """Return a method's parameters without words for options, younger than keys, where it names none or by its name."""
    unread = params.get("option_words") is None or params.get("text", "option") != "option"
    return {name: value for name, value in params.items() if not (unread and name == "option_words")}


def _target(settings: Settings) -> Any:
    """Return the target shares; where prompts have their own, these."""
    return settings.method.shares_by_prompt or settings.method.target_shares


def _only(group: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value if name in names else None for name, value in group.items()}
