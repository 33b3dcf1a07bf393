"""What a judge cannot see or tell leaves a claim out; what a claim compares is what it says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icm_pipeline.evaluation.claims import causality, changes, confirmation, judge
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.images.table import IMAGES, SHOWN, TABLE, ImageRow
from icm_pipeline.results.verdicts import verdict_of
from icm_pipeline.stages.audit import with_figures
from tests.evaluation.planted import NUM_LAYERS, OPTIONS, WORDS, Compose, finding, verdicts


def blind(inputs: AuditInputs, is_unseen: Callable[[str], bool]) -> AuditInputs:
    """Let the judge see no attribute in some pictures."""
    for path, seen in inputs.judging.seen.items():  # type: ignore[attr-defined]
        if is_unseen(path):
            seen |= {"gender": np.full(2, np.nan), "age": np.full(2, np.nan), "glasses": np.full(2, np.nan)}
    return inputs


def test_a_prompt_of_which_the_judge_sees_nothing_does_not_count_as_a_change(planted: Any) -> None:
    first = [f"{index:06d}" for index in range(0, 384, 4)]
    found = changes.found(blind(planted(8), lambda path: "/steer/" in path and path[-10:-4] in first))
    assert np.isfinite(finding(found, "changes.age").effect)


def test_claims_of_which_the_judge_sees_nothing_are_left_out_and_their_rows_with_them(planted: Any) -> None:
    inputs = blind(planted(9), lambda path: "/steer/" in path)
    found = changes.found(inputs)
    kept = with_figures(found)
    assert kept.left_out["changes.age"].startswith("It has no figure of 384 images")
    assert "changes.other_subjects" in verdicts(kept)
    names = [[row[0] for row in each.tables["drift"].rows] for each in (found, kept)]
    assert set(names[0]) - set(names[1]) == {"age", "glasses"}
    assert with_figures(kept) == kept


def test_named_options_that_no_image_shows_leave_the_claim_out(planted: Any) -> None:
    found = changes.found(blind(planted(10), lambda path: "named-" in path))
    assert "No image showed what its prompt names" in found.left_out["changes.named_prompts"]


def test_a_judge_whose_errors_or_agreement_cannot_be_told_leaves_those_claims_out(planted: Any) -> None:
    inputs = blind(planted(11), lambda path: False)
    rows = [
        ImageRow(str(number), "", 0, None, OPTIONS[number % 2], Path(f"/known/{number}.png")) for number in range(8)
    ]
    for number, row in enumerate(rows):
        inputs.judging.seen[str(row.path)] = {"gender": np.eye(2)[0] if number % 2 == 0 else np.full(2, np.nan)}
    for path, seen in inputs.judging.seen.items():
        if "/steer/" in path:
            seen["gender"] = np.array([0.9, 0.1])
    found = judge.found(replace(inputs, labelled=rows, labelled_from="planted"))
    assert "No labelled image of option 1 was judged" in found.left_out["judge.corrected_fd"]
    assert "call all steered images the same" in found.left_out["judge.agreement"]
    assert finding(found, "judge.recall").effect == 0


def test_no_other_attribute_is_told_and_the_rest_is_asked(planted: Any, settings_with: Compose) -> None:
    inputs = planted(12)
    inputs.settings.evaluate.drift.clear()
    found = changes.found(inputs)
    assert "evaluate.drift" in found.left_out["changes.other_attributes"]
    assert {each.claim for each in found.findings} == {"changes.named_prompts", "changes.other_subjects"}


def test_images_that_were_left_alone_do_not_make_the_steered_look_like_their_twins(planted: Any) -> None:
    inputs = planted(13)
    table = inputs.artifacts["steer"].folder / TABLE
    head, *lines = table.read_text().splitlines()
    for line in lines[48:]:  # left alone: an original, which is its twin
        path = str(inputs.artifacts["steer"].folder / IMAGES / f"{line.split(',')[0]}.png")
        inputs.judging.embedded[path] = inputs.judging.embedded[path.replace("/steer/", "/originals/")]
    was = finding(changes.found(inputs), "changes.other_subjects").effect
    shown = [next(name for name in OPTIONS if f",{name}," in f",{line},") for line in lines]
    others = [OPTIONS[1 - OPTIONS.index(name)] if number < 48 else name for number, name in enumerate(shown)]
    rows = [f"{line},{name}" for line, name in zip(lines, others, strict=True)]
    table.write_text("\n".join([f"{head},{SHOWN}", *rows]) + "\n")
    assert finding(changes.found(inputs), "changes.other_subjects").effect > 1.5 * was


def test_fd_of_trials_that_all_obey_is_none_though_their_options_are_uneven_within_prompts(planted: Any) -> None:
    found = causality.found(planted(14, obeyed=1.0))
    assert finding(found, "causality.random_layers_fd").control.partition(". ")[0].endswith("0.00 at these")


def test_a_prompt_with_another_article_is_the_same_and_subjects_of_probing_are_named(
    planted: Any, settings_with: Compose
) -> None:
    asked = ("attribute.probe_subjects=[engineer]", "attribute.evaluation_prompts=[a face of an engineer,an engineer]")
    settings = settings_with(*WORDS, *asked)
    found = confirmation._nothing_tuned(replace(planted(15), settings=settings))
    assert (found.effect, verdict_of(found, found.p)) == (0.5, "refuted")
    assert "shared prompts: a face of an engineer" in found.control
    assert "in other templates they had engineer" in found.control


def test_searches_share_no_prompt_with_an_evaluation_of_their_subjects(planted: Any, settings_with: Compose) -> None:
    settings = settings_with(*WORDS, "attribute.evaluation_prompts=[a face of an engineer,a drawing of a teacher]")
    found = confirmation._nothing_tuned(replace(planted(15), settings=settings))
    assert (found.effect, verdict_of(found, found.p)) == (1.0, "supported")


def pushes_of(number: int) -> Callable[[str], bool]:
    return lambda path: f"/push/images/layers_{number:03d}-" in path


@pytest.mark.parametrize("unseen", ["/steer/", "/push/images/layers_", ""])
def test_a_judge_that_sees_nobody_where_pushes_are_compared_leaves_fd_out(planted: Any, unseen: str) -> None:
    kept = with_figures(causality.found(blind(planted(16), lambda path: unseen in path)))
    assert "saw no image both" in kept.left_out["causality.random_layers_fd"]
    assert "causality.random_layers" in verdicts(kept)


def test_one_set_of_which_the_judge_sees_nothing_does_not_count(planted: Any) -> None:
    whole = finding(causality.found(planted(17)), "causality.random_layers_fd")
    found = with_figures(causality.found(blind(planted(17), pushes_of(3))))
    part = finding(found, "causality.random_layers_fd")
    assert " at 40 random sets (" in whole.control
    assert " at 39 of 40 random sets, the others not seen (" in part.control
    assert "nan" not in part.control
    assert part.effect == pytest.approx(whole.effect, abs=0.05)
    assert "layers_003" not in {row[0] for row in found.tables["sets"].rows}


def test_pushes_that_change_no_picture_leave_out_what_they_do_for_their_change(planted: Any) -> None:
    found = causality.found(planted(18, moved=0.0))
    assert "change no picture" in found.left_out["causality.local"]
    assert "causality.rank" in verdicts(found)
    assert "causality.local" in verdicts(causality.found(planted(18, moved=0.01)))


def test_a_layer_of_which_the_judge_sees_nothing_does_not_count_among_the_others(planted: Any) -> None:
    found = with_figures(causality.found(blind(planted(19), lambda path: "/causal/images/layer_004-" in path)))
    assert finding(found, "causality.accuracy").num == NUM_LAYERS - 1
    assert "layer 4" not in {row[0] for row in found.tables["layers"].rows}
    none = with_figures(causality.found(blind(planted(19), lambda path: "/causal/" in path)))
    assert "A correlation of 0 pairs" in none.left_out["causality.accuracy"]
    assert "layers" not in none.tables
