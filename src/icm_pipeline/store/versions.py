"""What made a result, besides its settings: this code's version and commit, and the device by its own name."""

import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[3]
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "open_clip_torch", "safetensors")


@cache
def code_version() -> dict[str, Any]:
    """Return the package's version and, in a git checkout of it, the commit and whether files differ from it."""
    version: dict[str, Any] = {"version": library_versions()["icm_pipeline"]}
    if not (CHECKOUT / ".git").exists():
        return version
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", "src", "conf")
    if commit is None or status is None:
        return version
    return {**version, "commit": commit, "modified": bool(status)}


def _git(*words: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(CHECKOUT), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):  # no git, or a checkout of somebody else's that git refuses
        return None
    return done.stdout.strip()


def library_versions() -> dict[str, str]:
    """Return the installed versions of this package and of the libraries whose results it keeps."""
    versions = {}
    for name in ("icm_pipeline", *LIBRARIES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
