"""Devices and their names."""

import platform
from functools import cache
from pathlib import Path


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
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def check_device(device: str, setting: str) -> None:
    """Raise ValueError if tensors cannot live on a device."""
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        way = f"Set {setting}=cpu."
        if setting == "compute.device":
            way = "Set compute=cpu, or compute.device=cpu in place of another one; judges and probes follow it."
        raise ValueError(f"{setting}={device} cannot be used here ({reason}). {way}") from error
