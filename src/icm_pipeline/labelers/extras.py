"""Packages that only some judges need: a missing one is named with the extra that brings it."""

from importlib.util import find_spec
from pathlib import Path


def require(package: str, extra: str, wanted: str) -> None:
    """Raise ModuleNotFoundError saying what to install if a package is not there; imports nothing."""
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f"{wanted} needs the package {package!r}, which is not installed: pip install 'icm_pipeline[{extra}]'"
        )


def package_folder(package: str) -> Path | None:
    """Return where an installed package lies without importing it, None if it is not installed."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
