"""Claims about pushes and their controls: planted effects are supported, planted nulls are not, by the same code."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from icm_pipeline.evaluation.claims import causality, changes, confirmation, judge
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.images.table import ImageRow
from icm_pipeline.report.audit_page import FIGURES
from icm_pipeline.results.effects import Pushes
from icm_pipeline.results.verdicts import verdict_of
from tests.evaluation.planted import NUM_LAYERS, OPTIONS, REPETITIONS, WORDS, Compose, finding, verdicts


def shares(
    plant: Callable[..., AuditInputs], ask: Any, claims: Sequence[str], verdict: str, **how: Any
) -> dict[str, float]:
    """Return how often each claim gets a verdict over repetitions."""
    given = [verdicts(ask(plant(seed, **how))) for seed in range(REPETITIONS)]
    return {claim: float(np.mean([each[claim] == verdict for each in given])) for claim in claims}


PUSHED = [f"causality.{name}" for name in ("random_layers", "random_layers_fd", "rank", "local", "worst_layers",
                                           "random_directions", "accuracy")]  # fmt: skip


def test_a_planted_lead_of_the_selected_layers_is_supported(planted: Any) -> None:
    found = shares(planted, causality.found, PUSHED, "supported")
    assert min(found.values()) >= 0.9, found


def test_selected_layers_and_directions_that_are_like_the_average_are_refuted(planted: Any) -> None:
    """Rho of a dozen layers cannot be: its interval is two thirds of all there can be."""
    claims = [claim for claim in PUSHED if claim not in ("causality.accuracy", "causality.rank")]
    refuted = shares(planted, causality.found, claims, "refuted", obeyed=0.4, at_random=0.4)
    assert min(refuted.values()) >= 0.9, refuted
    supported = shares(planted, causality.found, PUSHED, "supported", obeyed=0.4, at_random=0.4, causal=0.0)
    assert max(supported.values()) <= 0.15, supported


def test_layers_that_do_much_less_than_random_ones_are_refuted(planted: Any) -> None:
    claims = [claim for claim in PUSHED if claim != "causality.accuracy"]
    refuted = shares(planted, causality.found, claims, "refuted", obeyed=0.0, at_random=0.8)
    assert min(refuted.values()) >= 0.9, refuted


def test_the_tables_hold_every_arm_and_layer_and_their_figures_are_drawn(planted: Any, tmp_path: Path) -> None:
    found = causality.found(planted(0))
    sets, layers = found.tables["sets"], found.tables["layers"]
    assert [row[1] for row in sets.rows].count("random_layers") == 40
    assert {"unsteered", "selected", "worst_layers", "random_direction"} <= {row[1] for row in sets.rows}
    assert len(layers.rows) == NUM_LAYERS
    assert sum(float(row[-1]) for row in layers.rows) == 3
    for name in found.tables:
        assert FIGURES["causality", name][1](tmp_path / f"{name}.png", found.tables[name]).stat().st_size > 1000


def test_sets_that_there_are_not_are_told(planted: Any) -> None:
    inputs = planted(0)
    path = inputs.artifacts["push"].folder / Pushes.FILE
    path.write_text(path.read_text().replace("random_layers", "named").replace("worst_layers", "named"))
    found = causality.found(inputs)
    names = ("random_layers", "random_layers_fd", "rank", "local", "worst_layers")
    assert set(found.left_out) == {f"causality.{name}" for name in names}
    assert "causality.random_directions" in verdicts(found)


def test_attributes_that_stay_are_supported_and_one_that_moves_is_refuted(planted: Any) -> None:
    inputs = planted(1)
    for path, seen in inputs.judging.seen.items():
        old = "/steer/" in path
        rng = np.random.default_rng(crc32(path.rpartition("/")[2].encode()))
        seen["glasses"] = np.array([0.6, 0.4])
        seen["age"] = np.array([0.1, 0.9]) if old and rng.random() < 0.8 else np.array([0.8, 0.2])
    found = changes.found(inputs)
    given = verdicts(found)
    assert given["changes.glasses"] == "supported"
    assert given["changes.age"] == "refuted"
    assert set(given) >= {"changes.named_prompts", "changes.other_subjects"}


@pytest.mark.parametrize(
    ("kept", "expected"), [(0.5, "refuted"), (0.0, "refuted"), (0.97, "undecided"), (1.0, "supported")]
)
def test_named_prompts_that_are_kept_are_supported_and_others_refuted(planted: Any, kept: float, expected: str) -> None:
    found = changes.found(planted(2, kept=kept))
    assert verdicts(found)["changes.named_prompts"] == expected
    assert finding(found, "changes.named_prompts").effect == pytest.approx(kept, abs=0.2)


def test_other_subjects_that_stay_like_their_twins_are_supported(planted: Any) -> None:
    assert verdicts(changes.found(planted(3)))["changes.other_subjects"] == "supported"
    assert verdicts(changes.found(planted(3, moved=0.02)))["changes.other_subjects"] != "supported"


def test_what_cannot_be_asked_is_told(planted: Any, settings_with: Compose) -> None:
    inputs = planted(4)
    asked = replace(inputs, settings=settings_with(*WORDS, "method.assignment=least_change"))
    assert "does not steer images whose prompts name" in changes.found(asked).left_out["changes.named_prompts"]
    left_out = judge.found(replace(inputs, labelled_from="no folder")).left_out
    assert left_out["judge.recall"] == left_out["judge.corrected_fd"] == "no folder"


def test_a_judge_who_errs_is_refuted_and_fd_is_corrected(planted: Any) -> None:
    inputs = planted(5)
    rng, rows = np.random.default_rng(0), list[ImageRow]()
    for number in range(300):
        path = Path(f"/known/{number}.png")
        truth = number % 2
        said = truth if truth == 0 or rng.random() < 0.7 else 0
        inputs.judging.seen[str(path)] = {"gender": np.eye(2)[said]}
        rows.append(ImageRow(str(number), "", 0, None, OPTIONS[truth], path))
    found = judge.found(replace(inputs, labelled=rows, labelled_from="planted"))
    given = verdicts(found)
    assert given["judge.recall"] == "refuted"
    assert given["judge.agreement"] == "supported"
    recall = finding(found, "judge.recall")
    assert recall.effect == pytest.approx(0.7, abs=0.07)
    assert "man" in recall.control
    assert [row[0] for row in found.tables["confusion"].rows] == OPTIONS
    assert finding(found, "judge.corrected_fd").effect != pytest.approx(
        finding(confirmation.found(inputs), "confirmation.fd").effect, abs=0.01
    )


def test_what_steering_does_on_fresh_prompts_is_supported_and_nothing_where_it_does_nothing(planted: Any) -> None:
    names = [f"confirmation.{name}" for name in ("apart", "fd", "obeyed", "clip_i")]
    assert set(shares(planted, confirmation.found, names, "supported").values()) == {1.0}
    inputs = planted(6)
    same = replace(inputs, artifacts={**inputs.artifacts, "originals": inputs.artifacts["steer"]})
    given = verdicts(confirmation.found(same))
    assert given["confirmation.fd"] == given["confirmation.obeyed"] == "refuted"


def test_evaluation_prompts_that_probes_or_tuning_had_are_refuted(planted: Any, settings_with: Compose) -> None:
    settings = settings_with(*WORDS, "attribute.evaluation_prompts=[a photo of a person,a face of a doctor]")
    found = confirmation._nothing_tuned(replace(planted(7), settings=settings))
    assert (found.effect, verdict_of(found, found.p)) == (0.5, "refuted")
    assert "a photo of a person" in found.control


def test_how_far_halves_are_apart_and_moved_is_the_mean_over_halvings() -> None:
    rng, num = np.random.default_rng(0), 60
    before, after = rng.dirichlet([1, 1, 1], num), rng.dirichlet([2, 1, 1], num)
    moved, apart = changes.drifts(before, after, np.zeros(num, int), np.ones((1, num)))

    def far(one: Any, other: Any) -> float:
        return float(np.abs(one.mean(0) - other.mean(0)).sum() / 2)

    halves = [np.split(rng.permutation(num), 2) for _ in range(2000)]
    assert apart[0] == pytest.approx(np.mean([far(before[one], before[other]) for one, other in halves]), rel=0.05)
    assert moved[0] == pytest.approx(np.mean([far(before[one], after[one]) for one, _ in halves]), rel=0.05)
    still, _ = changes.drifts(before, before, np.zeros(num, int), np.ones((1, num)))
    assert still[0] < 1e-6
