"""A CLIP given as a file: what it must be told is known or asked for, and what it is not is said in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.pretrained import _PRETRAINED
from safetensors.torch import load_file, save_file
from torch import nn

from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.clip_files import PREPARED, shapes_of, training_of
from icm_pipeline.labelers.registry import check_labeler
from tests.helpers.judges import CLIP_NAME, clip_of, labeler_config
from tests.helpers.pictures import noise

LONG = "a photograph of the face of somebody who is known to everybody in this town as a "
PE = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "resize_mode": "squash"}


def weights_of(folder: Path) -> Path:
    return folder / f"{CLIP_NAME}.safetensors"


def config_of(path: Path | str, model: str = CLIP_NAME, **others: object) -> LabelerConfig:
    return labeler_config("clip", path, model=model, **others)


@pytest.fixture
def tags(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, object]]:
    """Give open_clip's table of tags of the test's CLIP, which is empty."""
    found: dict[str, dict[str, object]] = {}
    monkeypatch.setitem(_PRETRAINED, CLIP_NAME, found)
    return found


def test_a_file_is_prepared_as_the_tags_of_its_architecture_are(
    clip_folder: Path, tags: dict[str, dict[str, object]]
) -> None:
    tags["meta"] = {**PE, "quick_gelu": True}
    images = noise(2, (48, 64))
    model, _, transform = open_clip.create_model_and_transforms(
        CLIP_NAME, str(weights_of(clip_folder)), force_quick_gelu=True,
        **{f"image_{name}": value for name, value in PE.items()},
    )  # fmt: skip
    with torch.inference_mode():
        expected = model.eval().encode_image(torch.stack([transform(image) for image in images]), normalize=True)
    np.testing.assert_allclose(clip_of(weights_of(clip_folder)).embed_images(images), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "tag"),
    [
        ("PE-Core-T-16-384", "meta"),
        ("MobileCLIP2-S0", "dfndr2b"),
        ("ViT-B-16-SigLIP2", "webli"),
        ("ViT-L-14-336", "openai"),
        ("ViT-L-14-quickgelu", "openai"),
    ],
)
def test_architectures_whose_tags_agree_need_no_setting(model: str, tag: str, tmp_path: Path) -> None:
    found, expected = training_of(model, tmp_path, None, "labeler"), open_clip.get_pretrained_cfg(model, tag)
    assert [found.get("quick_gelu"), *(found[name] for name in PREPARED)] == [
        expected.get("quick_gelu"), *(expected[name] for name in PREPARED),
    ]  # fmt: skip


def test_a_file_of_an_architecture_that_was_trained_in_several_ways_has_to_say_which(
    clip_folder: Path, tags: dict[str, dict[str, object]]
) -> None:
    tags |= {"openai": {**PE, "quick_gelu": True}, "laion": PE}
    with pytest.raises(ValueError, match=rf"^labeler\.path=.* its {CLIP_NAME} was trained; .*: openai; laion\."):
        clip_of(weights_of(clip_folder))
    images = noise(1, (32, 32))
    quick, plain = (clip_of(weights_of(clip_folder), preprocess=tag).embed_images(images) for tag in tags)
    assert not np.allclose(quick, plain, atol=1e-4)
    with pytest.raises(ValueError, match=r"^labeler\.preprocess=metal is none of .*\(openai, laion\)"):
        clip_of(weights_of(clip_folder), preprocess="metal")


def test_pixels_of_another_architecture_can_be_asked_for(clip_folder: Path) -> None:
    found = training_of(CLIP_NAME, weights_of(clip_folder), "ViT-B-16-SigLIP:webli", "labeler")
    assert (found["mean"], found["resize_mode"]) == ((0.5, 0.5, 0.5), "squash")


def test_the_tag_openai_means_quick_gelu_under_the_plain_name_too() -> None:
    assert training_of("ViT-B-32", "openai", None, "labeler")["quick_gelu"]
    assert "quick_gelu" not in training_of("ViT-B-32", "laion2b_s34b_b79k", None, "labeler")


def test_a_tag_that_open_clip_does_not_have_is_refused_early() -> None:
    with pytest.raises(ValueError, match=r"^labeler\.path=openay is no file and no tag of RN50; .*openai, yfcc15m"):
        check_labeler(config_of("openay", "RN50"), "labeler", {})


@pytest.mark.parametrize("kind", ["safetensors", "nested.pt", "archive"])
def test_a_file_of_another_architecture_is_refused_early_with_those_it_fits(
    kind: str, clip_folder: Path, openais_clip: Path, tmp_path: Path
) -> None:
    file = weights_of(clip_folder)
    if kind == "nested.pt":
        file = tmp_path / "epoch_3.pt"
        state = {f"module.{name}": value for name, value in load_file(weights_of(clip_folder)).items()}
        torch.save({"epoch": 3, "state_dict": state}, file)
    elif kind == "archive":
        file = openais_clip
    with pytest.raises(ValueError) as caught:
        check_labeler(config_of(file, "RN101"), "labeler", {})
    assert str(caught.value).startswith(f"labeler.path={file} is a CLIP of another architecture than RN101: ")
    assert "token_embedding.weight is 49408 x 16, not 49408 x 512" in str(caught.value)
    assert str(caught.value).endswith("Set the model to the architecture that it is of.")


def test_the_architectures_that_a_file_fits_are_named(tmp_path: Path) -> None:
    config = open_clip.get_model_config("ViT-B-16")
    shapes = {name: shape for name, shape in shapes_of(config).items() if not name.endswith("transformer")}
    blocks = {f"{tower}transformer.resblocks.11.ln_1.bias": (1,) for tower in ("", "visual.")}
    tensors = {name: torch.zeros(1, dtype=torch.uint8).expand(shape) for name, shape in (shapes | blocks).items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "b16.safetensors")
    with pytest.raises(
        ValueError, match=r"other architecture than ViT-B-32-quickgelu: visual\.conv1.*It fits ViT-B-16"
    ):
        check_labeler(config_of(tmp_path / "b16.safetensors", "ViT-B-32-quickgelu"), "judge", {})


def test_what_a_file_lacks_is_named_when_it_is_loaded(clip_folder: Path, tmp_path: Path) -> None:
    tensors = load_file(weights_of(clip_folder))
    del tensors["ln_final.bias"]
    save_file(tensors, tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match=r'could not load .*: Missing key\(s\) in state_dict: "ln_final\.bias"'):
        clip_of(tmp_path / "clip.safetensors")


def damaged(path: Path, how: str) -> Path:
    whole = path.read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1710540580\n"
    path.write_bytes(
        {"pointer": pointer, "empty": b"", "cut": whole[: len(whole) // 2], "page": b"<!DOCTYPE html>"}[how]
    )
    return path


SAID = {
    "pointer": "is a Git LFS pointer",
    "empty": "is an empty file",
    "cut": "is cut short",
    "page": "is no checkpoint",
}


@pytest.mark.parametrize(
    ("how", "file"),
    [
        (how, file)
        for how in ("pointer", "empty", "cut")
        for file in ("safetensors", "pt", "old.pt", "archive", "folder")
    ]
    + [("page", "pt")],
)
def test_a_file_that_is_not_whole_is_refused_early_in_one_sentence(
    how: str, file: str, clip_folder: Path, openais_clip: Path, tmp_path: Path
) -> None:
    path, named = tmp_path / f"clip.{file}", f"labeler.path={tmp_path / f'clip.{file}'}"
    if file == "folder":
        path = weights_of(Path(shutil.copytree(clip_folder, tmp_path / "clip.folder")))
        named = str(path)
    elif file == "archive":
        shutil.copy(openais_clip, path)
    elif file == "safetensors":
        shutil.copy(weights_of(clip_folder), path)
    else:
        torch.save(nn.Linear(8, 8).state_dict(), path, _use_new_zipfile_serialization=file == "pt")
    damaged(path, how)
    with pytest.raises(ValueError) as caught:
        check_labeler(config_of(path.parent if file == "folder" else path), "labeler", {})
    assert str(caught.value).startswith(f"{named} {SAID[how]}")
    assert "weights_only" not in str(caught.value)


def test_a_pickled_network_is_refused_early_with_what_to_do(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"whole\.pt holds more than tensors.*state_dict\(\)"):
        check_labeler(config_of(tmp_path / "whole.pt"), "labeler", {})


def test_a_model_that_brings_its_weights_is_refused_early_without_them(clip_folder: Path, tmp_path: Path) -> None:
    local = config_of("", f"local-dir:{tmp_path}")
    with pytest.raises(ValueError, match=r"open_clip_config\.json does not exist"):
        check_labeler(local, "judge", {})
    config = {"model_cfg": json.loads((clip_folder / f"{CLIP_NAME}.json").read_text()), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"^judge\.model=local-dir:.* has no weights"):
        check_labeler(local, "judge", {})
    damaged(Path(shutil.copy(weights_of(clip_folder), tmp_path / "open_clip_model.safetensors")), "cut")
    with pytest.raises(ValueError, match=r"open_clip_model\.safetensors is cut short"):
        check_labeler(local, "judge", {})


Ask = Callable[[dict[str, list[str]]], object]


@pytest.fixture(params=["early", "asked"])
def ask(request: pytest.FixtureRequest, clip_folder: Path) -> Ask:
    if request.param == "early":
        return lambda options: check_labeler(config_of(clip_folder), "labeler", {"gender": options})
    return lambda options: clip_of(clip_folder).label(noise(1, (32, 32)), {"gender": options})


def test_texts_that_do_not_fit_into_the_context_are_refused(ask: Ask) -> None:
    ask({"woman": [LONG[:40]], "man": ["a man"]})
    with pytest.raises(ValueError, match=rf"^labeler\.model={CLIP_NAME} reads texts of 16 tokens at most.*woman'"):
        ask({"woman": [f"{LONG}woman"], "man": [f"{LONG}man"]})


def test_texts_of_two_options_that_are_the_same_to_the_model_are_refused(ask: Ask) -> None:
    with pytest.raises(ValueError, match=r"options of gender apart: 'A person' and 'a person'"):
        ask({"woman": ["a woman", "A person"], "man": ["a person"]})


def test_prompts_that_do_not_fit_are_cut_and_told(clip_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip_of(clip_folder).embed_texts(["a woman", LONG])
    assert f"labeler.model={CLIP_NAME} reads 1 texts only in part: {LONG}" in caplog.text


def test_a_tokenizer_of_the_hub_without_a_network_is_told_early(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(model: str) -> None:
        raise OSError("We couldn't connect to the hub\nand more")

    monkeypatch.setattr(open_clip, "get_tokenizer", offline)
    with pytest.raises(ValueError, match=r"^labeler\.model=ViT-B-16-SigLIP2 reads text with .*hub\)\. .*local-dir:/"):
        check_labeler(config_of("webli", "ViT-B-16-SigLIP2"), "labeler", {"gender": {"woman": ["a woman"]}})
