"""What the benchmarks share: ways timed in turns in one run, ratios with their spread, the machine they ran on."""

import contextlib
import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.registry import load_backbone
from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.machine.memory import keep_freed_memory
from icm_pipeline.machine.threads import num_cores

LIBRARIES = ("torch", "numpy", "scikit-learn", "diffusers")


def load(path: str, num_steps: int, *words: str, guidance: float = 1.5) -> Backbone:
    """Load an embedded model or a local pipeline folder; words: of the command line, such as compute.device=cuda."""
    register_schema()
    sampled = [f"model.num_steps={num_steps}", f"model.guidance_scale={guidance}", "method.last_step=null"]
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        settings = to_settings(
            compose("config", ["stage=originals", "model=local", f"model.path='{path}'", *sampled, *words])
        )
    return load_backbone(settings.model, settings.compute)


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every way in every round; the ways run one after the other, in each round from another on.

    Freed memory stays with the process, as in a job.
    """
    keep_freed_memory()
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            seconds[name].append(timed(ways[name]))
    return seconds


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def ratios(seconds: list[float], to: list[float]) -> list[float]:
    """Return the ratio to the other way in every round."""
    return [value / other for value, other in zip(seconds, to, strict=True)]


def print_ratios(seconds: Mapping[str, list[float]], to: str, head: str, form: str = ".3f") -> None:
    """Print a table: every way's seconds, and its ratio to one of them."""
    print(f"\n| {head} | seconds | time, {to} = 1 |\n|---|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {spread(values, form)} | {spread(ratios(values, seconds[to]), form)} |")


def spread(values: list[float], form: str = ".3f") -> str:
    """Return the median with the smallest and the largest value."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def note(figures: Path | None, **row: Any) -> None:
    """Append a row to a file of figures, a JSON object on each line, with the machine that they are of."""
    if figures is not None:
        with figures.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "machine": machine(), "date": f"{datetime.now():%Y-%m-%d}"}) + "\n")


def machine() -> str:
    """Return what a result depends on: processor, cores, GPU and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    return f"{names[0] if names else platform.processor()}, {num_cores()} cores{gpu}; {versions}"


def peak_mib(work: Callable[[], object]) -> float:
    """Return the largest resident memory of this process while `work` runs, above what it was before (Linux).

    What the process has freed before is given back first.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def resident_mib() -> float:
    """Return this process's resident memory (Linux)."""
    return _status("VmRSS") / 1024


def _status(name: str) -> float:
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith(name):
            return float(line.split()[1])
    raise ValueError(f"/proc/self/status has no {name}.")
