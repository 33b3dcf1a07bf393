"""DeepFace (Serengil and Ozpinar) as a judge of gender, race and age, through its own `analyze` on onnxruntime.

DeepFace finds and aligns faces itself, with a detector of its own. It answers age as a number of years, so an age has
probability 1 for the option that the years belong to.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.base import Questions, chosen_as, image_batches, require
from icm_pipeline.labelers.faces import chosen_faces, mean_over_faces, report_faces
from icm_pipeline.labelers.groups import Heads, answers, map_questions
from icm_pipeline.zoo.weight_files import check_weights

HEADS: Heads = {
    "gender": ("Woman", "Man"),
    "race": ("asian", "indian", "black", "white", "middle eastern", "latino hispanic"),
    "age": tuple(str(years) for years in range(101)),
}
WEIGHTS = {
    "gender": "gender_model_weights.onnx", "race": "race_model_single_batch.onnx", "age": "age_model_weights.onnx",
}  # fmt: skip
SOURCE = "https://github.com/serengil/deepface_models/releases/download/v1.0/"
DETECTORS = (
    "opencv", "retinaface", "mtcnn", "fastmtcnn", "ssd", "dlib", "mediapipe", "yunet", "centerface",
    "yolov8n", "yolov8m", "yolov8l", "yolov11n", "yolov11s", "yolov11m", "yolov11l",
    "yolov12n", "yolov12s", "yolov12m", "yolov12l",
)  # fmt: skip


class DeepFaceJudge:
    """`path` is the folder of its weights, `.deepface/weights`; `faces=none` takes every picture as one face."""

    def __init__(self, config: LabelerConfig, setting: str) -> None:
        check(config, setting, {})
        self._config, self._setting = config, setting

    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        config = self._config
        maps = map_questions(HEADS, config, self._setting, questions)
        heads = list(dict.fromkeys(mapped.head for mapped in maps.values()))
        weights = _weights_folder(config, self._setting, heads)
        analyze = _load(weights.parents[1], config.device)
        rows: dict[str, list[Floats]] = {head: [np.empty((0, len(HEADS[head])))] for head in heads}
        owners, counts = list[int](), list[int]()
        for batch in image_batches(images, 1, "DeepFace"):
            faces = self._analyzed(analyze, batch[0], heads)
            index, kept = len(counts), chosen_faces(faces, config.faces, _area)
            counts.append(len(faces))
            owners += [index] * len(kept)
            for head in heads:
                rows[head] += [_probabilities(face, head)[None] for face in kept]
        if config.faces != "none":
            report_faces(counts, config.faces)
        by_head = {head: mean_over_faces(np.concatenate(parts), owners, len(images)) for head, parts in rows.items()}
        return answers("deepface", maps, by_head)

    def _analyzed(self, analyze: Any, image: Any, heads: list[str]) -> list[dict[str, Any]]:
        """Return what DeepFace says of each face, none if it finds no face."""
        from deepface.modules.exceptions import FaceNotDetected

        detector = "skip" if self._config.faces == "none" else self._config.detector
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])  # DeepFace reads BGR
        try:
            return list(analyze(pixels, actions=heads, detector_backend=detector, enforce_detection=True, silent=True))
        except FaceNotDetected:
            return []


def check(config: LabelerConfig, setting: str, questions: Questions) -> None:
    """Raise ValueError for an unknown detector, a GPU, options or weights that DeepFace lacks.

    Raises ModuleNotFoundError for a package that is not installed.
    """
    if config.detector not in DETECTORS:
        raise ValueError(f"{setting}.detector={config.detector} is none of DeepFace's: {', '.join(DETECTORS)}.")
    maps = map_questions(HEADS, config, setting, questions)
    for package in ("deepface", "onnxruntime"):
        require(package, "deepface", chosen_as("deepface", setting))
    name, _, index = config.device.partition(":")
    if index not in ("", "0"):  # its onnx backend knows no other
        raise ValueError(
            f"{setting}.device={config.device}: DeepFace runs on the first GPU that its process sees. Set "
            f"CUDA_VISIBLE_DEVICES={index} and {setting}.device={name}, or use {setting}.device=cpu."
        )
    _weights_folder(config, setting, [mapped.head for mapped in maps.values()])


def _weights_folder(config: LabelerConfig, setting: str, heads: Sequence[str]) -> Path:
    """Return the folder of the weights; raises ValueError for one that DeepFace would not search and for missing files.

    DeepFace would download them, but then a label's key would not say which weights made it.
    """
    folder = Path(config.path).expanduser().absolute()
    if folder.parts[-2:] != (".deepface", "weights"):
        raise ValueError(
            f"{setting}.path={config.path} must end in .deepface/weights, where DeepFace looks for its weights."
        )
    missing = [WEIGHTS[head] for head in heads if not (folder / WEIGHTS[head]).is_file()]
    if missing:
        files = " and ".join(SOURCE + name for name in missing)
        raise ValueError(
            f"DeepFace's weights {', '.join(missing)} are not in {folder}. Download {files} into it, or set "
            f"{setting}.path to the .deepface/weights folder that has them."
        )
    for head in heads:
        check_weights(folder / WEIGHTS[head])
    return folder


def _load(home: Path, device: str) -> Any:
    """Import DeepFace with its onnx backend and this home, and return `analyze`; raises ValueError."""
    previous = os.environ.get("DEEPFACE_HOME")
    os.environ["DEEPFACE_HOME"] = str(home)
    os.environ["DEEPFACE_BACKEND_ENGINE"] = "onnx"
    os.environ["DEEPFACE_ONNX_PROVIDERS"] = "cpu" if device == "cpu" else "cuda,cpu"
    from deepface import DeepFace
    from deepface.commons.backend_utils import get_backend_engine
    from deepface.modules import modeling

    if get_backend_engine() != "onnx":
        raise ValueError(
            f"DeepFace was already loaded with its {get_backend_engine()} backend. Set DEEPFACE_BACKEND_ENGINE=onnx "
            "before Python starts."
        )
    if previous != os.environ["DEEPFACE_HOME"] and hasattr(modeling, "cached_models"):
        modeling.cached_models["facial_attribute"].clear()  # they are of another folder
    return DeepFace.analyze


def _area(face: dict[str, Any]) -> float:
    return float(face["region"]["w"] * face["region"]["h"])


def _probabilities(face: dict[str, Any], head: str) -> Floats:
    """Return one face's class probabilities; percentages and years become shares."""
    classes = HEADS[head]
    if head == "age":
        return np.eye(len(classes))[min(face["age"], len(classes) - 1)]
    return np.array([float(face[head][name]) for name in classes]) / 100
