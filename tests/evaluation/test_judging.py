"""Judging: each set of images is looked at once by each judge, with the same answers whether seen before or not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation import judging as stages_judging
from icm_pipeline.evaluation.judging import Judging, reference_images
from icm_pipeline.evaluation.row_cache import RowCache
from icm_pipeline.images.table import ImageRow
from icm_pipeline.labelers.clip import ClipJudge
from icm_pipeline.labelers.tiny import TinyLabeler
from icm_pipeline.zoo.paths import ZOO

Compose = Callable[..., Settings]
GENDER = {"woman": ["a photo of a woman"], "man": ["a photo of a man", "a portrait of a gentleman"]}
QUESTIONS = {"age": {"young": ["a"], "old": ["b"]}, "gender": GENDER}


@pytest.fixture
def rows(tmp_path: Path) -> list[ImageRow]:
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    return [ImageRow(str(index), "a face", 0, index, "", tmp_path / f"{index}.png") for index in range(3)]


@pytest.fixture
def settings(settings_with: Compose) -> Settings:
    return settings_with(
        "model.path=embedded:tiny",
        "judge.path=embedded:tiny-classifier",
        "labeler.path=embedded:tiny-clip",
        "evaluate.clip.path=embedded:tiny-clip",
    )


def judging(settings: Settings, tmp_path: Path) -> Judging:
    return Judging(settings, RowCache(tmp_path / "cache", tmp_path))


def counted(monkeypatch: pytest.MonkeyPatch, judge: type, method: str) -> list[int]:
    """Count how many images a judge is given from now on."""
    seen: list[int] = []
    original = getattr(judge, method)

    def looks(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(images))
        return original(self, images, *args, **kwargs)

    monkeypatch.setattr(judge, method, looks)
    return seen


def test_a_judge_looks_once_and_answers_the_same_from_disk(
    settings: Settings, rows: list[ImageRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch, TinyLabeler, "label")
    first, again = (judging(settings, tmp_path).label(settings.judge, "judge", rows, QUESTIONS) for _ in range(2))
    assert seen == [3]
    direct = TinyLabeler(settings.judge, "judge").label([Image.open(row.path) for row in rows], QUESTIONS)
    for name in QUESTIONS:
        assert np.array_equal(first[name], again[name])
        assert np.array_equal(first[name], direct[name])


def test_a_judge_is_loaded_once_for_all_sets_of_images(
    settings: Settings, rows: list[ImageRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, load = list[str](), stages_judging.load_labeler
    monkeypatch.setattr(stages_judging, "load_labeler", lambda judge, name: (loads.append(name), load(judge, name))[1])
    judges = judging(settings, tmp_path)
    for part in (rows[:1], rows[1:]):
        judges.label(settings.judge, "judge", part, QUESTIONS)
    assert loads == ["judge"]


class Halves:
    """Sees as much of every option, and counts how often it is asked."""

    def __init__(self) -> None:
        self.times = 0

    def label(self, images: Any, questions: Any) -> dict[str, np.ndarray]:
        self.times += 1
        return {name: np.full((len(images), len(options)), 1 / len(options)) for name, options in questions.items()}


@pytest.mark.parametrize("setting", ["path", "model"])
def test_a_judge_with_other_weights_at_the_same_place_looks_again(
    settings: Settings, rows: list[ImageRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    judge, weights = Halves(), tmp_path / "weights" / "open_clip_model.safetensors"
    monkeypatch.setattr(stages_judging, "load_labeler", lambda config, name: judge)
    weights.parent.mkdir()
    where = f"local-dir:{weights.parent}" if setting == "model" else str(weights.parent)
    config = replace(settings.judge, **{setting: where})
    for content, times in (("0123", 1), ("0123", 1), ("0124", 2)):
        weights.write_text(content)
        judging(settings, tmp_path).label(config, "judge", rows, QUESTIONS)
        assert judge.times == times


@pytest.mark.parametrize("change", [{"faces": "largest"}, {"groups": {"age": {"young": ["0-2"]}}}, {"kind": "clip"}])
def test_a_judge_with_other_settings_looks_again(
    settings: Settings, rows: list[ImageRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    judge = Halves()
    monkeypatch.setattr(stages_judging, "load_labeler", lambda config, name: judge)
    for config in (settings.judge, settings.judge, replace(settings.judge, **change)):
        judging(settings, tmp_path).label(config, "judge", rows, QUESTIONS)
    assert judge.times == 2


def test_a_clip_judge_shares_the_embeddings_of_clip_i(
    settings: Settings, rows: list[ImageRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch, ClipJudge, "embed_images")
    judges = judging(settings, tmp_path)
    embedded = judges.embed(rows)
    labels = judges.label(settings.labeler, "labeler", rows, {"gender": GENDER})["gender"]
    assert seen == [3]
    assert np.linalg.norm(embedded, axis=1) != pytest.approx([1, 1, 1])
    direct = ClipJudge(settings.evaluate.clip, "evaluate.clip")
    assert labels == pytest.approx(direct.label([Image.open(r.path) for r in rows], {"gender": GENDER})["gender"])


def test_the_order_of_options_is_part_of_the_question(settings: Settings, rows: list[ImageRow], tmp_path: Path) -> None:
    judges = judging(settings, tmp_path)
    turned = {"gender": dict(reversed(GENDER.items()))}
    a, b = (judges.label(settings.judge, "judge", rows, asked)["gender"] for asked in ({"gender": GENDER}, turned))
    assert np.array_equal(a, b[:, ::-1])


def test_prompts_are_embedded_in_their_order(settings: Settings, tmp_path: Path) -> None:
    texts = ["a doctor", "a nurse", "a doctor"]
    direct = ClipJudge(settings.evaluate.clip, "evaluate.clip").embed_texts(texts)
    assert judging(settings, tmp_path).embed_prompts(texts) == pytest.approx(direct, abs=1e-6)


def test_a_reference_is_every_picture_below_a_folder(rows: list[ImageRow], tmp_path: Path) -> None:
    (tmp_path / "größer unten").mkdir()
    rows[2].path.rename(tmp_path / "größer unten" / "ein Bild.PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    assert [row.image_id for row in reference_images(tmp_path)] == ["0.png", "1.png", "größer unten/ein Bild.PNG"]


def test_a_reference_is_read_without_its_broken_pictures_and_without_anybodys_table(
    rows: list[ImageRow], tmp_path: Path
) -> None:
    rows[1].path.write_bytes(rows[1].path.read_bytes()[:-200])
    (tmp_path / "images.csv").write_text("name,size\n0,64\n")
    assert [row.image_id for row in reference_images(tmp_path)] == ["0.png", "2.png"]


@pytest.mark.parametrize("clip", [True, False])
def test_a_picture_that_cannot_be_read_is_a_row_of_nan_in_its_place(
    settings: Settings, rows: list[ImageRow], tmp_path: Path, clip: bool
) -> None:
    judges, judge = judging(settings, tmp_path), settings.labeler if clip else settings.judge
    whole = judges.label(judge, "judge", rows, {"gender": GENDER})["gender"]
    broken = [rows[0], replace(rows[1], path=tmp_path / "nowhere.png", problem="no such file"), rows[2]]
    found = judges.label(judge, "judge", broken, {"gender": GENDER})["gender"]
    assert np.isnan(found[1]).all()
    assert found[[0, 2]] == pytest.approx(whole[[0, 2]], abs=1e-6)


@pytest.mark.parametrize(("name", "said"), [("nowhere", "is no folder"), ("empty", "holds no picture")])
def test_a_reference_without_pictures_is_refused_by_name(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"{name} {said}"):
        reference_images(tmp_path / name)


def test_an_inception_checkpoint_that_is_not_there_is_refused(
    settings_with: Compose, rows: list[ImageRow], tmp_path: Path
) -> None:
    pytest.importorskip("torch_fidelity", reason="the extra `fid` is not installed")
    settings = settings_with("evaluate.inception=/nowhere/inception.pth", f"evaluate.clip.path={ZOO / 'tiny-clip'}")
    with pytest.raises(ValueError, match=r"/nowhere/inception\.pth does not exist"):
        judging(settings, tmp_path).realism_features(rows)
