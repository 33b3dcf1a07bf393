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


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (None, r"3 images and no word of what they show, as it has no images\.csv; .*path and option.*woman or man"),
        ("path\na.png\nb.png\n", r"2 images and no word .*, as its images\.csv has no column option"),
        ("path,option\na.png,\nb.png,\n", r"as its images\.csv has no column option with a name in it"),
        ("path,option\na.png,man\nb.png,\n", r"of 2 images none that can be read shows woman; add images of every"),
        ("path,option\na.png,robot\n", r"images that show robot \(1 images\), which the attribute does not have"),
    ],
    ids=["no table", "no column", "no option", "one option", "an unknown option"],
)
def test_a_folder_that_does_not_tell_every_option_is_refused_with_what_was_found_and_what_to_do(
    settings_with: Compose, folder: Path, table: str | None, told: str
) -> None:
    (folder / "images.csv").unlink()
    if table is not None:
        (folder / "images.csv").write_text(table)
    with pytest.raises(ValueError, match=told) as refused:
        labelled_images(settings_with(f"audit.labelled={folder}"), folder)
    assert str(refused.value).startswith(f"audit.labelled={folder}")
    assert "steered to" not in str(refused.value)
