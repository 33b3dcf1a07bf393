"""The embedded attribute classifier as a labeler: the small world's stand-in for FairFace."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.base import Questions, image_batches
from icm_pipeline.zoo.paths import local_folder
from icm_pipeline.zoo.weight_files import problem_of

IMAGE_SIZE = 64
WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"


class TinyLabeler:
    """Labels the attributes the classifier was trained on; label texts are ignored."""

    def __init__(self, config: LabelerConfig, setting: str) -> None:
        self._model = load_classifier(_folder(config, setting)).to(config.device)
        self._batch_size, self._device = config.batch_size, config.device

    @torch.inference_mode()
    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        known = self._model.attributes
        columns = {attribute: option_columns(known, attribute, options) for attribute, options in questions.items()}
        parts: dict[str, list[Floats]] = {attribute: [] for attribute in questions}
        for batch in image_batches(images, self._batch_size, "classify"):
            pixels = torch.stack([_to_tensor(image) for image in batch])
            logits = self._model(pixels.to(self._device))
            for attribute, chosen in columns.items():
                parts[attribute].append(logits[attribute][:, chosen].double().softmax(1).cpu().numpy())
        return {attribute: np.concatenate(rows) for attribute, rows in parts.items()}


def check(config: LabelerConfig, setting: str, questions: Questions) -> None:
    """Raise ValueError for a classifier that is not there, and for attributes and options it does not know."""
    known = read_attributes(_folder(config, setting))
    for attribute, options in questions.items():
        option_columns(known, attribute, options)


def _folder(config: LabelerConfig, setting: str) -> Path:
    folder = local_folder(config.path)
    if folder is None or not folder.is_dir():
        found = "is no folder" if folder is not None and folder.exists() else "does not exist"
        raise ValueError(f"{setting}.path={config.path} {found}; give the folder of an attribute classifier.")
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if problem := problem_of(folder / name):
            raise ValueError(f"{setting}.path={config.path} is no attribute classifier: its {name} {problem}")
    return folder


def _to_tensor(image: Any) -> torch.Tensor:
    """Return a picture as [3, 64, 64] in -1..1."""
    picture = image.convert("RGB")
    if picture.size != (IMAGE_SIZE, IMAGE_SIZE):
        picture = picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(127.5).sub(1)


class AttributeClassifier(nn.Module):
    """Pictures [b, 3, 64, 64] in -1..1 to logits per attribute {name: [b, num_options]}."""

    def __init__(self, attributes: dict[str, tuple[str, ...]], widths: tuple[int, ...] = (24, 48, 96, 128)) -> None:
        super().__init__()
        self.attributes, self.widths = attributes, widths
        layers: list[nn.Module] = []
        for before, after in zip((3, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * 16, 128)
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(options)) for name, options in attributes.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = nn.functional.silu(self.head(self.trunk(images).flatten(1)))
        return {name: head(features) for name, head in self.heads.items()}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        half = {key: value.half().contiguous() for key, value in self.state_dict().items()}
        save_file(half, folder / WEIGHTS_NAME)
        config = {"attributes": self.attributes, "widths": self.widths}
        (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")


def load_classifier(folder: Path) -> AttributeClassifier:
    """Load the network from its folder in float32, ready to evaluate."""
    widths = json.loads((folder / CONFIG_NAME).read_text("utf-8"))["widths"]
    model = AttributeClassifier(read_attributes(folder), tuple(widths))
    model.load_state_dict({key: value.float() for key, value in load_file(folder / WEIGHTS_NAME).items()})
    return model.eval()


def read_attributes(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the classifier's attributes with their options, in the order of its logits."""
    file = folder / CONFIG_NAME
    try:
        return {name: tuple(options) for name, options in json.loads(file.read_text("utf-8"))["attributes"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} does not say what an attribute classifier tells ({error}).") from error


def option_columns(known: dict[str, tuple[str, ...]], attribute: str, options: dict[str, list[str]]) -> list[int]:
    """Return where the options stand among the classifier's; raises ValueError listing what it knows."""
    if attribute not in known:
        raise ValueError(f"The attribute classifier cannot judge {attribute!r}; it knows: {', '.join(known)}.")
    unknown = [option for option in options if option not in known[attribute]]
    if unknown:
        raise ValueError(
            f"The attribute classifier has no {attribute} {unknown}; it knows: {', '.join(known[attribute])}."
        )
    return [known[attribute].index(option) for option in options]
