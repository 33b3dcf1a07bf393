"""Set up the environment of the Makefile's targets, and say what is done: packages with sizes, how long it took.

    python3 tools/install.py .venv                                  the package
    python3 tools/install.py .venv --extras pretrain --group dev    with extras, and with a group of pyproject.toml

Needs the standard library alone. uv installs where there is one, and shows its own progress; else pip does, whose lines
are told in short here and kept whole in the environment's install.log.
"""

import argparse
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote

LOG = "install.log"
LARGE = 10.0  # MB from which a package is named
DRIVER = Path("/proc/driver/nvidia")
UNITS = {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
FETCHED = re.compile(r"\s*(Downloading|Using cached) (?:\S*/)?(\S+)\.(?:whl|tar\.gz|zip) \(([\d.]+) (bytes|kB|MB|GB)\)")
ON_DISK = re.compile(r"\s*Processing (\S+\.whl)")
WHY_CUDA = (
    "There is no NVIDIA GPU here, and yet CUDA's libraries come with PyTorch, some 2.4 GB: the package index has\n"
    "  PyTorch for Linux built for CUDA alone, and that does not load without them. (A PyTorch that is in the\n"
    "  environment already is kept; UV_TORCH_BACKEND=cpu lets uv take one without CUDA, from PyTorch's own index.)"
)


@dataclass(frozen=True)
class Package:
    """What pip is about to fetch, or has."""

    name: str
    version: str
    size: float
    """In MB."""
    where: str = ""
    """Where it lies already, `cached` or `on disk`."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Set up an environment with this package in it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extras", default="", help="as pretrain,fid")
    parser.add_argument("--group", help="of pyproject.toml, as dev")
    arguments = parser.parse_args()
    began, uv, python = time.monotonic(), shutil.which("uv"), arguments.folder / "bin" / "python"
    is_new = not python.exists()
    if is_new:
        print(f"Environment: {arguments.folder}, Python {platform.python_version()}", flush=True)
        own = (
            [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable]
            if uv
            else [sys.executable, "-m", "venv"]
        )
        subprocess.run([*own, str(arguments.folder)], check=True)
    more = [*arguments.extras.split(","), f"the group {arguments.group}" if arguments.group else ""]
    named = ", ".join(["this package and what it needs", *(name for name in more if name)])
    print(f"Packages, by {'uv' if uv else 'pip'}: {named}", flush=True)
    if is_new and is_cuda_for_nothing():
        print(f"  {WHY_CUDA}", flush=True)
    wanted = ["-e", f".[{arguments.extras}]" if arguments.extras else "."]
    wanted += ["--group", arguments.group] if arguments.group else []
    if uv:
        code = subprocess.run([uv, "pip", "install", "--python", str(python), *wanted]).returncode
    else:
        code = install_by_pip(python, wanted, arguments.folder / LOG)
    if code == 0:
        print(f"  done after {time.monotonic() - began:.0f} s", flush=True)
    return code


def is_cuda_for_nothing() -> bool:
    """Say whether PyTorch's package brings CUDA to a machine that has no use for it."""
    has_gpu = shutil.which("nvidia-smi") is not None or DRIVER.exists()
    return platform.system() == "Linux" and not has_gpu


def install_by_pip(python: Path, wanted: list[str], log: Path) -> int:
    """Let pip install, tell in short what it says and keep all of it; where it fails, tell the end of that."""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install"]
    if "--group" in wanted and not knows_groups(python):  # as Python 3.11's own pip
        subprocess.run([*pip, "--quiet", "--upgrade", "pip"])
        if not knows_groups(python):
            print("error: pip could not be upgraded, and groups need pip 25.1. Does it reach a package index?")
            return 1
    command = [*pip, "--progress-bar", "off", *wanted]
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout is not None
        for told in told_in_short(_kept(process.stdout, kept)):
            print(f"  {told}", flush=True)
    if process.returncode:
        last = log.read_text("utf-8").splitlines()[-15:]
        print("\n".join(last), f"\nerror: pip gave up (exit code {process.returncode}); all it said is in {log}.")
    return process.returncode


def knows_groups(python: Path) -> bool:
    """Say whether an environment's pip installs a group of pyproject.toml."""
    told = subprocess.run([str(python), "-m", "pip", "install", "--help"], capture_output=True, text=True)
    return "--group" in told.stdout


def _kept(lines: Iterable[str], log: TextIO) -> Iterator[str]:
    for line in lines:
        log.write(line)
        yield line


def told_in_short(lines: Iterable[str]) -> Iterator[str]:
    """Return of pip's lines what a person waits for: large packages before they are fetched, the sum, errors."""
    packages: list[Package] = []
    for line in lines:
        if (package := package_in(line)) is not None:
            packages.append(package)
            if package.size >= LARGE:
                about = f"{_size(package.size):>7}  {package.name} {package.version}"
                yield about + (f" ({package.where})" if package.where else "")
        elif packages and line.startswith("Installing collected packages:"):
            total = _size(sum(package.size for package in packages))
            yield f"{total:>7}  in {len(packages)} packages, which are unpacked now: a minute or two"
        elif line.startswith("ERROR"):
            yield line.rstrip()


def package_in(line: str) -> Package | None:
    """Return the package whose archive a line of pip's is about, None if it is about none."""
    if found := FETCHED.match(line):
        where = "cached" if found[1] == "Using cached" else ""
        return Package(*_name_and_version(found[2]), float(found[3]) * UNITS[found[4]], where)
    if found := ON_DISK.match(line):
        path = Path(unquote(found[1].removeprefix("file://")))
        return Package(*_name_and_version(path.stem), path.stat().st_size / 1e6, "on disk") if path.exists() else None
    return None


def _name_and_version(archive: str) -> tuple[str, str]:
    name, _, rest = archive.partition("-")
    return name.replace("_", "-"), rest.partition("-")[0]


def _size(megabytes: float) -> str:
    return f"{megabytes / 1e3:.1f} GB" if megabytes >= 1e3 else f"{megabytes:.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
