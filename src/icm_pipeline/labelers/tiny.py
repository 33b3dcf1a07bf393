"""The embedded attribute classifier as a labeler: the small world's stand-in for FairFace."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from icm_pipeline.arrays import Floats
from icm_pipeline.backbones.paths import local_folder
from icm_pipeline.labelers.base import Questions, image_batches
from icm_pipeline.labelers.classifier_config import option_columns
from icm_pipeline.labelers.classifier_net import load_classifier

IMAGE_SIZE = 64


class TinyLabeler:
    """Labels the attributes the classifier was trained on; label texts are ignored."""

    def __init__(self, path: str, batch_size: int, device: str) -> None:
        folder = local_folder(path)
        if folder is None or not folder.is_dir():
            raise ValueError(f"{path} is no folder with an attribute classifier.")
        self._model = load_classifier(folder).to(device)
        self._batch_size = batch_size
        self._device = device

    @torch.inference_mode()
    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        columns = {
            attribute: option_columns(self._model.attributes, attribute, options)
            for attribute, options in questions.items()
        }
        parts: dict[str, list[Floats]] = {attribute: [] for attribute in questions}
        for batch in image_batches(images, self._batch_size, "classify"):
            pixels = torch.stack([_to_tensor(image) for image in batch])
            logits = self._model(pixels.to(self._device))
            for attribute, chosen in columns.items():
                parts[attribute].append(logits[attribute][:, chosen].double().softmax(1).cpu().numpy())
        return {attribute: np.concatenate(rows) for attribute, rows in parts.items()}


def _to_tensor(image: Any) -> torch.Tensor:
    """Return a picture as [3, 64, 64] in -1..1."""
    picture = image.convert("RGB")
    if picture.size != (IMAGE_SIZE, IMAGE_SIZE):
        picture = picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(127.5).sub(1)
