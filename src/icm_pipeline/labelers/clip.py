"""open_clip as a labeler (zero-shot) and as the image encoder of CLIP-I.

An option may have several texts; its logit is the best of them (the paper's protocol). The temperature is the model's.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.base import Questions, image_batches
from icm_pipeline.labelers.clip_files import (
    PREPARED,
    STORED_SIZES,
    architecture,
    check_bundle,
    check_fits,
    known_architectures,
    training_of,
)
from icm_pipeline.labelers.clip_texts import check_texts, cut_texts, need_tokens, same_texts
from icm_pipeline.machine.hub import asked_once
from icm_pipeline.text import abbreviate
from icm_pipeline.zoo.paths import LOCAL_MODEL, bundled_weights, local_folder
from icm_pipeline.zoo.weight_files import is_script_archive, read_tensors

log = logging.getLogger(__name__)

HUB_MODEL = "hf-hub:"
SAME = 1 - 1e-6  # cosine of two texts from which they are one to the model


def check(config: LabelerConfig, setting: str, questions: Questions) -> None:
    """Raise ValueError for what is wrong with a CLIP before its weights are read, and with what it is asked.

    That is a model that open_clip does not know, files that are not there, not whole or of another architecture, a file
    that does not say how it was trained, and texts that do not fit or are alike.
    """
    model, weights = config.model, _weights(config, setting)
    described = architecture(model, _folder(weights))
    if model.startswith(LOCAL_MODEL):
        assert weights is not None
        check_bundle(weights, f"{setting}.model={model}")
    elif not model.startswith(HUB_MODEL):
        known, where = [*known_architectures()], "open_clip"
        if weights is not None and weights.is_dir():
            known, where = [file.stem for file in weights.glob("*.json")], f"{setting}.path={config.path}"
        if model.replace("/", "-") not in known:
            near = get_close_matches(model, known, n=3, cutoff=0.4) or sorted(known)[:8]
            raise ValueError(f"{setting}.model={model} is no model of {where}; it has for instance {', '.join(near)}.")
        _training(config, setting, weights)
        if weights is not None:
            file = weights / f"{model}.safetensors" if weights.is_dir() else weights
            check_fits(file, str(file) if weights.is_dir() else f"{setting}.path={config.path}", model, described)
    if described and need_tokens(described, questions):
        check_texts(_tokenizer(config, setting, weights), f"{setting}.model={model}", questions)


def _weights(config: LabelerConfig, setting: str) -> Path | None:
    """Return the file or folder of the weights, None for a tag or a hub id; raises ValueError if it does not exist."""
    model, path = config.model, config.path
    is_local = model.startswith(LOCAL_MODEL)
    weights = bundled_weights(model) if is_local else None if model.startswith(HUB_MODEL) else local_folder(path)
    if weights is not None and not weights.exists():
        given = f"{setting}.model={model}" if is_local else f"{setting}.path={path}"
        raise ValueError(f"{given} does not exist; give a CLIP checkpoint, a folder or an open_clip tag.")
    return weights


def _folder(weights: Path | None) -> Path | None:
    return weights if weights is not None and weights.is_dir() else None


def _training(config: LabelerConfig, setting: str, weights: Path | None) -> dict[str, Any]:
    """Return what has to be said of how a model was trained; nothing of one that brings a description of its own."""
    if config.preprocess is None and (_folder(weights) or config.model.startswith((HUB_MODEL, LOCAL_MODEL))):
        return {}
    return training_of(config.model.replace("/", "-"), weights or config.path, config.preprocess, setting)


def _tokenizer(config: LabelerConfig, setting: str, weights: Path | None) -> Any:
    import open_clip

    model = config.model
    if not model.startswith(LOCAL_MODEL) and (folder := _folder(weights)):
        open_clip.add_model_config(folder / f"{model}.json")
    described = architecture(model, _folder(weights))
    of_hub = model.startswith(HUB_MODEL) or "hf_tokenizer_name" in described.get("text_cfg", {})
    try:
        with asked_once() if of_hub else nullcontext():
            return open_clip.get_tokenizer(model)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"{setting}.model={model} reads text with a tokenizer of the hub, which could not be loaded "
            f"({_first_line(error)}). Without a network, give the model's whole folder: "
            f"{setting}.model={LOCAL_MODEL}/that/folder."
        ) from error


class ClipJudge:
    """Any open_clip model.

    `path` is a checkpoint (safetensors, a state dict, OpenAI's TorchScript archive), a folder with `<model>.json` and
    its weights, or a tag of open_clip's; a model `hf-hub:<id>` or `local-dir:<folder>` brings its own weights.
    """

    def __init__(self, config: LabelerConfig, setting: str) -> None:
        check(config, setting, {})
        weights = _weights(config, setting)
        self._tokenizer = _tokenizer(config, setting, weights)
        self._model, self._transform = _load(config, setting, weights)
        self._named, self._batch_size, self._device = (
            f"{setting}.model={config.model}",
            config.batch_size,
            config.device,
        )
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

    def embed_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit-length embeddings [n, d] of square pixels [n, 3, h, w] in -1..1, through which gradients flow."""
        visual = self._model.visual
        size = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
        if pixels.shape[-1] != size:
            pixels = torch.nn.functional.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
        mean, std = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in (visual.image_mean, visual.image_std))
        features: torch.Tensor = self._model.encode_image(((pixels + 1) / 2 - mean) / std, normalize=True)
        return features

    def logits(self, embedded: torch.Tensor, options: dict[str, list[str]]) -> torch.Tensor:
        """Return the logits [n, options] of unit-length embeddings [n, d], through which gradients flow."""
        scale = float(self._model.logit_scale.detach().exp())
        texts = [torch.from_numpy(self._texts_of(each)).to(embedded) for each in options.values()]
        return torch.stack([(scale * embedded @ each.mT).amax(1) for each in texts], dim=1)

    @property
    def network(self) -> torch.nn.Module:
        network: torch.nn.Module = self._model
        return network

    @torch.inference_mode()
    def embed_texts(self, texts: list[str]) -> Floats:
        """Return unit-length embeddings [n, d] of texts; what does not fit into the context is cut, and told."""
        if cut := cut_texts(self._tokenizer, texts):
            log.warning("%s reads %d texts only in part: %s", self._named, len(cut), abbreviate(cut))
        features = self._model.encode_text(self._tokenizer(texts).to(self._device), normalize=True)
        result: Floats = features.double().cpu().numpy()
        return result

    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        return self.label_embedded(self.embed_images(images), questions)

    def label_embedded(self, embedded: Floats, questions: Questions) -> dict[str, Floats]:
        """Label images by their unit-length embeddings [n, d]; raises ValueError for texts that do not fit."""
        check_texts(self._tokenizer, self._named, questions)
        for attribute, options in questions.items():
            self._check_apart(attribute, options)
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

    def _check_apart(self, attribute: str, options: dict[str, list[str]]) -> None:
        for these, those in combinations(options.values(), 2):
            alike = np.argwhere(self._texts_of(these) @ self._texts_of(those).T > SAME)
            for first, second in alike[:1]:
                raise same_texts(self._named, attribute, these[first], those[second])


