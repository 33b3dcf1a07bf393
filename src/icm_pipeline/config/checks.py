"""What cannot work is refused before anything is computed."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from icm_pipeline.config.auditing import CLAIMS, SIZES, AuditConfig
from icm_pipeline.config.benching import BenchConfig
from icm_pipeline.config.bounds import MAY_BE
from icm_pipeline.config.choices import SET_FOR_EVERY_CALL, TRAINED
from icm_pipeline.config.combinations import check_combinations
from icm_pipeline.config.credentials import find_secret
from icm_pipeline.config.errors import ConfigError, unknown_setting
from icm_pipeline.config.localizing import LocalizersConfig
from icm_pipeline.config.schema import AttributeConfig, PretrainConfig, Settings

# Becomes part of a folder's name.
NAME = re.compile(r"\w[\w.+-]{0,63}")


def check_fields(group: Any, place: str = "") -> None:
    """Refuse a setting that nothing knows, as `+alpah=3` adds one, and a value that its field does not admit.

    place: the dotted name of the group with a dot after it. Raises ConfigError naming the setting and what it may be.
    """
    known: dict[str, Any] = {each.name: each.metadata.get(MAY_BE) for each in fields(group)}
    # Where a bound stands for a mapping's values, not for one value.
    mappings = {each.name for each in fields(group) if each.type is not Any}
    for name, value in vars(group).items():
        if name not in known:
            raise ConfigError(unknown_setting(place + name, name, list(known), place))
        for key, inner in value.items() if isinstance(value, dict) and name in mappings else [("", value)]:
            dotted = f"{place}{name}.{key}" if key else place + name
            if is_dataclass(inner):
                check_fields(inner, f"{dotted}.")
            elif (may_be := known[name]) is not None and not may_be.admit(inner):
                raise ConfigError(may_be.refusal(dotted, inner))


def check(settings: Settings) -> None:
    """Refuse what cannot work before anything is computed; raises ConfigError naming the value and its choices."""
    check_secrets(asdict(settings))
    check_fields(settings)
    _check_names(settings)
    _check_call(settings.model.call)
    _check_sites(settings.model.sites)
    _check_attribute(settings.attribute)
    _check_audit(settings.audit)
    _check_localizers(settings.localizers)
    _check_bench(settings.bench)
    _check_parts(settings.pretrain)
    check_combinations(settings)


def check_secrets(config: Any) -> None:
    """Refuse a key or token in a configuration, which logs, manifests and trackers would show; raises ConfigError."""
    if (where := find_secret(config)) is not None:
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
            way = f"Set {setting} instead." if (setting := SET_FOR_EVERY_CALL[name]) else "Leave it out."
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
    for name in ("steps", "batch_sizes", "learning_rates"):
        dotted, found = f"pretrain.{name}", getattr(pretrain, name)
        for part in found:
            if part not in TRAINED:
                raise ConfigError(unknown_setting(f"{dotted}.{part}", part, list(TRAINED), f"{dotted}."))
        if missing := [part for part in TRAINED if part not in found]:
            raise ConfigError(f"{dotted} has no number for {', '.join(missing)}. Add +{dotted}.{missing[0]}=<number>.")


def _check_attribute(attribute: AttributeConfig) -> None:
    _check_options(attribute)
    _check_words(attribute)
    _check_named(attribute)
    _check_text("attribute.name", attribute.name)
    for name in ("probe_templates", "probe_subjects", "trial_subjects", "evaluation_prompts"):
        texts = getattr(attribute, name)
        if not texts and name != "trial_subjects":
            raise ConfigError(f"attribute.{name} is empty: attribute {attribute.name!r} needs at least one prompt.")
        for text in texts:
            _check_text(f"attribute.{name}", text)
            if not text.strip():
                raise ConfigError(f"attribute.{name} contains an empty prompt.")
    if repeated := [text for text, count in Counter(attribute.evaluation_prompts).items() if count > 1]:
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


def _check_words(attribute: AttributeConfig) -> None:
    for option, words in attribute.words.items():
        if option not in attribute.options:
            raise ConfigError(unknown_setting(f"attribute.words.{option}", option, list(attribute.options)))
        for word in words:
            _check_text(f"attribute.words.{option}", word)
            if not re.search(r"\w", word):
                raise ConfigError(f"attribute.words.{option} contains {word!r}, which is no word. Leave it out.")


def _check_named(attribute: AttributeConfig) -> None:
    for name, subjects in {"named": attribute.named, "said": attribute.said}.items():
        for option, subject in subjects.items():
            if option not in attribute.options:
                raise ConfigError(unknown_setting(f"attribute.{name}.{option}", option, list(attribute.options)))
            if "{}" not in subject:
                raise ConfigError(f"attribute.{name}.{option}={subject!r} has no {{}} where the subject goes.")
    if attribute.named and (missing := [option for option in attribute.options if option not in attribute.named]):
        raise ConfigError(
            f"attribute.named says how a prompt names {', '.join(attribute.named)} but not {', '.join(missing)}. Give "
            "every option, or none."
        )


def _check_audit(audit: AuditConfig) -> None:
    for claim in audit.claims:
        if claim not in CLAIMS:
            raise ConfigError(f"audit.claims has {claim!r}, which is not known. Choose from: {', '.join(CLAIMS)}.")
    if missing := [size for size in SIZES if size not in audit.sizes]:
        raise ConfigError(f"audit.sizes lacks {', '.join(missing)}. Give what conf/config.yaml has of it.")
    for text in audit.other_subjects:
        _check_text("audit.other_subjects", text)
        if not text.strip():
            raise ConfigError(
                "audit.other_subjects contains an empty prompt. Give prompts of other subjects, as 'a photo of a dog', "
                "or [] for none."
            )


def _check_localizers(localizers: LocalizersConfig) -> None:
    windows = localizers.windows
    if not windows or min(windows) < 1 or len(set(windows)) < len(windows):
        raise ConfigError(f"localizers.windows={windows} must be numbers of layers, at least 1, each once.")


def _check_bench(bench: BenchConfig) -> None:
    if bench.included and bench.size not in bench.sizes:
        raise ConfigError(f"bench.sizes lacks {bench.size}.")


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise ConfigError(f"{name} contains {text!r}, which is no text: put a text with : or {{}} in quotes.")
    if text in ("True", "False"):
        raise ConfigError(
            f"{name} contains {text}: YAML reads yes, no, on and off so. Put such a text in quotes, or longer."
        )
