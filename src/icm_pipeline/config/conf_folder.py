"""Where the YAML stands, and the schema that Hydra puts under it."""

from pathlib import Path
from typing import Any

from icm_pipeline.config.schema import Settings


def conf_path() -> Path:
    """Return the folder with the YAML: inside an installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").exists():
            return folder
    raise FileNotFoundError(f"No conf/config.yaml beside {package} or in its checkout: reinstall icm_pipeline.")


def params_written(method: str) -> dict[str, Any]:
    """Return the parameters in the YAML of a method's name; none for a method that has its YAML elsewhere."""
    from omegaconf import OmegaConf

    file = conf_path() / "method" / f"{method}.yaml"
    written: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False) if file.is_file() else {}
    return written.get("params") or {}


def register_schema() -> None:
    """Tell Hydra the schema, under the name `schema` that conf/config.yaml lists first."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Settings)
