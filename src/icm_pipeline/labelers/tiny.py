"""The embedded attribute classifier as a labeler: the small world's stand-in for FairFace."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from icm_pipeline.backbones.paths import local_folder
from icm_pipeline.labelers.classifier_net import load_classifier

IMAGE_SIZE = 64


class TinyLabeler:
    """Labels the attributes the classifier was trained on; label texts are ignored."""

    def __init__(self, path: str, batch_size: int, device: str) -> None:
        folder = local_folder(path)
        if folder is None or not folder.is_dir():
            raise ValueError(f"labeler.path={path} is no folder with an attribute classifier.")
        self._model = load_classifier(folder).to(device)
        self._batch_size = batch_size
        self._device = device

    @torch.inference_mode()
    def label(self, images: list[Any], attribute: str, options: dict[str, list[str]]) -> NDArray[np.float64]:
        known = self._model.attributes
        if attribute not in known:
            raise ValueError(f"The embedded classifier cannot judge {attribute!r}; it knows: {', '.join(known)}.")
        unknown = [option for option in options if option not in known[attribute]]
        if unknown:
            raise ValueError(
                f"The embedded classifier has no {attribute} {unknown}; it knows: {', '.join(known[attribute])}."
            )
        columns = [known[attribute].index(option) for option in options]
        parts = []
        for start in range(0, len(images), self._batch_size):
            pixels = torch.stack([_to_tensor(image) for image in images[start : start + self._batch_size]])
            logits = self._model(pixels.to(self._device))[attribute]
            parts.append(logits[:, columns].double().softmax(1).cpu().numpy())
        return np.concatenate(parts)


def _to_tensor(image: Any) -> torch.Tensor:
    """Return a picture as [3, 64, 64] in -1..1."""
    picture = image.convert("RGB")
    if picture.size != (IMAGE_SIZE, IMAGE_SIZE):
        picture = picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(127.5).sub(1)
