"""What cannot work is refused before anything is computed."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from icm_pipeline.config.bounds import BOUNDS_BY_PART, check_values
from icm_pipeline.config.choices import SET_FOR_EVERY_CALL, TRAINED
from icm_pipeline.config.combinations import check_combinations
from icm_pipeline.config.credentials import find_secret
from icm_pipeline.config.schema import AttributeConfig, PretrainConfig, Settings
from icm_pipeline.config.schema import ConfigError as ConfigError
from icm_pipeline.text import no_setting

# Becomes part of a folder's name.
NAME = re.compile(r"\w[\w.+-]{0,63}")


def refuse_added(settings: Any, place: str) -> None:
    """Raise ConfigError for a setting that nothing knows, as `+alpah=3` adds one."""
    known = [field.name for field in fields(settings)]
    for name, value in vars(settings).items():
        if name not in known:
            raise ConfigError(no_setting(place + name, name, known, place))
        for key, inner in value.items() if isinstance(value, dict) else [("", value)]:
            if is_dataclass(inner):
                refuse_added(inner, f"{place}{name}.{key}." if key else f"{place}{name}.")


def check(settings: Settings) -> None:
    """Refuse what cannot work before anything is computed; raises ConfigError naming the value and its choices."""
    refuse_secrets(asdict(settings))
    _check_names(settings)
    check_values(settings)
    _check_call(settings.model.call)
    _check_sites(settings.model.sites)
    _check_attribute(settings.attribute)
    _check_parts(settings.pretrain)
    check_combinations(settings)


def refuse_secrets(config: Any) -> None:
    """Refuse a key or token in a configuration, which logs, manifests and trackers would show; raises ConfigError."""
    where = find_secret(config)
    if where is not None:
        raise ConfigError(
            f"{where} holds a key, token or password. Leave it in the environment (HF_TOKEN, WANDB_API_KEY) or in the "
            "login of its tool; a setting of Hydra's own can refer to it as ${oc.env:NAME}."
        )


def _check_names(settings: Settings) -> None:
    drift = {f"evaluate.drift.{key}.name": other.name for key, other in settings.evaluate.drift.items()}
    for dotted, name in {"model.name": settings.model.name, "attribute.name": settings.attribute.name, **drift}.items():
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{dotted}={name} cannot be part of a folder's name. Use at most 64 letters, digits and _ - . +, "
                "beginning with a letter or digit."
            )


def _check_call(call: Mapping[str, Any]) -> None:
    for name in call:
        if name in SET_FOR_EVERY_CALL:
            setting = SET_FOR_EVERY_CALL[name]
            way = f"Set {setting} instead." if setting else "Leave it out."
            raise ConfigError(f"model.call.{name} cannot be set: it is decided for every call of the pipeline. {way}")


def _check_sites(sites: Mapping[str, str]) -> None:
    for kind, pattern in sites.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"model.sites.{kind}={pattern} is no regular expression ({error}). It must match whole names of "
                "modules, such as .*attn1; put a backslash before a character that is meant as it is."
            ) from error


def _check_parts(pretrain: PretrainConfig) -> None:
    """Refuse a mapping from parts to numbers that names another part, or lacks one."""
    for dotted in BOUNDS_BY_PART:
        found = getattr(pretrain, dotted.removeprefix("pretrain."))
        for part in found:
            if part not in TRAINED:
                raise ConfigError(no_setting(f"{dotted}.{part}", part, list(TRAINED), f"{dotted}."))
        missing = [part for part in TRAINED if part not in found]
        if missing:
            raise ConfigError(f"{dotted} has no number for {', '.join(missing)}. Add +{dotted}.{missing[0]}=<number>.")


def _check_attribute(attribute: AttributeConfig) -> None:
    _check_options(attribute)
    prompts = {
        "probe_templates": attribute.probe_templates,
        "probe_subjects": attribute.probe_subjects,
        "evaluation_prompts": attribute.evaluation_prompts,
    }
    for name, texts in prompts.items():
        if not texts:
            raise ConfigError(f"attribute.{name} is empty: attribute {attribute.name!r} needs at least one prompt.")
        for text in texts:
            _check_text(f"attribute.{name}", text)
            if not text.strip():
                raise ConfigError(f"attribute.{name} contains an empty prompt.")
    repeated = [text for text, count in Counter(attribute.evaluation_prompts).items() if count > 1]
    if repeated:
        raise ConfigError(
            f"attribute.evaluation_prompts has {repeated[0]!r} more than once, and FD counts every prompt as another. "
            "Leave out what is repeated; evaluate.images_per_prompt makes more images of each."
        )
    for template in attribute.probe_templates:
        if "{}" not in template:
            raise ConfigError(f"Probe template {template!r} has no {{}} where the subject goes.")


def _check_options(attribute: AttributeConfig) -> None:
    if len(attribute.options) < 2:
        raise ConfigError(
            f"Attribute {attribute.name!r} has {len(attribute.options)} option(s) ({', '.join(attribute.options)}); "
            "a choice needs at least two. Add options to conf/attribute/<name>.yaml."
        )
    owners: dict[str, str] = {}
    for option, texts in attribute.options.items():
        for text in texts:
            _check_text(f"attribute.options.{option}", text)
        if not texts or not all(text.strip() for text in texts):
            raise ConfigError(f"Option {option!r} of attribute {attribute.name!r} has an empty label text.")
        for text in texts:
            if owners.setdefault(text, option) != option:
                raise ConfigError(
                    f"Options {owners[text]!r} and {option!r} of attribute {attribute.name!r} share the label text "
                    f"{text!r}; no judge could tell them apart."
                )


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise ConfigError(f"{name} contains {text!r}, which is no text: put a text with : or {{}} in quotes.")
