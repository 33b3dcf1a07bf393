"""Run the tests of families and write which class passed which of them: what `icm models` says was tested.

`python -m tools.proofs` takes about three minutes, writes nothing if a test fails, and is to be run when a class or a
test is new; tests/backbones/test_proofs.py says so.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from icm_pipeline.backbones.proofs import FILE
from tests.helpers.denoisers import TINY
from tests.helpers.pipelines import build

TESTS = Path(__file__).resolve().parents[1] / "tests" / "backbones"
MODULES = {  # by what each tests a class as: the parameter that says which
    "a whole pipeline": ("test_families", "loaded"),
    "a denoiser": ("test_many_families", "subject"),
    "with a picture": ("test_with_picture", "name"),
}


class Outcomes:
    """Collects which tests of a class passed, as pytest runs them."""

    def __init__(self) -> None:
        self.passed: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._classes: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        for item in items:
            for kind, (module, parameter) in MODULES.items():
                value = getattr(item, "callspec", None) and item.callspec.params.get(parameter)
                if value and item.path.stem == module:
                    self._classes[item.nodeid] = (kind, _class_of(kind, value))

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.passed and report.nodeid in self._classes:
            said = report.nodeid.split("::test_")[1].split("[")[0].replace("_", " ")
            mine = self.passed[self._classes[report.nodeid]]
            mine += [] if said in mine else [said]


def _class_of(kind: str, value: str) -> str:
    if kind == "a whole pipeline":
        return type(build(value)).__name__
    return TINY[value].pipeline if kind == "a denoiser" else value


def main() -> int:
    """Run the tests, write the file, and return pytest's exit code."""
    outcomes = Outcomes()
    paths = [str(TESTS / f"{module}.py") for module, _ in MODULES.values()]
    code = int(pytest.main(["-q", "-p", "no:cacheprovider", *paths], plugins=[outcomes]))
    if code == 0:
        grouped: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
        for (kind, name), tests in outcomes.passed.items():
            grouped[kind, tuple(tests)].append(name)
        groups = [{"as": kind, "tests": tests, "classes": names} for (kind, tests), names in grouped.items()]
        FILE.write_text(json.dumps(groups, indent=1) + "\n", "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
