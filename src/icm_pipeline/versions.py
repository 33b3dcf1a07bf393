"""What made a result, besides its settings: this code's version and commit, and the device by its own name."""

import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from icm_pipeline.artifacts import library_versions

CHECKOUT = Path(__file__).resolve().parents[2]


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


@cache
def device_name(device: str) -> str:
    """Return what a device calls itself, such as NVIDIA H100 80GB HBM3 for cuda:0; its kind where it has no name."""
    kind = device.split(":")[0]
    if kind == "cpu":
        return _processor()
    import torch

    if kind == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    return kind


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
