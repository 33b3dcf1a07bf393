"""Run the tests of families and write which class passed which of them: what `icm models` says was tested.

`python -m tools.proofs` takes about three minutes, and is to be run when a class or a test is new;
tests/backbones/test_proofs.py says so. It writes nothing if a test fails, or if a class is skipped for want of a
library. Of a class with several pipelines a test counts that all of them passed. Slow tests are not run.
"""

import json
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from icm_pipeline.backbones.proofs import FILE
from tests.helpers.denoisers import TINY
from tests.helpers.pipelines import build

TESTS = Path(__file__).resolve().parents[1] / "tests" / "backbones"
MODULES = {  # by what each tests a class as: the parameter that says which, or the marker `of_class`
    "a whole pipeline": ("test_families", "loaded"),
    "a denoiser": ("test_many_families", "subject"),
    "in a run": ("test_loaded_families", "name"),
    "with a picture": ("test_with_picture", "name"),
}


class Outcomes:
    """Collects which tests of a class passed, as pytest runs them."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        """{(what it was tested as, class): {test: outcomes}}"""
        self._classes: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        for item in items:
            for kind, (module, parameter) in MODULES.items():
                if item.path.stem == module and (name := _class_of(kind, item, parameter)):
                    self._classes[item.nodeid] = (kind, name)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.nodeid in self._classes and (report.when == "call" or report.skipped):
            said = report.nodeid.split("::test_")[1].split("[")[0].replace("_", " ")
            self.outcomes[self._classes[report.nodeid]][said].add(report.outcome)

    def passed(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Return the tests that passed and were never skipped, by what a class was tested as, and the class."""
        return {
            of_class: tuple(test for test, outcomes in tests.items() if outcomes == {"passed"})
            for of_class, tests in self.outcomes.items()
        }


def _class_of(kind: str, item: Any, parameter: str) -> str | None:
    """Return the class that a test is of, None if it is of none."""
    if marker := item.get_closest_marker("of_class"):
        return str(marker.args[0])
    value = item.callspec.params.get(parameter) if hasattr(item, "callspec") else None
    if value and kind == "a whole pipeline":
        return _built(value)
    return TINY[value].pipeline if value and kind == "a denoiser" else value


@cache
def _built(name: str) -> str:
    return type(build(name)).__name__


def main() -> int:
    """Run the tests, write the file, and return the exit code."""
    outcomes = Outcomes()
    paths = [str(TESTS / f"{module}.py") for module, _ in MODULES.values()]
    if code := int(pytest.main(["-q", "-p", "no:cacheprovider", *paths], plugins=[outcomes])):
        return code
    if lacking := [f"{name} as {kind}" for (kind, name), tests in outcomes.passed().items() if not tests]:
        print(f"error: nothing is written, as these were skipped: {', '.join(lacking)}.", file=sys.stderr)
        return 1
    grouped: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (kind, name), tests in outcomes.passed().items():
        grouped[kind, tests].append(name)
    groups = [{"as": kind, "tests": tests, "classes": names} for (kind, tests), names in grouped.items()]
    FILE.write_text(json.dumps(groups, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
