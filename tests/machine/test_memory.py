import os
import platform
import subprocess
import sys

import pytest

from icm_pipeline.machine.memory import USERS_OWN, keep_freed_memory

FAULTS = """
import resource, sys
import torch
from icm_pipeline.machine.memory import keep_freed_memory

done = keep_freed_memory() if sys.argv[1] == "keep" else None
def step():
    for _ in range(3):  # two at once: freeing the upper leaves the lower on top of the heap
        a, b = torch.ones(8 * 2**20), torch.ones(12 * 2**20)
        del a, b
faults = []
for _ in range(5):  # a small block that comes to lie between the large ones moves them once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(done, min(faults[1:]))
"""

LIBRARY, VERSION = platform.libc_ver()


def version_of(text: str) -> tuple[int, ...]:
    """Return a version's numbers, which compare as such: 2.100 comes after 2.35."""
    return tuple(int(word) for word in text.split(".") if word.isdecimal())


glibc = pytest.mark.skipif(LIBRARY != "glibc", reason="another C library")


def faults(mode: str) -> tuple[str, int]:
    clean = {name: value for name, value in os.environ.items() if name not in USERS_OWN}
    words = [sys.executable, "-c", FAULTS, mode]
    done, number = subprocess.run(words, env=clean, capture_output=True, text=True, check=True).stdout.split()
    return done, int(number)


def test_versions_compare_as_numbers() -> None:
    assert version_of("2.9") < version_of("2.35") < version_of("2.100")


@glibc
@pytest.mark.skipif(version_of(VERSION) < (2, 35), reason="takes blocks of this size from the system in any case")
def test_memory_that_is_taken_again_faults_no_more() -> None:
    done, kept = faults("keep")
    assert done == "True"
    assert kept < 0.1 * faults("plain")[1]


@glibc
@pytest.mark.parametrize("name", USERS_OWN)
def test_the_users_own_setting_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "glibc.malloc.check=0" if name == "GLIBC_TUNABLES" else str(2**20))
    monkeypatch.setattr("icm_pipeline.machine.memory.ctypes.CDLL", lambda name: pytest.fail("the library was asked"))
    assert not keep_freed_memory()
