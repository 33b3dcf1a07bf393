"""Labelers: probabilities per option, whatever the batch and the order of the options."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from icm_pipeline.config import choices
from icm_pipeline.labelers.clip import ClipJudge
from icm_pipeline.labelers.registry import JUDGES, Judge, check_labeler, load_labeler
from icm_pipeline.labelers.tiny import AttributeClassifier, TinyLabeler, load_classifier
from tests.helpers.judges import CLIP_NAME, clip_of, labeler_config

ATTRIBUTES = {"gender": ("woman", "man"), "age": ("young", "middle", "old")}
GENDER = {"woman": ["a woman"], "man": ["a man"]}
TEXTS = {"woman": ["a photo of a woman", "a portrait of a lady"], "man": ["a photo of a man"], "dog": ["a dog"]}


TOSSING = """
import numpy as np

class Coin:
    def __init__(self, config, setting):
        check(config, setting, {})

    def label(self, images, questions):
        return {name: np.full((len(images), len(options)), 1 / len(options)) for name, options in questions.items()}

def check(config, setting, questions):
    if not config.path:
        raise ValueError(f"{setting}.path is empty.")
"""


def tiny_of(folder: Path, batch_size: int = 3) -> TinyLabeler:
    return TinyLabeler(labeler_config("tiny", folder, batch_size=batch_size), "labeler")


def pictures(n: int, size: int = 64) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)) for _ in range(n)]


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AttributeClassifier(ATTRIBUTES, widths=(8, 8, 8, 8)).save(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(classifier_folder: Path) -> TinyLabeler:
    return tiny_of(classifier_folder)


@pytest.fixture(scope="module")
def judge(clip_folder: Path) -> ClipJudge:
    return clip_of(clip_folder)


def test_a_saved_classifier_loads_as_it_was_up_to_half_precision(tmp_path: Path) -> None:
    model = AttributeClassifier(ATTRIBUTES, widths=(8, 8, 8, 8)).eval()
    model.save(tmp_path)
    loaded = load_classifier(tmp_path)
    assert loaded.attributes == ATTRIBUTES
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name].half().float())


def test_the_tiny_labeler_gives_a_distribution_over_the_options(tiny: TinyLabeler) -> None:
    probabilities = tiny.label(pictures(5), {"gender": GENDER})["gender"]
    assert probabilities.shape == (5, 2)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert len({round(p, 9) for p in probabilities[:, 0]}) == 5


def test_the_tiny_labeler_agrees_with_its_network(tiny: TinyLabeler, classifier_folder: Path) -> None:
    picture = pictures(1)[0]
    pixels = torch.tensor(np.array(picture) / 127.5 - 1, dtype=torch.float32).permute(2, 0, 1)[None]
    expected = load_classifier(classifier_folder)(pixels)["gender"].softmax(1)
    np.testing.assert_allclose(
        tiny.label([picture], {"gender": GENDER})["gender"], expected.detach().numpy(), atol=1e-6
    )


def test_the_tiny_labelers_columns_follow_the_options_asked_for(tiny: TinyLabeler) -> None:
    plain = tiny.label(pictures(4), {"gender": GENDER})["gender"]
    turned = tiny.label(pictures(4), {"gender": dict(reversed(GENDER.items()))})["gender"]
    assert np.array_equal(plain, turned[:, ::-1])


def test_a_subset_of_options_shares_the_whole_probability(tiny: TinyLabeler) -> None:
    whole = tiny.label(pictures(4), {"age": {option: [option] for option in ATTRIBUTES["age"]}})["age"]
    some = tiny.label(pictures(4), {"age": {"old": ["old"], "young": ["young"]}})["age"]
    np.testing.assert_allclose(some, whole[:, [2, 0]] / whole[:, [2, 0]].sum(1, keepdims=True))


def test_the_tiny_labeler_does_not_depend_on_the_batch_size(tiny: TinyLabeler, classifier_folder: Path) -> None:
    single = tiny_of(classifier_folder, 1).label(pictures(7), {"gender": GENDER})["gender"]
    np.testing.assert_allclose(tiny.label(pictures(7), {"gender": GENDER})["gender"], single, atol=1e-6)


def test_the_tiny_labeler_takes_pictures_of_any_size_and_mode(tiny: TinyLabeler) -> None:
    grey = pictures(1)[0].convert("L")
    rows = tiny.label([grey, grey.convert("RGB"), pictures(1, 128)[0]], {"gender": GENDER})["gender"]
    assert np.array_equal(rows[0], rows[1])
    assert np.isfinite(rows).all()


def test_an_attribute_the_classifier_does_not_know_is_refused_with_those_it_does(tiny: TinyLabeler) -> None:
    with pytest.raises(ValueError, match="gender, age"):
        tiny.label(pictures(1), {"beard": {"yes": ["x"], "no": ["y"]}})["beard"]


def test_an_option_the_classifier_does_not_know_is_refused_with_those_it_does(tiny: TinyLabeler) -> None:
    with pytest.raises(ValueError, match=r"\['robot'\].*woman, man"):
        tiny.label(pictures(1), {"gender": {**GENDER, "robot": ["a robot"]}})["gender"]


def test_a_classifier_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="attribute classifier"):
        tiny_of(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_classifier_that_is_not_whole_is_refused_early(classifier_folder: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(classifier_folder, tmp_path / "copy"))
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1377050\n")
    with pytest.raises(
        ValueError, match=rf"^judge\.path=.* is no attribute classifier: its {name} is a Git LFS pointer"
    ):
        check_labeler(labeler_config("tiny", folder), "judge", {})


@pytest.mark.parametrize("content", ["{", "[]", '{"widths": [8]}'])
def test_a_classifier_that_does_not_say_what_it_tells_is_refused_early(tmp_path: Path, content: str) -> None:
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_text(content)
    save_file({"head.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"config\.json does not say what an attribute classifier tells"):
        check_labeler(labeler_config("tiny", tmp_path), "judge", {"gender": GENDER})


def test_clip_embeddings_have_unit_length(judge: ClipJudge) -> None:
    for embedded in (judge.embed_images(pictures(5)), judge.embed_texts(["a woman", "a man"])):
        np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)


def test_clip_embeddings_do_not_depend_on_the_batch_size(judge: ClipJudge, clip_folder: Path) -> None:
    single = clip_of(clip_folder, batch_size=1)
    np.testing.assert_allclose(judge.embed_images(pictures(7)), single.embed_images(pictures(7)), atol=1e-6)


def test_a_clip_is_loaded_from_its_folder_with_its_weights(judge: ClipJudge, clip_folder: Path) -> None:
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(
        CLIP_NAME, pretrained=str(clip_folder / f"{CLIP_NAME}.safetensors")
    )
    with torch.inference_mode():
        expected = model.eval().encode_image(transform(pictures(1)[0])[None], normalize=True)
    np.testing.assert_allclose(judge.embed_images(pictures(1)), expected.numpy(), atol=1e-6)


def test_the_score_of_an_option_is_its_best_text_at_the_models_temperature(judge: ClipJudge) -> None:
    images = judge.embed_images(pictures(6))
    cosine = {option: images @ judge.embed_texts(texts).T for option, texts in TEXTS.items()}
    scale = 1 / 0.07  # open_clip's initial temperature
    logits = np.stack([scale * values.max(1) for values in cosine.values()], axis=1)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(judge.label(pictures(6), {"gender": TEXTS})["gender"], expected, atol=1e-5)


def test_a_second_text_can_raise_an_options_share_and_never_lower_it(judge: ClipJudge) -> None:
    one = judge.label(pictures(6), {"gender": {**TEXTS, "woman": TEXTS["woman"][:1]}})["gender"][:, 0]
    both = judge.label(pictures(6), {"gender": TEXTS})["gender"][:, 0]
    other = judge.label(pictures(6), {"gender": {**TEXTS, "woman": TEXTS["woman"][1:]}})["gender"][:, 0]
    np.testing.assert_allclose(both, np.maximum(one, other), atol=1e-6)
    assert not np.allclose(one, other, atol=1e-4)


def test_an_options_texts_are_embedded_once(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, embedded = clip_of(clip_folder), list[list[str]]()
    embed = judge.embed_texts
    monkeypatch.setattr(judge, "embed_texts", lambda texts: (embedded.append(texts), embed(texts))[1])
    first, again = (judge.label(pictures(3), {"gender": TEXTS})["gender"] for _ in range(2))
    assert embedded == list(TEXTS.values())
    assert np.array_equal(first, again)


def test_clips_columns_follow_the_options_asked_for(judge: ClipJudge) -> None:
    plain = judge.label(pictures(4), {"gender": TEXTS})["gender"]
    turned = judge.label(pictures(4), {"gender": dict(reversed(TEXTS.items()))})["gender"]
    np.testing.assert_allclose(plain, turned[:, ::-1], atol=1e-9)


def test_a_clip_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        clip_of(tmp_path / "nothing")


@pytest.mark.parametrize("path", ["model", "folder"])
def test_a_clip_that_cannot_be_loaded_is_refused_as_a_value_error(clip_folder: Path, tmp_path: Path, path: str) -> None:
    if path == "model":
        with pytest.raises(ValueError, match="no-such-model"):
            clip_of(clip_folder / f"{CLIP_NAME}.safetensors", model="no-such-model")
    else:
        with pytest.raises(ValueError, match=CLIP_NAME):
            clip_of(tmp_path)


@pytest.mark.parametrize("kind", ["tiny", "clip"])
def test_a_labeler_is_loaded_by_its_kind(kind: str, classifier_folder: Path, clip_folder: Path) -> None:
    path = classifier_folder if kind == "tiny" else clip_folder
    found = load_labeler(labeler_config(kind, path, model=CLIP_NAME))
    assert isinstance(found, TinyLabeler if kind == "tiny" else ClipJudge)


def test_an_unknown_kind_of_labeler_is_refused_with_the_choices() -> None:
    for ask in (load_labeler, lambda config, setting: check_labeler(config, setting, {})):
        with pytest.raises(ValueError, match=r"judge\.kind=oracle.*clip, deepface, fairface, tiny"):
            ask(labeler_config("oracle"), "judge")


def test_a_clips_preprocessing_is_refused_for_other_judges(classifier_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^judge\.preprocess=openai says how a CLIP was trained; tiny is none"):
        check_labeler(labeler_config("tiny", classifier_folder, preprocess="openai"), "judge", {})


def test_the_configuration_offers_the_judges_there_are() -> None:
    assert set(choices.JUDGES) == set(JUDGES)


def test_a_judge_of_ones_own_is_one_file_and_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "coin.py").write_text(TOSSING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(JUDGES, "coin", Judge("coin", "Coin"))
    check_labeler(labeler_config("coin", "/a/coin"), "judge", {})
    with pytest.raises(ValueError, match=r"^judge\.path is empty"):
        check_labeler(labeler_config("coin"), "judge", {})
    tossed = load_labeler(labeler_config("coin", "/a/coin")).label(pictures(2), {"gender": GENDER})["gender"]
    assert tossed.tolist() == [[0.5, 0.5]] * 2


def test_one_look_answers_every_question(judge: ClipJudge, tiny: TinyLabeler) -> None:
    age = {"old": ["an old person"], "young": ["a young person"]}
    for labeler in (judge, tiny):
        both = labeler.label(pictures(4), {"gender": GENDER, "age": age})
        assert np.array_equal(both["gender"], labeler.label(pictures(4), {"gender": GENDER})["gender"])
        assert np.array_equal(both["age"], labeler.label(pictures(4), {"age": age})["age"])


def test_a_clip_in_openais_own_format_is_the_same_network_with_quick_gelu(
    judge: ClipJudge, clip_folder: Path, openais_clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import open_clip

    weights = str(clip_folder / f"{CLIP_NAME}.safetensors")
    model, _, transform = open_clip.create_model_and_transforms(CLIP_NAME, weights, force_quick_gelu=True)
    archived = clip_of(openais_clip)
    with torch.inference_mode():
        expected = model.eval().encode_image(torch.stack([transform(image) for image in pictures(3)]), normalize=True)
        tokens = open_clip.get_tokenizer(CLIP_NAME)(["a woman"])
        text = model.encode_text(tokens, normalize=True)
    np.testing.assert_allclose(archived.embed_images(pictures(3)), expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(archived.embed_texts(["a woman"]), text.numpy(), atol=1e-6)
    assert not np.allclose(archived.embed_images(pictures(3)), judge.embed_images(pictures(3)), atol=1e-4)
    assert "randomly" not in caplog.text


def test_a_clip_as_a_plain_state_dict_gives_the_same_embeddings(
    judge: ClipJudge, clip_folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(clip_folder / f"{CLIP_NAME}.safetensors"), tmp_path / "state.pt")
    loaded = clip_of(tmp_path / "state.pt")
    assert np.array_equal(loaded.embed_images(pictures(3)), judge.embed_images(pictures(3)))


def test_a_clip_that_brings_its_own_weights_needs_no_path(judge: ClipJudge, clip_folder: Path, tmp_path: Path) -> None:
    config = {"model_cfg": json.loads((clip_folder / f"{CLIP_NAME}.json").read_text()), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").write_bytes((clip_folder / f"{CLIP_NAME}.safetensors").read_bytes())
    loaded = clip_of("", model=f"local-dir:{tmp_path}")
    np.testing.assert_allclose(loaded.embed_images(pictures(3)), judge.embed_images(pictures(3)), atol=1e-6)
