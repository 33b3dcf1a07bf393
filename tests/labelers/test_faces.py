"""Faces: cropped to the pixel as dlib does, chosen, averaged; a picture without one keeps its row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.arrays import Floats
from icm_pipeline.labelers.base import Questions, require
from icm_pipeline.labelers.face_crops import MEAN_FACE, crop_face
from icm_pipeline.labelers.faces import DlibFinder, Face, FaceCrops, OfFaces, chosen_faces
from tests.helpers.pictures import needs, noise, portrait

DLIB = needs("dlib", "face_recognition_models")
QUESTION = {"brightness": {"dark": ["dark"], "bright": ["bright"]}}


def face_at(left: float, top: float, width: float) -> Face:
    """Return an upright mean face in a square box."""
    return Face((left, top, left + width, top + width), np.array([left, top]) + MEAN_FACE * width)


class PlacedFaces:
    """Finds faces where the test says they are: the n-th picture it is shown has the n-th list of faces."""

    def __init__(self, faces: list[list[Face]]) -> None:
        self._faces = iter(faces)

    def find(self, image: Any) -> list[Face]:
        return next(self._faces)


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
    assert chosen_faces([small, large], "largest") == [large]
    assert chosen_faces([], "largest") == chosen_faces([], "all") == chosen_faces([], "single") == []


def test_a_crop_puts_the_landmarks_where_the_mean_face_has_them() -> None:
    turn = np.deg2rad(30)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    landmarks = (MEAN_FACE * 200) @ rotation.T + (250, 150)
    pixels = np.zeros((512, 512, 3), np.uint8)
    for x, y in landmarks.round().astype(int):
        pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
    cropped = np.asarray(crop_face(Image.fromarray(pixels), landmarks, 300, 0.25))[..., 0]
    for x, y in (MEAN_FACE + 0.25) / 1.5 * 300:
        assert cropped[round(y), round(x)] > 200


def test_a_crop_is_black_where_it_reaches_over_the_edge() -> None:
    cropped = np.asarray(crop_face(Image.new("RGB", (200, 200), "white"), face_at(-60, 20, 120).landmarks, 64, 0.25))
    assert (cropped[:, :20] == 0).all()
    assert (cropped[32, 45:] == 255).all()


def test_judges_of_faces_are_shown_the_crops_of_the_published_evaluation() -> None:
    """300 px with a padding of 0.25, as FairFace was trained on."""
    picture, face = noise(1, (400, 400))[0], face_at(120, 100, 150)
    crops = FaceCrops([picture], [[face]])
    expected = crop_face(picture, face.landmarks, size=300, padding=0.25)
    assert crops[0].size == (300, 300)
    assert crops[0].tobytes() == expected.tobytes()


def test_a_face_outside_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the picture"):
        crop_face(Image.new("RGB", (64, 64)), face_at(500, 500, 40).landmarks, 64, 0.25)


def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'icm_pipeline\[faces\]'"):
        require("no_such_package", "faces", "labeler.detector=dlib")


@DLIB
@pytest.mark.parametrize(("size", "padding"), [(300, 0.25), (64, 0.2), (32, 0.2)])
@pytest.mark.parametrize("degrees", [0, 25])
def test_a_crop_is_dlibs_to_the_pixel(size: int, padding: float, degrees: int) -> None:
    import dlib

    image = portrait().rotate(degrees)
    (face,) = DlibFinder("dlib").find(image)
    points = [dlib.point(int(x), int(y)) for x, y in face.landmarks]
    shape = dlib.full_object_detection(dlib.rectangle(*(int(value) for value in face.box)), points)
    expected = dlib.get_face_chip(np.asarray(image), shape, size=size, padding=padding)
    difference = np.abs(np.asarray(crop_face(image, face.landmarks, size, padding)).astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.01


@DLIB
def test_dlib_finds_the_face_of_a_photograph_and_none_in_noise() -> None:
    finder = DlibFinder("dlib")
    (face,) = finder.find(portrait())
    eyes_and_nose = face.landmarks.mean(0)
    assert np.hypot(*(eyes_and_nose - (222, 120))) < 20
    assert finder.find(noise(1, (256, 256))[0]) == []


@DLIB
def test_a_large_photograph_has_its_face_in_its_own_pixels() -> None:
    finder = DlibFinder("dlib")
    small, large = finder.find(portrait())[0], finder.find(portrait().resize((1600, 1600)))[0]
    np.testing.assert_allclose(large.landmarks / 1600, small.landmarks / 512, atol=0.02)


@DLIB
def test_an_unknown_detector_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="dlib, dlib_cnn"):
        DlibFinder("magic")
