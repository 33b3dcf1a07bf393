"""Loading: what is no pipeline, not whole, pickled or not for this device is refused in one clear message."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from icm_pipeline.backbones import loading
from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.backbones.parts import check_parts, folder_index
from icm_pipeline.machine import hub
from icm_pipeline.zoo.paths import ZOO
from tests.helpers.models import load

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1710540580\n"


@pytest.fixture
def copy(random_pipeline_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_pipeline_folder, tmp_path / "copy"))


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"no model_index\.json"):
        load(tmp_path)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="is not a folder"):
        load(tmp_path / "nowhere")


def test_an_index_that_is_not_json_is_refused(copy: Path) -> None:
    (copy / "model_index.json").write_text("{")
    with pytest.raises(BackboneError, match="is not JSON"):
        load(copy)


def test_a_pipeline_of_an_unknown_class_is_refused_with_the_known_ones(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "MyPipeline"}))
    with pytest.raises(BackboneError, match=r"holds a MyPipeline.*StableDiffusionPipeline, StableDiffusionXLPipeline"):
        load(copy)


def test_missing_parts_are_named(copy: Path) -> None:
    shutil.rmtree(copy / "unet")
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(
        BackboneError, match=r"not complete: .*tokenizer.*missing|not complete: .*unet.*missing"
    ) as caught:
        load(copy)
    assert "unet" in str(caught.value)
    assert "tokenizer" in str(caught.value)


def test_missing_weights_are_refused(copy: Path) -> None:
    next((copy / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(BackboneError, match="could not be loaded"):
        load(copy)


def test_half_a_file_is_refused(copy: Path) -> None:
    weights = next((copy / "vae").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BackboneError, match=rf"vae/{weights.name} is cut short"):
        load(copy)


@pytest.mark.parametrize("name", ["text_encoder/model.safetensors", "tokenizer/tokenizer.json", "unet/config.json"])
@pytest.mark.parametrize(("content", "said"), [(POINTER, "is a Git LFS pointer"), ("", "is an empty file")])
def test_a_file_that_is_not_there_yet_is_named_before_anything_is_loaded(
    copy: Path, name: str, content: str, said: str
) -> None:
    (copy / name).write_text(content)
    with pytest.raises(BackboneError, match=rf"^{copy / name} {said}"):
        check_parts(copy, folder_index(copy, str(copy)), None)


def test_pointers_of_a_variant_that_is_not_loaded_do_no_harm(copy: Path) -> None:
    for part in ("text_encoder", "unet", "vae"):
        whole = next((copy / part).glob("*.safetensors"))
        whole.with_suffix(".fp16.safetensors").write_text(POINTER)
    check_parts(copy, folder_index(copy, str(copy)), None)
    with pytest.raises(BackboneError, match=r"fp16\.safetensors is a Git LFS pointer"):
        check_parts(copy, folder_index(copy, str(copy)), "fp16")


def test_a_folder_saved_with_a_live_lora_is_refused_with_what_to_do(copy: Path) -> None:
    file = next((copy / "unet").glob("*.safetensors"))
    tensors = {name.replace("to_q.", "to_q.base_layer."): value for name, value in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})  # as save_pretrained names them beside an adapter
    with pytest.raises(BackboneError, match=r"was saved while a LoRA was loaded: .*base_layer.*unload_lora_weights\("):
        load(copy)


def test_weights_that_no_file_gives_are_named(copy: Path) -> None:
    file = next((copy / "unet").glob("*.safetensors"))
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(BackboneError, match=r"The unet in .* lack 1 tensor, the first is conv_in\.weight"):
        load(copy)


def test_weights_that_are_only_pickled_are_refused_and_not_read(copy: Path) -> None:
    weights = next((copy / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BackboneError, match="only as a pickle"):
        load(copy)


def test_a_folder_without_weights_of_any_variant_is_loaded_with_its_own(copy: Path) -> None:
    assert load(copy, variant="fp16").pipe is not None


def test_a_part_without_weights_of_the_variant_is_refused_with_the_files(copy: Path) -> None:
    weights = next((copy / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".fp16.safetensors"))
    with pytest.raises(BackboneError, match=r"no weights of model\.variant=fp16: .*safetensors"):
        load(copy, variant="fp16")


@pytest.mark.parametrize("name", ["model.bf16.safetensors", "model.bf16-00001-of-00002.safetensors"])
def test_weights_of_a_variant_are_found_whole_and_in_shards(copy: Path, name: str) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    for part in ("text_encoder", "unet", "vae"):
        next((copy / part).glob("*.safetensors")).rename(copy / part / name)
    check_parts(copy, index, "bf16")
    with pytest.raises(BackboneError, match=r"no weights of model\.variant=bf1.*model\.variant=null"):
        check_parts(copy, index, "bf1")


def test_a_library_that_loads_another_dtype_than_asked_is_told(
    random_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DiffusionPipeline.from_pretrained.__func__

    def in_float32(cls: type, folder: Path, **options: object) -> object:
        return real(cls, folder, **{**options, "dtype": torch.float32})

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", classmethod(in_float32))
    with pytest.raises(BackboneError, match=r"compute\.dtype=bfloat16 was asked for, but diffusers .* torch\.float32"):
        load(random_pipeline_folder, dtype="bfloat16")


def test_a_hub_id_without_a_network_names_the_local_alternative() -> None:
    with pytest.raises(BackboneError, match=r"could not be fetched from the hub .* model\.path=/that/folder"):
        load("nobody/nothing")


def test_a_hub_that_cannot_be_reached_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    monkeypatch.setattr(loading, "hub_answers", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match=r"the hub \(which cannot be reached") as caught:
        load("nobody/nothing")
    assert "Retrying" not in caplog.text
    assert not constants.HF_HUB_OFFLINE
    assert "\n" not in str(caught.value)


def test_an_unknown_embedded_model_is_refused_with_what_the_package_ships() -> None:
    with pytest.raises(ValueError, match="the package ships"):
        load("embedded:huge")


def test_offloading_without_a_gpu_is_refused(random_pipeline_folder: Path) -> None:
    with pytest.raises(BackboneError, match="needs a GPU"):
        load(random_pipeline_folder, offload="model")


def test_a_dtype_the_device_cannot_compute_in_is_refused(
    random_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*args: object, **kwargs: object) -> torch.Tensor:
        raise RuntimeError("\"conv2d\" not implemented for 'Half'")

    monkeypatch.setattr(torch.nn.functional, "conv2d", lacking)
    with pytest.raises(BackboneError, match=r"compute\.dtype=float16 does not work on cpu"):
        load(random_pipeline_folder, dtype="float16")


def test_a_torch_without_the_devices_library_is_told_as_the_device(
    random_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*args: object, **kwargs: object) -> torch.Tensor:
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "ones", lacking)
    with pytest.raises(BackboneError, match=r"compute\.device=cpu cannot be used here \(Torch not compiled"):
        load(random_pipeline_folder)


def test_slicing_and_tiling_are_switched_on(random_pipeline_folder: Path) -> None:
    vae = load(random_pipeline_folder, vae_slicing=True, vae_tiling=True).pipe.vae
    assert vae.use_slicing
    assert vae.use_tiling


def test_weights_come_in_the_dtype_asked_for(random_pipeline_folder: Path) -> None:
    backbone = load(random_pipeline_folder, dtype="bfloat16")
    assert {p.dtype for p in backbone.denoiser.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["tiny", "tiny_sdxl", "tiny_sana", "tiny_flux"])
def test_a_shipped_pipeline_that_its_user_loads_himself_is_of_one_precision(name: str) -> None:
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(ZOO / name)
    assert {part.dtype for part in pipe.components.values() if isinstance(part, torch.nn.Module)} == {torch.float32}


def test_an_argument_that_the_call_does_not_take_is_refused_with_close_ones(random_pipeline_folder: Path) -> None:
    with pytest.raises(BackboneError, match=r"model\.call\.negative_promt is no argument .*negative_prompt"):
        load(random_pipeline_folder, call={"negative_promt": "a"})
