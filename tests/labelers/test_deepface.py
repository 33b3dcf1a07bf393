"""DeepFace through its real `analyze`, on small ONNX networks in place of its weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.deepface import WEIGHTS
from icm_pipeline.labelers.registry import check_labeler, load_labeler
from tests.helpers.judges import labeler_config
from tests.helpers.pictures import needs, noise, portrait

GROUPS = {
    "gender": {"female": ["Woman"], "male": ["Man"]},
    "age": {"young": ["0-19"], "adult": ["20-59"], "old": ["60+"]},
    "race": {"latino": ["latino hispanic"]},
}
QUESTIONS = {
    "gender": {"man": [], "woman": []},
    "race": {"white": [], "black": [], "latino": []},
    "age": {"young": [], "adult": [], "old": []},
}
EXTRA = needs("deepface", "onnxruntime", "onnx", "cv2")
COLOURS = [(250, 30, 60), (20, 200, 90)]


def stand_in(num_outputs: int, seed: int) -> "tuple[object, np.ndarray]":
    """Return an ONNX network, softmax of a linear map of the mean BGR colour [n, 3], and the map."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(seed).normal(size=(3, num_outputs)).astype(np.float32) * 4
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "stand-in",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 224, 224, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", num_outputs])],
        [numpy_helper.from_array(np.array([1, 2]), "axes"), numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), weights


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Write stand-ins of the three networks where DeepFace looks for them; return the folder and their maps."""
    import onnx

    folder = tmp_path_factory.mktemp("home") / ".deepface" / "weights"
    folder.mkdir(parents=True)
    linear = {}
    for seed, (head, size) in enumerate((("gender", 2), ("race", 6), ("age", 101))):
        model, linear[head] = stand_in(size, seed)
        onnx.save(model, folder / WEIGHTS[head])
    return folder, linear


def deepface(path: Path, **others: Any) -> LabelerConfig:
    return labeler_config("deepface", path, **{"detector": "opencv", "groups": GROUPS} | others)


def expected(weights: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    logits = np.array(colour[::-1]) / 255 @ weights
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


@EXTRA
def test_analyze_answers_every_question_of_whole_pictures(maps: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, linear = maps
    judge = load_labeler(deepface(folder))
    found = judge.label([Image.new("RGB", (224, 224), colour) for colour in COLOURS], QUESTIONS)
    for row, colour in enumerate(COLOURS):
        woman, man = expected(linear["gender"], colour)
        np.testing.assert_allclose(found["gender"][row], [man, woman], atol=1e-3)
        _, _, black, white, _, latino = expected(linear["race"], colour)
        np.testing.assert_allclose(found["race"][row], [white, black, latino], atol=1e-3)
        years = int(expected(linear["age"], colour) @ np.arange(101))
        assert found["age"][row].tolist() == [float(years < 20), float(20 <= years < 60), float(years >= 60)]


@EXTRA
def test_deepfaces_own_detector_finds_the_face_or_leaves_a_row_of_nan(
    maps: tuple[Path, dict[str, np.ndarray]],
) -> None:
    judge = load_labeler(deepface(maps[0], faces="largest"))
    found = judge.label([noise(1, (256, 256))[0], portrait()], QUESTIONS)["gender"]
    assert np.isnan(found).all(1).tolist() == [True, False]


@EXTRA
def test_other_weights_in_another_folder_are_read_in_the_same_process(
    maps: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    import onnx

    folder = tmp_path / ".deepface" / "weights"
    folder.mkdir(parents=True)
    model, weights = stand_in(2, 99)
    onnx.save(model, folder / WEIGHTS["gender"])
    question, image = {"gender": QUESTIONS["gender"]}, Image.new("RGB", (224, 224), COLOURS[0])
    rows = [load_labeler(deepface(path)).label([image], question)["gender"] for path in (maps[0], folder)]
    np.testing.assert_allclose(rows[0][0], expected(maps[1]["gender"], COLOURS[0])[::-1], atol=1e-3)
    np.testing.assert_allclose(rows[1][0], expected(weights, COLOURS[0])[::-1], atol=1e-3)


@EXTRA
def test_missing_weights_are_named_with_their_folder_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / ".deepface" / "weights"
    with pytest.raises(
        ValueError, match=r"gender_model_weights\.onnx, race_model_single_batch\.onnx are not in"
    ) as told:
        check_labeler(deepface(folder), "judge", {name: QUESTIONS[name] for name in ("gender", "race")})
    assert str(folder) in str(told.value)


def test_weights_that_are_not_whole_are_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icm_pipeline.labelers.deepface.require", lambda *names: None)
    folder = tmp_path / ".deepface" / "weights"
    folder.mkdir(parents=True)
    (folder / WEIGHTS["gender"]).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    with pytest.raises(ValueError, match=r"gender_model_weights\.onnx is a Git LFS pointer"):
        check_labeler(deepface(folder), "judge", {"gender": QUESTIONS["gender"]})


@EXTRA
def test_a_folder_where_deepface_would_not_look_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.deepface/weights"):
        load_labeler(deepface(tmp_path)).label(noise(1), QUESTIONS)


def test_a_detector_that_is_none_of_deepfaces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labeler\.detector=dlib_cnn is none of DeepFace's: opencv"):
        load_labeler(deepface(tmp_path, faces="largest", detector="dlib_cnn"))


@EXTRA
def test_a_gpu_that_deepface_would_not_run_on_is_refused(maps: tuple[Path, dict[str, np.ndarray]]) -> None:
    with pytest.raises(ValueError, match=r"CUDA_VISIBLE_DEVICES=1 and judge\.device=cuda"):
        check_labeler(deepface(maps[0], device="cuda:1"), "judge", {})
    check_labeler(deepface(maps[0], device="cuda:0"), "judge", {})
