"""From YAML and words to checked settings, and back to words."""

import json
import logging
import re
from pathlib import Path
from typing import Any

from icm_pipeline.config.benching import SIZES
from icm_pipeline.config.checks import check
from icm_pipeline.config.conf_folder import conf_path
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.help_page import choices_of, groups_help
from icm_pipeline.config.saved import laid_over, primary_words
from icm_pipeline.config.schema import Settings
from icm_pipeline.config.shares import read_shares
from icm_pipeline.text import with_article

log = logging.getLogger(__name__)


def config_words(hydra: Any) -> list[str]:
    """Return what names the folders and the file of a composed configuration, as far as they are not the package's own.

    hydra: Hydra's own part of the configuration. Options stand before overrides, as Hydra's parser wants them.
    """
    words = []
    for source in hydra.runtime.config_sources:
        path = source.path.removeprefix("file://")
        if source.provider == "main" and Path(path).resolve() != conf_path():
            words.append(f"--config-path={path}")
        elif source.provider == "command-line":
            words.append(f"--config-dir={path}")
    words += primary_words(hydra.job.config_name)
    if hydra.searchpath:
        words.append(f"hydra.searchpath={json.dumps(list(hydra.searchpath), ensure_ascii=False)}")
    return words


def quoted(text: Path | str) -> str:
    """Return a path, or another text, as Hydra's grammar reads it, whatever its characters.

    Backslashes stand for themselves but before a quote or a reference, where they are doubled.
    """
    doubled = re.sub(r"(\\*)('|\$\{)", r"\1\1\\\2", str(text))
    at_the_end = len(doubled) - len(doubled.rstrip("\\"))
    return f"'{doubled}{at_the_end * chr(92)}'"


def as_value(text: Path | str) -> str:
    """Return a path as the value of a setting on a command line: as it is, or quoted where Hydra reads it otherwise."""
    return str(text) if re.fullmatch(r"[\w./-]+", str(text), re.ASCII) else quoted(text)


def register_resolvers() -> None:
    """Tell OmegaConf what configurations compute, as `${times:0.5,${model.steering.k}}` and `${plus:1,2}`."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("help_of_groups", groups_help, replace=True)
    OmegaConf.register_new_resolver("times", _times, replace=True)
    OmegaConf.register_new_resolver("plus", lambda *terms: sum(terms), replace=True)
    OmegaConf.register_new_resolver("if_quick", _if_quick, replace=True)
    OmegaConf.register_new_resolver("for_each_option", _for_each_option, replace=True)
    OmegaConf.register_new_resolver("choices", lambda group: ",".join(choices_of(group)), replace=True)
    OmegaConf.register_new_resolver("filled", _filled, replace=True)
    OmegaConf.register_new_resolver("option_words", _option_words, replace=True)


def _times(factor: float, value: float) -> float:
    """Return the product; where the value is a whole number, rounded to one and at least 1."""
    return max(1, round(factor * value)) if isinstance(value, int) else factor * value


def _if_quick(quick: Any, full: Any, of: str = "bench", *, _root_: Any) -> Any:
    """Return what a bench, or an audit, of size quick takes, or else the other."""
    return quick if _root_[of].size == "quick" else full


def _for_each_option(number: int, *, _root_: Any) -> int:
    """Return what so many for each option of the attribute come to."""
    return int(number * len(_root_.attribute.options))


def _filled(templates: Any, subjects: Any) -> list[str]:
    """Return every template with every subject, and its article."""
    return [with_article(template.replace("{}", subject)) for template in templates for subject in subjects]


def _option_words(*, _root_: Any) -> dict[str, str] | None:
    """Return what says each option in a prompt, {option: a subject with {} in it}; None if that is its name before it.

    As attribute.said has it or else attribute.named: "a face of a light teacher" says nothing of skin.
    """
    attribute = _root_.attribute
    names = {option: f"{option.replace('_', ' ')} {{}}" for option in attribute.options}
    said = {option: attribute.said.get(option, attribute.named.get(option, text)) for option, text in names.items()}
    return None if said == names else said


def _as_float(value: Any) -> Any:
    """Return the number that a whole number or a text is, as OmegaConf does of a float; anything else as it is."""
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value


def _fill_shares(settings: Settings) -> None:
    """Read the target shares of each prompt, if a table gives them."""
    method, attribute = settings.method, settings.attribute
    if method.shares_table is None:
        for prompt, shares in method.shares_by_prompt.items():  # whole numbers may stand among others
            if isinstance(shares, list):
                method.shares_by_prompt[prompt] = [_as_float(share) for share in shares]
        return
    if method.shares_by_prompt:
        raise ConfigError("method.shares_table and method.shares_by_prompt exclude each other: leave out one of them.")
    method.shares_by_prompt = read_shares(
        Path(method.shares_table), list(attribute.options), attribute.evaluation_prompts
    )
    if not method.shares_by_prompt:
        raise ConfigError(f"method.shares_table={method.shares_table} names no prompt of attribute.evaluation_prompts.")


def _check_size(size: str | None) -> None:
    """Raise ConfigError for a size that no bench has, before a reference to what it takes fails in other words."""
    if size is not None and size not in SIZES:
        raise ConfigError(f"bench.size={size} is not known. Choose one of: {', '.join(SIZES)}.")


def to_settings(cfg: Any) -> Settings:
    """Resolve a composed configuration into checked `Settings`; raises ConfigError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    register_resolvers()
    try:
        if OmegaConf.get_type(cfg) is not Settings:  # a primary configuration of one's own, without the schema
            cfg = OmegaConf.merge(OmegaConf.structured(Settings), cfg)
        _check_size(OmegaConf.select(cfg, "bench.size"))
        settings = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        missing = f"{error.full_key} has no value. Add it to its YAML file or give {error.full_key}=<value>."
        told = missing if isinstance(error, MissingMandatoryValue) else error
        raise ConfigError(f"The configuration does not hold together: {told}") from error
    assert isinstance(settings, Settings)
    settings.alpha = _as_float(settings.alpha)
    _fill_shares(settings)
    check(settings)
    return settings


def saved_settings(folder: Path, today: Settings) -> Settings:
    """Return the settings of a run, from the configuration that Hydra saved in its folder; raises ConfigError.

    today: where a setting without a default in the schema comes from that an earlier version did not save.
    """
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        saved = OmegaConf.load(folder / ".hydra" / "config.yaml")
        laid, unknown = laid_over(today, OmegaConf.to_container(saved, resolve=False))
        if unknown:
            log.warning("%s was saved by another version; left out: %s", folder, ", ".join(unknown))
        return to_settings(OmegaConf.create(laid))
    except (OSError, YAMLError, ConfigError) as error:
        raise ConfigError(
            f"The configuration of the run in {folder} cannot be read: {error} It stands in .hydra/config.yaml."
        ) from error
