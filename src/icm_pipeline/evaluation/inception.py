"""The Inception network of the published FID, from a checkpoint that the user has (torch-fidelity's architecture)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from icm_pipeline.arrays import Floats
from icm_pipeline.labelers.base import image_batches
from icm_pipeline.zoo.weight_files import read_tensors

FEATURES = "2048"  # the pooled layer that FID is defined on


class InceptionEncoder:
    """FID's Inception: `path` is `pt_inception-2015-12-05-6726825d.pth`, as pytorch-fid has it, or safetensors.

    Raises ValueError for a file that is not this network.
    """

    def __init__(self, path: Path, batch_size: int, device: str) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        weights = read_tensors(path, f"evaluate.inception={path}")
        with tempfile.TemporaryDirectory() as folder:  # the library reads pickles: it gets one that is made here
            checked = Path(folder) / "inception.pth"
            torch.save(weights, checked)
            options = {"feature_extractor_weights_path": str(checked)}
            try:
                model = FeatureExtractorInceptionV3("inception-v3-compat", [FEATURES], **options)
            except (RuntimeError, TypeError) as error:
                what = "the Inception network of FID (pt_inception-2015-12-05-6726825d.pth)"
                raise ValueError(f"{path} is not {what}: {str(error).splitlines()[0]}") from error
        self._model, self._batch_size, self._device = model.to(device), batch_size, device

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Any]) -> Floats:
        """Return features [n, 2048] of PIL images of any sizes."""
        rows: list[Floats] = []
        for batch in image_batches(images, self._batch_size, "Inception"):
            pixels = [torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) for image in batch]
            same = len({picture.shape for picture in pixels}) == 1
            for stack in [torch.stack(pixels)] if same else [picture[None] for picture in pixels]:
                rows.append(self._model(stack.to(self._device))[0].double().cpu().numpy())
        return np.concatenate(rows)
