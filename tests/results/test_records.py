"""Results as JSON: what is written is read back equal, what is not there is left out, other content is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from icm_pipeline.localization.selection import LayerScore
from icm_pipeline.results.evaluation import Agreement, Evaluation, Lost, Realism, SideAgreement
from icm_pipeline.results.records import Record
from icm_pipeline.results.scores import Selection
from icm_pipeline.store.artifacts import ArtifactError
from tests.helpers.results import as_artifact, evaluation, scores, steering

AGREEMENT = Agreement(judges=["a", "b"], options=["woman"], steered=SideAgreement([[1]], 1.0, None, 0))
REALISM = Realism(num_images=2, features="CLIP", fid=1.0, kid=0.1, kid_deviation=0.0)
OF_FOLDER = replace(
    evaluation(steering=None, fd_original=None, fd_change=None, clip_i=None, agreement=AGREEMENT, reference=REALISM),
    lost=Lost(unreadable={"images": {"a": "empty"}, "reference": None}, without_twin=[], reference_unused=0),
)


@pytest.mark.parametrize(
    "record",
    [
        evaluation(),
        OF_FOLDER,
        steering(target_shares=[0.5, 0.5], last_step=3),
        scores({"a.attn1": ("self_attention", 0.5, [0.4, 0.6])}),
        Selection(["a"], "top", "self_attention", [LayerScore("a", "self_attention", 0.5)]),
    ],
)
def test_what_is_written_is_read_back_equal(tmp_path: Path, record: Record) -> None:
    record.write(tmp_path)
    assert type(record).read(as_artifact(tmp_path)) == record


def test_figures_that_are_younger_than_an_evaluation_are_none(tmp_path: Path) -> None:
    evaluation().write(tmp_path)
    old = json.loads((tmp_path / "metrics.json").read_text())
    assert not {"fd_labels", "deviation_ratio", "deviation_ratio_original"} & old.keys()
    found = Evaluation.read(as_artifact(tmp_path))
    assert found.fairness.deviation_ratio is None
    assert "deviation_ratio/mean" not in dict(found.rows())


def test_what_folders_alone_have_stands_among_the_figures_and_is_not_there_for_the_pipelines_own(
    tmp_path: Path,
) -> None:
    evaluation().write(tmp_path)
    own = json.loads((tmp_path / "metrics.json").read_text())
    assert not {"unreadable", "without_twin", "lost", "fairness"} & own.keys()
    assert (own["fd"]["mean"], own["reference"]) == (0.2, None)
    OF_FOLDER.write(tmp_path)
    of_folder = json.loads((tmp_path / "metrics.json").read_text())
    assert (of_folder["without_twin"], of_folder["steering"], of_folder["fd_original"]) == ([], None, None)
    assert "original" not in of_folder["agreement"]
    assert "fid_original" not in of_folder["reference"]


def test_a_file_that_lacks_a_figure_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"model": "tiny"}')
    with pytest.raises(ArtifactError, match=r"metrics\.json cannot be read as Evaluation.*missing"):
        Evaluation.read(as_artifact(tmp_path))
