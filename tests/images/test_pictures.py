"""Reading pictures: whatever a file holds, the judges get 8-bit RGB as a viewer shows it, or the file is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.images.pictures import UnreadablePictureError, problem_of, read_picture

RAMP = np.linspace(0, 255, 16 * 24).reshape(16, 24).astype(np.uint8)
RGB = np.stack([RAMP, RAMP[::-1], np.full_like(RAMP, 40)], axis=2)


def pixels(path: Path) -> np.ndarray:
    picture = read_picture(path)
    assert picture.mode == "RGB"
    return np.asarray(picture)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "ein Bild mit Lücken 図.webp"])
def test_rgb_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    Image.fromarray(RGB).save(tmp_path / name, lossless=True)
    assert np.array_equal(pixels(tmp_path / name), RGB)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    assert np.array_equal(pixels(path), np.stack([RAMP] * 3, axis=2))


def test_cmyk_is_converted(tmp_path: Path) -> None:
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert np.abs(pixels(tmp_path / "a.jpg").astype(int) - RGB).mean() < 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 4, 8))
    picture.convert(mode).save(tmp_path / "a.png")
    found = pixels(tmp_path / "a.png")
    assert (found[:, :4] == 0).all()
    assert (found[:, 4:] == 255).all()


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert np.abs(pixels(tmp_path / "a.png").astype(int) - 127).max() <= 1


def test_the_orientation_in_exif_is_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "a.png"), np.rot90(RGB, -1))


def truncated(path: Path) -> None:
    Image.fromarray(RGB).resize((200, 200)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.touch(), "empty"),
    "text": (lambda path: path.write_text("no picture at all"), "not a picture"),
    "truncated": (truncated, "truncated"),
}


@pytest.mark.parametrize(("spoil", "said"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_file_that_is_no_whole_picture_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path], object], said: str, suffix: str
) -> None:
    path = tmp_path / f"a b.{suffix}"
    spoil(path)
    with pytest.raises(UnreadablePictureError, match=rf"a b\.{suffix} cannot be read: .*{said}"):
        read_picture(path)
    assert said in problem_of(path)


def test_values_without_a_known_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "a.tif")
    assert "8 or 16 bits" in problem_of(tmp_path / "a.tif")


def test_a_good_picture_has_no_problem(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert problem_of(tmp_path / "a.png") == ""
