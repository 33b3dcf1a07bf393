"""Pictures side by side keep their shape."""

from pathlib import Path

from PIL import Image

from icm_pipeline.images.sheet import SHOWN_SIZE, draw_sheet, fitted


def test_a_picture_that_is_not_square_is_not_squashed() -> None:
    wide = fitted(Image.new("RGB", (200, 100), "black"), 64)
    assert wide.size == (64, 64)
    assert wide.getpixel((32, 32)) == (0, 0, 0)
    assert wide.getpixel((32, 4)) == wide.getpixel((32, 60)) == (255, 255, 255)


def test_a_sheet_shows_tall_pictures_whole(tmp_path: Path) -> None:
    Image.new("RGB", (50, 100), "black").save(tmp_path / "a.png")
    with Image.open(draw_sheet(tmp_path / "sheet.png", tmp_path)) as sheet:
        assert sheet.getpixel((SHOWN_SIZE // 2, 2)) == (0, 0, 0)
        assert sheet.getpixel((2, SHOWN_SIZE // 2)) == (255, 255, 255)
