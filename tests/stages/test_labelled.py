"""Images of which it is known what they show: what is left out of a folder is counted and told."""

import csv
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from icm_pipeline.config.schema import Settings
from icm_pipeline.stages.labelled import labelled_images

Compose = Callable[..., Settings]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a folder of three pictures, a man, a woman, and a man again, with the table that says so."""
    made = tmp_path / "labelled"
    made.mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8)).save(made / f"{name}.png")
    told(made, ["man", "woman", "man"])
    return made


def told(folder: Path, options: list[str]) -> None:
    with (folder / "images.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [[f"{name}.png", option] for name, option in zip("abc", options, strict=True)]
        csv.writer(file).writerows([["path", "option"], *rows])


def test_all_images_of_a_folder_are_used_where_each_is_known(
    settings_with: Compose, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = labelled_images(settings_with(f"audit.labelled={folder}"), folder)
    assert [row.option for row in found.rows] == ["man", "woman", "man"]
    assert found.told == "3 images of audit.labelled"
    assert not caplog.records


def test_images_without_an_option_and_unreadable_ones_are_counted_in_the_log_and_in_what_is_told(
    settings_with: Compose, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (8, 8)).save(folder / "d.png")
    (folder / "e.png").write_bytes(b"no picture")
    with (folder / "images.csv").open("a", encoding="utf-8") as file:
        file.write("d.png,\r\ne.png,man\r\n")
    with caplog.at_level(logging.WARNING):
        found = labelled_images(settings_with(f"audit.labelled={folder}"), folder)
    assert [row.image_id for row in found.rows] == ["a", "b", "c"]
    assert found.told == "3 images of audit.labelled (1 left out that cannot be read, 1 without an option)"
    assert "of 5 images 1 left out that cannot be read, 1 without an option" in caplog.text


def test_a_folder_without_an_image_of_an_option_is_refused(settings_with: Compose, folder: Path) -> None:
    told(folder, ["man", "man", ""])
    with pytest.raises(ValueError, match="no readable image whose option is 'woman'"):
        labelled_images(settings_with(f"audit.labelled={folder}"), folder)
