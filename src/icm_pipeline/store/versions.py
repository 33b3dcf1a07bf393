"""What made a result, besides its settings: this code's version and commit, and the device by its own name."""

import contextlib
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
    if (CHECKOUT / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):  # no git, or a checkout that git refuses
            commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", "src", "conf")
            return {**version, "commit": commit, "modified": bool(status)}
    return version


def _git(*words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(CHECKOUT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def library_versions() -> dict[str, str]:
    """Return the installed versions of this package and of the libraries whose results it keeps."""
    versions = {}
    for name in ("icm_pipeline", *LIBRARIES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
