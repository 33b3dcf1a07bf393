"""FairFace, the judge of the published evaluation, from its authors' checkpoint.

A ResNet-34 with 18 outputs for race, gender and age; softmax within each head. The four-race checkpoint is read for
race only, as its authors do.

References:
    FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age, 2021. https://arxiv.org/abs/1908.04913
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.base import Questions, image_batches
from icm_pipeline.labelers.groups import Heads, answers, map_questions
from icm_pipeline.text import count_text
from icm_pipeline.zoo.paths import local_folder
from icm_pipeline.zoo.weight_files import read_shapes, read_tensors

NUM_OUTPUTS = 18
INPUT_SIZE = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODELS: dict[str, Heads] = {
    "fairface-7": {
        "race": ("White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern"),
        "gender": ("Male", "Female"),
        "age": ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+"),
    },
    "fairface-4": {"race": ("White", "Black", "Asian", "Indian")},
}
FILES = {"fairface-7": "res34_fair_align_multi_7_20190809.pt", "fairface-4": "res34_fair_align_multi_4_20190809.pt"}


class FairFaceJudge:
    """`path` is the authors' checkpoint (.pt, read with weights_only) or the same tensors as safetensors."""

    def __init__(self, config: LabelerConfig, setting: str) -> None:
        from torchvision.models import resnet34
        from torchvision.transforms import Compose, Normalize, Resize, ToTensor

        self._heads = _heads(config, setting)
        check(config, setting, {})
        network = resnet34(weights=None, num_classes=NUM_OUTPUTS)
        network.load_state_dict(read_tensors(_checkpoint(config, setting)))
        self._network = network.to(config.device).eval()
        self._prepare = Compose([Resize((INPUT_SIZE, INPUT_SIZE)), ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)])
        self._config, self._setting = config, setting

    @torch.inference_mode()
    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        maps = map_questions(self._heads, self._config, self._setting, questions)
        parts = []
        for batch in image_batches(images, self._config.batch_size, "FairFace"):
            pixels = torch.stack([self._prepare(image.convert("RGB")) for image in batch])
            parts.append(self._network(pixels.to(self._config.device)).double().cpu())
        logits, heads = torch.cat(parts), {mapped.head for mapped in maps.values()}
        return answers("fairface", maps, {head: head_probabilities(logits, self._heads, head) for head in heads})


def check(config: LabelerConfig, setting: str, questions: Questions) -> None:
    """Raise ValueError for an unknown model, what it cannot tell, and a checkpoint that does not hold its network."""
    from torchvision.models import resnet34

    map_questions(_heads(config, setting), config, setting, questions)
    file = _checkpoint(config, setting)
    with torch.device("meta"):
        network = resnet34(weights=None, num_classes=NUM_OUTPUTS)
    expected, found = {name: tuple(value.shape) for name, value in network.state_dict().items()}, read_shapes(file)
    names = [name for name in expected | found if not name.endswith("num_batches_tracked")]  # older files lack them
    wrong = [name for name in names if found.get(name) != expected.get(name)]
    if wrong:
        raise ValueError(
            f"{file} does not hold FairFace's ResNet-34 with {NUM_OUTPUTS} outputs ({wrong[0]} is "
            f"{found.get(wrong[0], 'not there')}; {count_text(len(wrong), 'tensor')} of {len(names)} differ)."
        )


def _heads(config: LabelerConfig, setting: str) -> Heads:
    if config.model not in MODELS:
        raise ValueError(f"{setting}.model={config.model} is no FairFace model; choose from {', '.join(MODELS)}.")
    return MODELS[config.model]


def _checkpoint(config: LabelerConfig, setting: str) -> Path:
    file = local_folder(config.path) or Path(config.path)
    if file.is_file():
        return file
    raise ValueError(
        f"There is no FairFace checkpoint at {file.absolute()}. Download {FILES[config.model]} (the links are in the "
        f"README of github.com/dchen236/FairFace) and put it there, or set {setting}.path to where it lies."
    )


def head_probabilities(logits: Tensor, heads: Heads, head: str) -> Floats:
    """Return the softmax within one head [n, classes] of logits [n, 18]."""
    names = list(heads)
    start = sum(len(heads[name]) for name in names[: names.index(head)])
    probabilities: Floats = logits[:, start : start + len(heads[head])].softmax(1).numpy()
    return probabilities
