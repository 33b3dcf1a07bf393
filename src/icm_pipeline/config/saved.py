"""Running again from the configuration that Hydra saved of a run: --config-path=<run>/.hydra --config-name=config."""

from argparse import ArgumentParser
from pathlib import Path
from urllib.parse import quote, unquote

from icm_pipeline.config.conf_folder import conf_path

SAVED = ("config.yaml", "hydra.yaml", "overrides.yaml")  # what Hydra writes into a run's folder `.hydra`
SLASH = quote("/", safe="")


def primary_config(words: list[str]) -> tuple[list[str], str]:
    """Return a command line without the options that name a saved configuration, and the name of the one to start from.

    A saved one has values and no groups: it gets the schema and the package's own settings of Hydra, and is registered
    under its folder's name. `--config-dir` with such a folder, in which Hydra finds nothing, means the same.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for name, short in (("path", "-cp"), ("name", "-cn"), ("dir", "-cd")):
        parser.add_argument(f"--config-{name}", short)
    given, others = parser.parse_known_args(words)
    folder = Path(given.config_path or given.config_dir or "").absolute()
    is_saved = all((folder / name).is_file() for name in SAVED)
    if not is_saved or given.config_name not in (None, "config", "config.yaml"):
        return words, "config"
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    name = quote(str(folder), safe="")
    of_hydra = OmegaConf.select(OmegaConf.load(conf_path() / "config.yaml"), "hydra")
    beneath = {"defaults": ["schema", "_self_"], "hydra": of_hydra}
    ConfigStore.instance().store(name=name, node=OmegaConf.merge(beneath, OmegaConf.load(folder / "config.yaml")))
    return others, name


def primary_words(name: str | None) -> list[str]:
    """Return the options that start from a primary configuration again."""
    if name is not None and name.startswith(SLASH):
        return [f"--config-path={unquote(name)}", "--config-name=config"]
    return [] if name in (None, "config") else [f"--config-name={name}"]
