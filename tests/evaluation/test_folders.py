"""Folders of images judged as the pipeline's own: the same figures, what is broken named and kept, the rest judged."""

import csv
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from icm_pipeline.cli.artifact_tables import print_artifact
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation import judging
from icm_pipeline.evaluation.pairs import NO_TWIN, find_twins
from icm_pipeline.images.table import ImageRow
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.table import kinds_of_stages
from icm_pipeline.report.tables import print_metrics
from icm_pipeline.results.evaluation import Evaluation
from icm_pipeline.results.records import from_json
from icm_pipeline.stages import evaluate
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.garbage import find_waste
from icm_pipeline.store.shelf import read_shelf
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.results import as_artifact, steering

Compose = Callable[..., Settings]
PROMPTS = ["a face of a doctor", "a face of a firefighter", "a face of a nurse", "a face of a receptionist"]
RULES = 'folders.names=["{prompt_index}_{seed}_{option}","{prompt_index}_{seed}"]'
OPTIONS = ("woman", "man")
EMBEDDED = (
    "labeler.path=embedded:tiny-clip", "judge.path=embedded:tiny-classifier", "evaluate.clip.path=embedded:tiny-clip",
    "evaluate.bootstrap=5", "evaluate.images_per_prompt=2", "compute.batch_size=4", "model.path=embedded:tiny",
)  # fmt: skip


