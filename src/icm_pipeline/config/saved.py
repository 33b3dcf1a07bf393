"""What Hydra saved of a run: running again from it, --config-path=<run>/.hydra --config-name=config, and reading it."""

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from icm_pipeline.config.conf_folder import conf_path
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.help_page import choices_of

SAVED = ("config.yaml", "hydra.yaml", "overrides.yaml")  # what Hydra writes into a run's folder `.hydra`
SLASH = quote("/", safe="")
OF_FIXED_NAMES = ("audit.sizes", "bench.sizes", "pretrain.steps", "pretrain.batch_sizes", "pretrain.learning_rates")
"""Mappings whose names the package chose, not a user."""


def primary_config(words: list[str]) -> tuple[list[str], str]:
    """Return a command line without the options that name a saved configuration, and the name of the one to start from.

    A saved one has values and no groups: it gets the schema and the package's own settings of Hydra, and is registered
    under its folder's name. `--config-dir` with such a folder, in which Hydra finds nothing, means the same. Raises
    ConfigError for a folder or a file that is not there, and for a choice of a group.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for name, short in (("path", "-cp"), ("name", "-cn"), ("dir", "-cd")):
        parser.add_argument(f"--config-{name}", short)
    given, others = parser.parse_known_args(words)
    folder = Path(given.config_path or given.config_dir or "").absolute()
    is_saved = all((folder / name).is_file() for name in SAVED)
    if not is_saved or given.config_name not in (None, "config", "config.yaml"):
        if given.config_path is not None and given.config_dir is None and "://" not in given.config_path:
            _check_primary(Path(given.config_path), (given.config_name or "config").removesuffix(".yaml"))
        return words, "config"
    for word in others:
        _check_value(word, folder)
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    name = quote(str(folder), safe="")
    of_hydra = OmegaConf.select(OmegaConf.load(conf_path() / "config.yaml"), "hydra")
    beneath = {"defaults": ["schema", "_self_"], "hydra": of_hydra}
    ConfigStore.instance().store(name=name, node=OmegaConf.merge(beneath, OmegaConf.load(folder / "config.yaml")))
    return others, name


def _check_primary(folder: Path, name: str) -> None:
    """Refuse a folder that is not there, or has no file of that name, where Hydra would look for a module."""
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}. A run's is --config-path=outputs/runs/<day>/<run>/.hydra.")
    if not (folder / f"{name}.yaml").is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml"))) or "no YAML file"
        inner = f" Its run was saved in {folder / '.hydra'}." if (folder / ".hydra").is_dir() else ""
        raise ConfigError(f"{folder} has no {name}.yaml for --config-name={name}; it has: {known}.{inner}")


def _check_value(word: str, folder: Path) -> None:
    """Refuse a choice of a group, as model=sdxl, beside a saved configuration."""
    name, _, value = word.lstrip("+~").partition("=")
    group = name.partition("@")[0]
    if "/" not in group and choices_of(group) and not value.startswith("{"):
        raise ConfigError(
            f"{word}: the configuration saved in {folder} has values and no groups. Set single values, as alpha=3 or "
            "model.num_steps=20, or give the run's own words again (overrides.yaml) with this one."
        )


def primary_words(name: str | None) -> list[str]:
    """Return the options that start from a primary configuration again."""
    if name is not None and name.startswith(SLASH):
        return [f"--config-path={unquote(name)}", "--config-name=config"]
    return [] if name in (None, "config") else [f"--config-name={name}"]


def laid_over(today: Any, saved: Any, place: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return what an earlier version saved as today's version reads it, and the dotted names it knows no more.

    today: a group of the settings, composed today. What was not saved has the schema's default, which says what its
    absence meant, or, where the schema has none, today's value.
    """
    names = {each.name: each for each in fields(today)}
    unknown = [f"{place}{name}" for name in saved if name not in names]
    laid = dict[str, Any]()
    for name, each in names.items():
        own, dotted = getattr(today, name), f"{place}{name}"
        if name not in saved:
            laid |= {} if _has_default(each) else {name: _plain(own)}
        elif is_dataclass(own) and isinstance(saved[name], Mapping):
            laid[name], more = laid_over(own, saved[name], f"{dotted}.")
            unknown += more
        elif dotted in OF_FIXED_NAMES and isinstance(saved[name], Mapping):
            laid[name] = {**_plain(own), **saved[name]}
        else:
            laid[name] = saved[name]
    return laid, unknown


def _has_default(each: Field[Any]) -> bool:
    return each.default is not MISSING or each.default_factory is not MISSING


def _plain(value: Any) -> Any:
    """Return a dataclass, and those in a mapping, as mappings; anything else as it is."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return {key: _plain(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value
