"""Setting up tells what it fetches: pip's lines in short, sizes first, errors whole."""

import sys
from pathlib import Path

import pytest

from tools import install
from tools.install import Package, install_by_pip, package_in, told_in_short

LINES = """\
Obtaining file:///checkout
Collecting torch>=2.6 (from icm_pipeline==0.1.0)
  Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (30 kB)
Collecting idna
  Using cached idna-3.10-py3-none-any.whl (70 kB)
Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl (782.5 MB)
Using cached nvidia_cudnn_cu13-9.24.0.43-py3-none-manylinux_2_27_x86_64.whl (1.2 GB)
Installing collected packages: idna, torch
Successfully installed idna-3.10 torch-2.14.1
""".splitlines(keepends=True)


def test_large_packages_are_told_with_their_sizes_and_then_the_sum() -> None:
    assert list(told_in_short(LINES)) == [
        " 782 MB  torch 2.14.1",
        " 1.2 GB  nvidia-cudnn-cu13 9.24.0.43 (cached)",
        " 2.0 GB  in 3 packages, which are unpacked now: a minute or two",
    ]


def test_an_archive_on_this_disk_has_its_size(tmp_path: Path) -> None:
    archive = tmp_path / "some_thing-1.0-py3-none-any.whl"
    archive.write_bytes(b"x" * 3_000_000)
    assert package_in(f"Processing {archive}\n") == Package("some-thing", "1.0", 3.0, "on disk")
    assert package_in("Processing /nowhere/some_thing-1.0-py3-none-any.whl\n") is None
    assert package_in("  Downloading torch-2.14.1-cp311.whl.metadata (30 kB)\n") is None


def test_a_failure_is_told_with_the_last_that_pip_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "install.log"
    assert install_by_pip(Path(sys.executable), ["--no-index", "no-such-package-of-ours"], log) != 0
    told = capsys.readouterr().out
    assert "  ERROR: No matching distribution found for no-such-package-of-ours" in told
    assert f"error: pip gave up (exit code 1); all it said is in {log}" in told


@pytest.mark.parametrize(("helps", "code", "told"), [("", 1, "error: pip could not be upgraded"), ("--group", 0, "")])
def test_a_pip_without_groups_that_cannot_be_upgraded_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], helps: str, code: int, told: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *--help*) echo "{helps}";; *--upgrade*) exit 1;; esac\n')
    python.chmod(0o755)
    assert install_by_pip(python, ["-e", ".", "--group", "dev"], tmp_path / "install.log") == code
    assert capsys.readouterr().out.startswith(told)


@pytest.mark.parametrize(
    ("system", "tool", "said"), [("Linux", None, True), ("Linux", "/bin/smi", False), ("Darwin", None, False)]
)
def test_it_says_that_cuda_is_fetched_for_nothing_only_where_that_is_so(
    monkeypatch: pytest.MonkeyPatch, system: str, tool: str | None, said: bool
) -> None:
    monkeypatch.setattr(install.platform, "system", lambda: system)
    monkeypatch.setattr(install.shutil, "which", lambda name: tool)
    monkeypatch.setattr(install, "DRIVER", Path("/nowhere"))
    assert install.is_cuda_for_nothing() is said
