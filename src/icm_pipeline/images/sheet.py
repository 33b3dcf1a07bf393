"""A contact sheet: the first pictures of a folder side by side."""

from pathlib import Path

from PIL import Image, ImageOps

SHOWN_SIZE = 128  # pixels a picture is brought to, so that the figure's own scaling does not blur small ones
SHEET_COLUMNS, SHEET_ROWS = 8, 4


def draw_sheet(path: Path, images: Path) -> Path:
    """Draw the first pictures of a folder side by side, at most 32, and return the sheet's path."""
    chosen = sorted(images.glob("*.png"))[: SHEET_COLUMNS * SHEET_ROWS]
    sheet = Image.new("RGB", (SHEET_COLUMNS * SHOWN_SIZE, -(-len(chosen) // SHEET_COLUMNS) * SHOWN_SIZE), "white")
    for place, source in enumerate(chosen):
        row, column = divmod(place, SHEET_COLUMNS)
        with Image.open(source) as image:
            shown = fitted(image, SHOWN_SIZE)
        sheet.paste(shown, (column * SHOWN_SIZE, row * SHOWN_SIZE))
    sheet.save(path)
    return path


def fitted(image: Image.Image, size: int) -> Image.Image:
    """Return a picture brought to a square of so many pixels, its shape kept, on white."""
    return ImageOps.pad(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC, color="white")
