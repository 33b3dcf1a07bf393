"""Faces: cropped as the published evaluation does, chosen, averaged; a picture without one keeps its row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.arrays import Floats
from icm_pipeline.labelers.base import Questions, package_folder, require
from icm_pipeline.labelers.faces import LANDMARKS_FILE, DlibFinder, Face, OfFaces, chosen_faces
from tests.helpers.judges import labeler_config
from tests.helpers.pictures import needs, noise, portrait

# Where dlib's mean face has the corners of both eyes and the base of the nose, in shares of its width.
MEAN_FACE = np.array([[0.860, 0.213], [0.646, 0.229], [0.121, 0.214], [0.334, 0.229], [0.490, 0.628]])
DLIB = needs("dlib", "face_recognition_models")
QUESTION = {"brightness": {"dark": ["dark"], "bright": ["bright"]}}


def face_at(left: float, top: float, width: float) -> Face:
    """Return an upright mean face in a square box."""
    return Face((left, top, left + width, top + width), np.array([left, top]) + MEAN_FACE * width)


class PlacedFaces:
    """Finds faces where the test says they are: the n-th picture it is shown has the n-th list of faces."""

    def __init__(self, faces: list[list[Face]]) -> None:
        self._faces = iter(faces)
        self.cropped: list[tuple[int, float]] = []

    def find(self, image: Any) -> list[Face]:
        return next(self._faces)

    def crop(self, image: Any, face: Face, size: int, padding: float) -> Image.Image:
        self.cropped.append((size, padding))
        cut: Image.Image = image.resize((size, size), box=face.box)
        return cut


def dlib_finder() -> DlibFinder:
    return DlibFinder(labeler_config("clip"), "labeler")


class Brightness:
    """Judges a picture by how bright it is."""

    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        bright = np.array([np.asarray(images[index]).mean() / 255 for index in range(len(images))])
        return {"brightness": np.stack([1 - bright, bright], axis=1)}


def two_faced() -> Image.Image:
    """Return a picture that is white on the left and black on the right."""
    pixels = np.zeros((400, 800, 3), np.uint8)
    pixels[:, :400] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("choice", "bright"), [("largest", 1.0), ("all", 0.5), ("single", np.nan)], ids=["largest", "all", "single"]
)
def test_several_faces_are_chosen_from_averaged_or_left_out(choice: str, bright: float) -> None:
    faces = [face_at(100, 100, 200), face_at(550, 150, 100)]
    judged = OfFaces(Brightness(), PlacedFaces([faces]), choice, 4).label([two_faced()], QUESTION)["brightness"]
    np.testing.assert_allclose(judged, [[1 - bright, bright]], atol=1e-6)


def test_a_picture_without_a_face_keeps_its_row_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    found = [[], [face_at(100, 100, 200)], []]
    with caplog.at_level("INFO"):
        judged = OfFaces(Brightness(), PlacedFaces(found), "largest", 2).label([two_faced()] * 3, QUESTION)
    assert np.isnan(judged["brightness"]).all(1).tolist() == [True, False, True]
    assert "2 of 3 images show none" in caplog.text


def test_pictures_without_any_face_at_all_give_rows_of_nan() -> None:
    judged = OfFaces(Brightness(), PlacedFaces([[], []]), "all", 2).label(noise(2), QUESTION)["brightness"]
    assert judged.shape == (2, 2)
    assert np.isnan(judged).all()


def test_the_largest_face_is_the_one_with_the_largest_box() -> None:
    small, large = face_at(0, 0, 10), face_at(5, 5, 30)
    assert chosen_faces([small, large], "largest", Face.area) == [large]
    assert [chosen_faces([], choice, Face.area) for choice in ("largest", "all", "single")] == [[], [], []]


def test_judges_of_faces_are_shown_the_crops_of_the_published_evaluation() -> None:
    """300 px with a padding of 0.25, as FairFace was trained on."""
    finder = PlacedFaces([[face_at(100, 100, 200)]])
    OfFaces(Brightness(), finder, "largest", 4).label([two_faced()], QUESTION)
    assert finder.cropped == [(300, 0.25)]


def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'icm_pipeline\[faces\]'"):
        require("no_such_package", "faces", "labeler.detector=dlib")


@DLIB
@pytest.mark.parametrize(("size", "padding"), [(300, 0.25), (64, 0.2), (32, 0.2)])
@pytest.mark.parametrize("degrees", [0, 25])
def test_a_crop_is_dlibs_to_the_pixel(size: int, padding: float, degrees: int) -> None:
    """As FairFace's script cuts it: landmarks within the detected rectangle, and dlib's chip of them."""
    import dlib

    image, finder, folder = portrait().rotate(degrees), dlib_finder(), package_folder("face_recognition_models")
    assert folder is not None
    pixels = np.asarray(image)
    (rectangle,) = dlib.get_frontal_face_detector()(pixels, 0)
    shape = dlib.shape_predictor(str(folder / "models" / LANDMARKS_FILE))(pixels, rectangle)
    expected = dlib.get_face_chip(pixels, shape, size=size, padding=padding)
    (face,) = finder.find(image)
    assert np.array_equal(np.asarray(finder.crop(image, face, size, padding)), expected)


@DLIB
def test_a_crop_is_black_where_it_reaches_over_the_edge() -> None:
    white, finder = Image.new("RGB", (200, 200), "white"), dlib_finder()
    cropped = np.asarray(finder.crop(white, face_at(-60, 20, 120), 64, 0.25))
    assert (cropped[:, :20] == 0).all()
    assert (cropped[32, 45:] == 255).all()
    for outside in (face_at(500, 500, 40), face_at(-5000, 20, 120)):
        assert not np.asarray(finder.crop(white, outside, 64, 0.25)).any()


@DLIB
@pytest.mark.parametrize("side", [1, 2, 5])
def test_a_picture_of_a_few_pixels_has_a_crop_too(side: int) -> None:
    finder, picture = dlib_finder(), Image.new("RGB", (side, side), "white")
    assert finder.crop(picture, finder.within(picture), 64, 0.2).size == (64, 64)


@DLIB
def test_dlib_finds_the_face_of_a_photograph_and_none_in_noise() -> None:
    finder = dlib_finder()
    (face,) = finder.find(portrait())
    eyes_and_nose = face.landmarks.mean(0)
    assert np.hypot(*(eyes_and_nose - (222, 120))) < 20
    assert finder.find(noise(1, (256, 256))[0]) == []


@DLIB
def test_a_large_photograph_has_its_face_in_its_own_pixels() -> None:
    finder = dlib_finder()
    small, large = finder.find(portrait())[0], finder.find(portrait().resize((1600, 1600)))[0]
    np.testing.assert_allclose(large.landmarks / 1600, small.landmarks / 512, atol=0.02)


@DLIB
def test_an_unknown_detector_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"^judge\.detector=magic.*dlib, dlib_cnn"):
        DlibFinder(labeler_config("clip", detector="magic"), "judge")
