"""FairFace on a checkpoint of the real architecture with random weights, against a direct computation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms
from torchvision.models import resnet34

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import LabelerConfig, Settings
from icm_pipeline.labelers.base import Labeler
from icm_pipeline.labelers.registry import check_labeler, load_labeler
from tests.helpers.judges import labeler_config
from tests.helpers.pictures import noise

RACES = ["white", "black", "latino_hispanic", "east asian", "southeast asian", "indian", "middle eastern"]
BINS = ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+"]
Compose = Callable[..., Settings]


def fairface(path: Path, model: str = "fairface-7") -> LabelerConfig:
    return labeler_config("fairface", path, model=model)


def asked(*options: str) -> dict[str, list[str]]:
    return {option: [] for option in options}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return resnet34(weights=None, num_classes=18).eval()


@pytest.fixture(scope="module")
def checkpoint(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fairface") / "fairface.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def judge(checkpoint: Path, compose_settings: Compose) -> Labeler:
    words = ["labeler=fairface", f"labeler.path={checkpoint}", "labeler.device=cpu", "labeler.faces=none"]
    return load_labeler(compose_settings(*words).labeler)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [*noise(2, (300, 300)), noise(1, (90, 140))[0]]


@pytest.fixture(scope="module")
def logits(network: nn.Module, images: list[Image.Image]) -> Floats:
    """Return what the authors' own preprocessing and network give, one picture at a time."""
    prepare = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    with torch.inference_mode():
        rows: Floats = torch.cat([network(prepare(image)[None]) for image in images]).double().numpy()
    return rows


def softmax(logits: Floats) -> Floats:
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_every_head_has_its_own_softmax_in_the_published_order(
    judge: Labeler, images: list[Image.Image], logits: Floats
) -> None:
    found = judge.label(images, {"race": asked(*RACES), "gender": asked("male", "female"), "age": asked(*BINS)})
    np.testing.assert_allclose(found["race"], softmax(logits[:, :7]), atol=1e-6)
    np.testing.assert_allclose(found["gender"], softmax(logits[:, 7:9]), atol=1e-6)
    np.testing.assert_allclose(found["age"], softmax(logits[:, 9:]), atol=1e-6)


def test_the_shipped_groups_merge_as_the_published_evaluation_does(
    judge: Labeler, images: list[Image.Image], logits: Floats
) -> None:
    found = judge.label(
        images,
        {
            "race": asked("white", "black", "asian", "indian"),
            "age": asked("young", "adult", "old"),
            "gender": asked("woman", "man"),
        },
    )
    race, age, gender = softmax(logits[:, :7]), softmax(logits[:, 9:]), softmax(logits[:, 7:9])
    merged = np.stack([race[:, 0], race[:, 1], race[:, 3] + race[:, 4], race[:, 5]], axis=1)
    np.testing.assert_allclose(found["race"], merged, atol=1e-6)
    assert (found["race"].sum(1) < 0.999).all()
    bins = np.stack([age[:, :3].sum(1), age[:, 3:7].sum(1), age[:, 7:].sum(1)], axis=1)
    np.testing.assert_allclose(found["age"], bins, atol=1e-6)
    np.testing.assert_allclose(found["gender"], gender[:, ::-1], atol=1e-6)


def test_the_model_of_four_races_reads_the_first_four_outputs_and_tells_nothing_else(
    checkpoint: Path, images: list[Image.Image], logits: Floats
) -> None:
    judge = load_labeler(fairface(checkpoint, "fairface-4"))
    found = judge.label(images, {"race": asked("white", "black", "asian", "indian")})["race"]
    np.testing.assert_allclose(found, softmax(logits[:, :4]), atol=1e-6)
    with pytest.raises(ValueError, match="gender"):
        judge.label(images, {"gender": asked("male", "female")})


def test_safetensors_and_a_checkpoint_saved_in_parallel_give_the_same(
    network: nn.Module, checkpoint: Path, tmp_path: Path
) -> None:
    save_file({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "f.safetensors")
    questions = {"gender": asked("male", "female")}
    first, second = (
        load_labeler(fairface(path)).label(noise(2), questions)["gender"]
        for path in (checkpoint, tmp_path / "f.safetensors")
    )
    assert np.array_equal(first, second)


def test_missing_weights_are_named_with_file_place_and_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"res34_fair_align_multi_7_20190809\.pt .*labeler\.path") as told:
        load_labeler(fairface(tmp_path / "none.pt"))
    assert str(tmp_path / "none.pt") in str(told.value)


def test_a_file_that_is_no_fairface_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(resnet34(weights=None, num_classes=7).state_dict(), tmp_path / "seven.pt")
    (tmp_path / "text.pt").write_text("not found")
    for name in ("seven.pt", "text.pt"):
        said = (
            "does not hold FairFace's ResNet-34 with 18 outputs"
            if name == "seven.pt"
            else "is no checkpoint of PyTorch"
        )
        with pytest.raises(ValueError, match=rf"{name} {said}"):
            load_labeler(fairface(tmp_path / name))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(resnet34, tmp_path / "code.pt")
    with pytest.raises(ValueError, match="holds more than tensors, which could run code"):
        load_labeler(fairface(tmp_path / "code.pt"))


def test_what_it_cannot_tell_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^labeler@judge=fairface cannot judge 'glasses'"):
        check_labeler(fairface(tmp_path), "judge", {"glasses": asked("none", "glasses")})
    with pytest.raises(ValueError, match=r"no FairFace checkpoint.*judge\.path"):
        check_labeler(fairface(tmp_path / "x"), "judge", {"gender": asked("male", "female")})


@pytest.mark.parametrize(
    ("content", "said"), [(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"), (b"", "empty")]
)
def test_a_checkpoint_that_is_no_file_of_weights_is_refused_early(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "fairface.pt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"fairface\.pt is an? {said}"):
        check_labeler(fairface(tmp_path / "fairface.pt"), "judge", {})


def test_a_checkpoint_of_another_network_is_refused_early(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 512)}, tmp_path / "other.pt")
    with pytest.raises(
        ValueError, match=r"other\.pt does not hold FairFace's ResNet-34 with 18 outputs \(conv1\.weight"
    ):
        check_labeler(fairface(tmp_path / "other.pt"), "judge", {})