def _load(config: LabelerConfig, setting: str, weights: Path | None) -> tuple[Any, Any]:
    """Return the network, ready to evaluate, and how it has its pictures prepared."""
    import open_clip

    model, training = config.model, _training(config, setting, weights)
    archive = weights if weights is not None and is_script_archive(weights) else None
    source = None if archive or model.startswith((HUB_MODEL, LOCAL_MODEL)) else str(weights or config.path)
    if not model.startswith(LOCAL_MODEL) and (folder := _folder(weights)):
        source = str(folder / f"{model}.safetensors")
    options = {f"image_{name}": training[name] for name in PREPARED if name in training}
    try:
        with asked_once() if weights is None else nullcontext(), _unwarned("No pretrained weights loaded"):
            network, _, transform = open_clip.create_model_and_transforms(
                model, source, device=config.device, force_quick_gelu=training.get("quick_gelu", False),
                weights_only=True, require_pretrained=archive is None, **options,
            )  # fmt: skip
        if archive is not None:
            tensors = read_tensors(archive, device="cpu", script=True)
            network.load_state_dict(
                {name: value.float() for name, value in tensors.items() if name not in STORED_SIZES}
            )
            log.info("CLIP's weights are those of the TorchScript archive %s", archive)
    except (RuntimeError, OSError, UnpicklingError, KeyError) as error:
        raise ValueError(
            f"open_clip could not load {model!r} with {config.path!r} ({_first_line(error)}). Without a network, "
            "give the path of a local checkpoint file."
        ) from error
    return network.eval(), transform


def _first_line(error: BaseException) -> str:
    """Return the first sentence of an error, of missing or unfitting weights with the first of them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    told = " ".join(lines[: 1 + lines[0].endswith(":")])
    return told if len(told) < 300 else f"{told[:300]}..."


@contextmanager
def _unwarned(beginning: str) -> Iterator[None]:
    """Keep out of the log a warning of open_clip's that says what is done right afterwards."""

    def others(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginning)

    root = logging.getLogger()
    root.addFilter(others)
    try:
        yield
    finally:
        root.removeFilter(others)
