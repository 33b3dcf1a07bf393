"""How often an audit refutes a planted null, and supports a planted effect, of its claims about pushes.

    python -m benchmarks.power --repetitions 10     # a check, a minute
    python -m benchmarks.power                      # the table of docs/audit_pushing.md, ten minutes
    python -m benchmarks.power --settings audit.size=quick evaluate.images_per_prompt=48

The claims' own code, on artifacts of `experiment=audit`'s sizes of which only the tables are there: what each image
shows, and how far it is from its twin, is drawn as planted. p is multiplied by 36, as if no other claim held (Holm).
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from hydra import compose, initialize_config_dir

from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.claims import causality, changes, confirmation
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.results.verdicts import Finding, Found, verdict_of
from tests.evaluation.planted import plant

CLAIMS = 36
# Pushed images obey so often where they would not show it anyway, which half of them do: sets deviate by 0.08 of all
# images, as on the embedded models (0.05 to 0.12).
LIKE_OTHERS = {"obeyed": 0.4, "at_random": 0.4, "spread": 0.16, "causal": 0.0}
# Another seed shows another option in 0.25 of the images, pushes along random directions in 0.16 of `tiny`'s and 0.08
# of `tiny_sdxl`'s: steering that points nowhere is as if so many of them were drawn again.
REDRAWN = 0.65


@dataclass(frozen=True)
class Case:
    """A null and an effect that are planted for a group of claims."""

    asked: Callable[[AuditInputs], Found]
    null: dict[str, Any]
    effect: dict[str, Any]


def changes_where(inputs: AuditInputs, moved: float) -> Found:
    """Return what else changed, where steering gives an age to this share of the images that had another."""
    for path, seen in inputs.judging.seen.items():  # type: ignore[attr-defined]
        name = path.rpartition("/")[2]
        own, turned = (np.random.default_rng([crc32(name.encode()), what]).random() for what in (0, 1))
        old = own < 0.4
        if "/steer/" in path:
            old = turned < moved or old != (turned > 0.95)  # one in twenty turns either way
        seen["age"] = np.array([0.03, 0.97] if old else [0.97, 0.03])
    return changes.found(inputs)


CASES = {
    "lead of 0.15": Case(causality.found, LIKE_OTHERS, {**LIKE_OTHERS, "obeyed": 0.7, "causal": 1.0}),
    "lead of 0.2": Case(causality.found, LIKE_OTHERS, {**LIKE_OTHERS, "obeyed": 0.8, "causal": 1.0}),
    "else": Case(
        changes_where, {"kept": 0.85, "moved": 0.5, "others_moved": 0.5}, {"moved": 0.5, "others_moved": 0.3}
    ),
    "fresh": Case(
        confirmation.found, {"obeyed": 0.0, "redrawn": REDRAWN, "moved": 1000.0}, {"obeyed": 0.5, "moved": 6.0}
    ),
}  # fmt: skip


def findings(settings: Settings, case: Case, is_null: bool, repetitions: int) -> Iterator[Finding]:
    """Yield what is found of each claim in each repetition."""
    asked = partial(case.asked, moved=0.35 if is_null else 0.0) if case.asked is changes_where else case.asked
    for seed in range(repetitions):
        with tempfile.TemporaryDirectory() as folder:
            inputs = plant(settings, Path(folder) / "planted", seed, **(case.null if is_null else case.effect))
            yield from asked(inputs).findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--settings", nargs="*", default=[])
    given = parser.parse_args()
    register_schema()
    words = ["experiment=audit", "audit.other_subjects=[a photo of a dog]", *given.settings]
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        settings = to_settings(compose("config", overrides=words))
    print("| claim | null | refuted | supported | effect | supported | refuted |\n|---|---|---|---|---|---|---|")
    for name in given.cases:
        found: dict[str, tuple[list[Finding], list[Finding]]] = defaultdict(lambda: ([], []))
        for column, is_null in enumerate((True, False)):
            for each in findings(settings, CASES[name], is_null, given.repetitions):
                found[each.claim][column].append(each)
        for claim, (null, effect) in found.items():
            cells = [cell for side, first in ((null, "refuted"), (effect, "supported")) for cell in told(side, first)]
            print(f"| `{claim}` | {' | '.join(cells)} |", flush=True)


def told(found: list[Finding], first: str) -> list[str]:
    """Return the mean effect of a claim, and how often it got each verdict."""
    given = [verdict_of(each, min(1.0, CLAIMS * each.p)) for each in found]
    order = [first, "supported" if first == "refuted" else "refuted"]
    return [
        f"{np.mean([each.effect for each in found]):.2f}",
        *(f"{given.count(one) / len(given):.0%}" for one in order),
    ]


if __name__ == "__main__":
    main()