def noise(path: Path, seed: int, size: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two images of each prompt, steered to one option each, and their originals, in folders with odd names."""
    steered, originals = tmp_path / "other tool 図", tmp_path / "originals"
    for index in range(8):
        name = f"{index % 4}_{100 + index}"
        noise(steered / f"{name}_{OPTIONS[index // 4]}.png", index)
        noise(originals / f"{name}.png", 50 + index)
    return steered, originals


@pytest.fixture
def judge(settings_with: Compose, tmp_path: Path) -> Callable[..., Artifact]:
    def judged(stage: str, images: Path, *words: str) -> Artifact:
        given = (f"stage={stage}", f"images={images}", f"paths.outputs={tmp_path / 'outputs'}", *EMBEDDED, *words)
        artifact = Pipeline(settings_with(*given), [], NoTracker()).run(stage)
        assert artifact is not None
        return artifact

    return judged


def figures(artifact: Artifact) -> dict[str, Any]:
    return artifact.read_json("metrics.json")


def lines(artifact: Artifact, name: str) -> list[dict[str, str]]:
    with artifact.path(name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def as_parent(folder: Path, options: bool) -> Artifact:
    """Make a set of the pipeline from a folder: its table, and how it was steered."""
    names = sorted(path.name for path in folder.glob("*.png"))
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "prompt_index", "seed", "option", "path"])
        for name in names:
            index, seed, *option = name.removesuffix(".png").split("_")
            writer.writerow([seed, PROMPTS[int(index)], index, seed, *(option if options else [""]), name])
    steering(layers=[]).write(folder)
    return as_artifact(folder)


def test_a_folder_gets_the_figures_that_the_pipeline_gives_the_same_images(
    folders: tuple[Path, Path], judge: Callable[..., Artifact], settings_with: Compose, tmp_path: Path
) -> None:
    steered, originals = folders
    parents = {"steer": as_parent(steered, True), "originals": as_parent(originals, False)}
    inside = tmp_path / "inside"
    inside.mkdir()
    evaluate.run(StageContext(settings_with(*EMBEDDED), parents, inside))
    own = json.loads((inside / "metrics.json").read_text())
    words = ("labeler.kind=tiny", "labeler.path=embedded:tiny-classifier", "labeler.model=attribute-classifier",
             "judge.kind=clip", "judge.path=embedded:tiny-clip", "judge.model=icm-tiny-clip")  # fmt: skip
    found = figures(judge("evaluate", steered, f"reference={originals}", *words))
    told = {"model", "steering", "fd", "fd_original", "fd_change"}
    assert {name: found[name] for name in own if name not in told} == {
        name: value for name, value in own.items() if name not in told
    }
    for name in ("fd", "fd_original", "fd_change"):  # the intervals are drawn after other numbers
        assert found[name]["mean"] == pytest.approx(own[name]["mean"])
    assert (found["model"], found["steering"], found["fd_floor"]) == ("other tool 図", None, 0.0)
    assert own["agreement"]["judges"] == ["attribute-classifier", "icm-tiny-clip"]


def test_broken_images_are_named_counted_and_kept_and_the_rest_is_judged(
    folders: tuple[Path, Path], judge: Callable[..., Artifact], caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    steered, originals = folders
    (steered / "0_100_woman.png").write_bytes(b"")
    (originals / "1_101.png").write_text("no picture")
    (originals / "2_102.png").unlink()
    noise(originals / "3_103.png", 53, size=80)
    noise(originals / "3_999.png", 99)
    with caplog.at_level(logging.WARNING):
        artifact = judge("evaluate", steered, f"reference={originals}", RULES)
    found, rows = figures(artifact), lines(artifact, "images.csv")
    assert found["unreadable"] == {
        "images": {"0_100_woman": "the file is empty"}, "reference": {"1_101": "not a picture"}
    }  # fmt: skip
    assert (found["without_twin"], found["reference_unused"]) == (["2_102_woman"], 1)
    problems = {row["id"]: row["problem"] for row in rows if row["problem"]}
    assert problems == {
        "0_100_woman": "the file is empty", "1_101_woman": "twin: not a picture", "2_102_woman": NO_TWIN
    }  # fmt: skip
    assert "no SSIM of 1 of 8 pairs" in caplog.text
    assert (found["num_images"], len(rows)) == (8, 8)
    for when, name in (("original", "fd_original"), ("steered", "fd")):
        for prompt in PROMPTS:
            man = [float(row[f"{when}_man"]) for row in rows if row["prompt"] == prompt]
            expected = 2**0.5 * abs(np.nanmean(man) - 0.5)
            assert found[name]["by_prompt"][prompt] == pytest.approx(expected, abs=1e-5)
    assert found["clip_i"] == pytest.approx(np.nanmean([float(row["clip_i"]) for row in rows]), abs=1e-5)
    assert sum(np.isnan(float(row["ssim"])) for row in rows) == 4
    obeyed = [float(row[f"steered_{row['steered_to']}"]) > 0.5 for row in rows]
    assert found["obeyed"] == pytest.approx(sum(obeyed) / 8)
    assert set(found["kept"]) == {"age", "skin_tone", "background", "glasses"} == set(found["drift"])
    print_metrics(from_json(Evaluation, found))
    assert "cannot be read" in capsys.readouterr().out


def test_without_a_reference_there_is_fd_and_what_prompts_and_options_allow(
    folders: tuple[Path, Path], judge: Callable[..., Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    steered, _ = folders
    ruled, bare = figures(judge("evaluate", steered, RULES)), figures(judge("evaluate", steered))
    assert list(ruled["fd"]["by_prompt"]) == PROMPTS
    assert list(bare["fd"]["by_prompt"]) == ["all images"]
    assert 0.5 < ruled["clip_t"] < 1
    assert ruled["obeyed_by_option"].keys() == set(OPTIONS)
    assert (bare["clip_t"], bare["obeyed"], bare["fd_floor"]) == (None, None, None)
    for found in (ruled, bare):
        twins = ("fd_original", "fd_change", "clip_i", "clip_t_original", "ssim")
        assert [found[name] for name in twins] == [None] * 5
        assert (found["kept"], found["drift"], list(found["agreement"])) == ({}, {}, ["judges", "options", "steered"])
        print_metrics(from_json(Evaluation, found))
    assert "CLIP-I" not in capsys.readouterr().out


def test_the_artifact_is_of_content_and_shows_its_folders(
    folders: tuple[Path, Path], judge: Callable[..., Artifact], tmp_path: Path
) -> None:
    steered, originals = folders
    artifact = judge("evaluate", steered, f"reference={originals}", RULES)
    assert artifact.folder.name == f"other_tool_図-gender-{artifact.key}"
    moved = shutil.copytree(steered, tmp_path / "moved")
    assert judge("evaluate", moved, f"reference={originals}", RULES).folder == artifact.folder
    noise(moved / "0_100_woman.png", 77)
    assert judge("evaluate", moved, f"reference={originals}", RULES).key != artifact.key
    console = Console(width=200, record=True)
    print_artifact(console, read_shelf(tmp_path / "outputs", kinds_of_stages()), artifact, all_files=False)
    assert str(originals) in console.export_text()


def test_labels_of_a_folder_keep_its_broken_images_and_are_no_waste(
    folders: tuple[Path, Path], judge: Callable[..., Artifact], tmp_path: Path
) -> None:
    steered, _ = folders
    (steered / "1_101_woman.png").write_bytes(b"")
    artifact = judge("label", steered, "labeler.batch_size=3", "generate.shard_size=3")
    rows = lines(artifact, "labels.csv")
    assert [(row["id"], row["option"]) for row in rows if row["problem"]] == [("1_101_woman", "")]
    assert all(row["option"] in OPTIONS for row in rows if not row["problem"])
    assert len(rows) == 8
    assert find_waste(read_shelf(tmp_path / "outputs", kinds_of_stages()), hours=-1) == []


def test_a_judge_of_faces_judges_what_it_can_and_names_what_it_cannot(
    folders: tuple[Path, Path], judge: Callable[..., Artifact], tmp_path: Path, caplog: pytest.LogCaptureFixture,
    compose_settings: Compose,
) -> None:  # fmt: skip
    from torchvision.models import resnet34

    steered, originals = folders
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(resnet34(weights=None, num_classes=18).state_dict(), tmp_path / "fairface.pt")
    words = (
        "stage=evaluate", f'images="{steered}"', f"reference={originals}", "labeler=fairface", "labeler.device=cpu",
        "labeler.faces=none", f"labeler.path={tmp_path / 'fairface.pt'}", f"paths.outputs={tmp_path / 'outputs'}",
        "evaluate.clip.path=embedded:tiny-clip", "judge.path=embedded:tiny-classifier", "evaluate.bootstrap=5", RULES,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        artifact = Pipeline(compose_settings(*words), [], NoTracker()).run("evaluate")
    assert artifact is not None
    found = figures(artifact)
    assert found["not_judged"] == ["skin_tone", "background", "glasses"]
    assert "drawn portraits" in caplog.text
    assert (list(found["kept"]), found["agreement"]) == (["age"], None)
    assert 0 <= found["fd"]["mean"] < 0.71


class HalfBlind:
    """Sees nothing in the images of one prompt, which come first by name."""

    def label(self, images: Any, questions: Any) -> dict[str, np.ndarray]:
        rows = np.tile([0.75, 0.25], (len(images), 1))
        rows[:2] = np.nan
        return {name: rows for name in questions}


def test_a_prompt_in_whose_images_the_judge_saw_nothing_is_left_out_by_name(
    folders: tuple[Path, Path], judge: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(judging, "load_labeler", lambda config, setting: HalfBlind())
    words = ("labeler.kind=tiny", "labeler.path=embedded:tiny-classifier", "labeler.model=attribute-classifier")
    with caplog.at_level(logging.WARNING):
        found = figures(judge("evaluate", folders[0], RULES, *words))
    assert found["prompts_left_out"] == [PROMPTS[0]]
    assert list(found["fd"]["by_prompt"]) == PROMPTS[1:]
    assert found["unseen"] == {"steered": 2}
    assert found["fd"]["mean"] == pytest.approx(2**0.5 * 0.25)
    assert PROMPTS[0] in caplog.text


def row(image_id: str, prompt: str = "", seed: int | None = None) -> ImageRow:
    return ImageRow(image_id, prompt, 0, seed, "", Path(f"/{image_id}.png"))


def test_twins_share_an_id_or_else_a_prompt_and_seed() -> None:
    rows = [row("a"), row("b-man", "dog", 1), row("b-woman", "dog", 1), row("c", "dog", 2)]
    others = [row("b", "dog", 1), row("a"), row("x", "cat", 2), row("y", "", 2)]
    twins = find_twins(rows, others)
    assert [twin.image_id for twin in twins] == ["a", "b", "b", "c"]
    assert [twin.problem for twin in twins] == ["", "", "", NO_TWIN]


def test_two_originals_of_one_prompt_and_seed_are_nobodys_twin() -> None:
    twins = find_twins([row("a", "dog", 1), row("z")], [row("b", "dog", 1), row("c", "dog", 1), row("z")])
    assert [twin.problem for twin in twins] == [NO_TWIN, ""]


def test_twins_of_different_prompts_and_folders_without_a_pair_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'a' is of 'dog', seed 1, but its twin of 'cat'"):
        find_twins([row("a", "dog", 1)], [row("a", "cat", 1)])
    with pytest.raises(ValueError, match=r"No image has a readable twin: images has the ids a; reference has b"):
        find_twins([row("a")], [row("b")])
