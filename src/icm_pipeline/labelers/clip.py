"""open_clip as a labeler (zero-shot) and as the image encoder of CLIP-I.

An option may have several texts; its logit is the best of them (the paper's protocol). The temperature is the model's.
"""

import logging
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.base import Questions, image_batches
from icm_pipeline.zoo.paths import LOCAL_MODEL, bundled_weights, local_folder

log = logging.getLogger(__name__)

HUB_MODEL = "hf-hub:"
SIZES = ("input_resolution", "context_length", "vocab_size")  # that OpenAI stored beside the weights


def check(config: LabelerConfig, setting: str, questions: Questions) -> None:
    """Raise ValueError for a model that open_clip does not know and for a path to a file or folder that leads nowhere.

    CLIP can be asked any question.
    """
    model, path = config.model, config.path
    is_local = model.startswith(LOCAL_MODEL)
    folder = bundled_weights(model) if is_local else local_folder(path)
    if folder is not None and not folder.exists():
        given = f"{setting}.model={model}" if is_local else f"{setting}.path={path}"
        raise ValueError(f"{given} does not exist; give a CLIP checkpoint, a folder or an open_clip tag.")
    if is_local or model.startswith(HUB_MODEL):
        return
    known, where = _models_of_open_clip(), "open_clip"
    if folder is not None and folder.is_dir():
        known, where = _models_in(folder), f"{setting}.path={path}"
    if model.replace("/", "-") not in known:
        near = get_close_matches(model, known, n=3, cutoff=0.4) or sorted(known)[:8]
        raise ValueError(f"{setting}.model={model} is no model of {where}; it has for instance {', '.join(near)}.")


def _models_in(folder: Path) -> list[str]:
    return [file.stem for file in folder.glob("*.json")]


def _models_of_open_clip() -> list[str]:
    """Return the names of open_clip's architectures without importing it, which takes seconds."""
    if "open_clip" in sys.modules:
        return list(sys.modules["open_clip"].list_models())  # including those added at run time
    package = find_spec("open_clip")
    places = package.submodule_search_locations if package else None
    return [name for place in places or () for name in _models_in(Path(place) / "model_configs")]


class ClipJudge:
    """Any open_clip model.

    `path` is a checkpoint (safetensors, a state dict, OpenAI's TorchScript archive), a folder with `<model>.json` and
    its weights, or a tag of open_clip's; a model `hf-hub:<id>` or `local-dir:<folder>` brings its own weights.
    """

    def __init__(self, config: LabelerConfig, setting: str) -> None:
        import open_clip

        check(config, setting, {})
        model, path, device = config.model, config.path, config.device
        brings_weights = model.startswith((HUB_MODEL, LOCAL_MODEL))
        weights: Path | str | None = None if brings_weights else local_folder(path) or path
        archive = weights if isinstance(weights, Path) and is_script_archive(weights) else None
        if isinstance(weights, Path) and weights.is_dir():
            open_clip.add_model_config(weights / f"{model}.json")
            weights = weights / f"{model}.safetensors"
        try:
            self._model, _, self._transform = open_clip.create_model_and_transforms(
                model, pretrained=None if archive or weights is None else str(weights), device=device, weights_only=True
            )
            if archive is not None:
                self._model.load_state_dict(read_script_archive(archive))
                log.info("CLIP's weights are those of the TorchScript archive %s", archive)
        except (RuntimeError, OSError) as error:
            raise ValueError(
                f"open_clip could not load {model!r} with {path!r} ({str(error).splitlines()[0]}). Without a network, "
                "give the path of a local checkpoint file."
            ) from error
        self._model.eval()
        self._tokenizer = open_clip.get_tokenizer(model)
        self._batch_size, self._device = config.batch_size, device
        self._texts: dict[tuple[str, ...], Floats] = {}

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Any], unit_length: bool = True) -> Floats:
        """Return embeddings [n, d] of PIL images; FID compares those of their own length."""
        parts = []
        for batch in image_batches(images, self._batch_size, "CLIP"):
            pixels = torch.stack([self._transform(image.convert("RGB")) for image in batch])
            features = self._model.encode_image(pixels.to(self._device), normalize=unit_length)
            parts.append(features.double().cpu().numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def embed_texts(self, texts: list[str]) -> Floats:
        """Return unit-length embeddings [n, d] of texts."""
        features = self._model.encode_text(self._tokenizer(texts).to(self._device), normalize=True)
        result: Floats = features.double().cpu().numpy()
        return result

    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        return self.label_embedded(self.embed_images(images), questions)

    def label_embedded(self, embedded: Floats, questions: Questions) -> dict[str, Floats]:
        """Label images by their unit-length embeddings [n, d]."""
        return {attribute: self._zero_shot(embedded, options) for attribute, options in questions.items()}

    def _texts_of(self, texts: list[str]) -> Floats:
        """Return the embeddings of an option's texts, computed once."""
        if tuple(texts) not in self._texts:
            self._texts[tuple(texts)] = self.embed_texts(texts)
        return self._texts[tuple(texts)]

    def _zero_shot(self, embedded: Floats, options: dict[str, list[str]]) -> Floats:
        """Return probabilities [n, options] from image embeddings [n, d]: softmax over each option's best text."""
        scale = float(self._model.logit_scale.detach().exp())
        logits = np.stack([(scale * embedded @ self._texts_of(texts).T).max(1) for texts in options.values()], axis=1)
        probabilities: Floats = softmax(logits, axis=1)
        return probabilities


def is_script_archive(path: Path) -> bool:
    """Say whether a file is a TorchScript archive: a zip file with code inside."""
    if not path.is_file() or not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_script_archive(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive in float32; the model itself is not run."""
    state = torch.jit.load(path, map_location="cpu").state_dict()
    return {name: value.float() for name, value in state.items() if name not in SIZES}
