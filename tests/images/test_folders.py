"""Folders of images as tables: from a CSV file or by a rule over names, with what is wrong told by name."""

import csv
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.images.folders import (
    FolderReading,
    content_key,
    list_pictures,
    mark_unreadable,
    read_folder,
    read_images,
)
from icm_pipeline.images.table import ImageRow

PROMPTS = ["a face of a doctor", "a face of a nurse"]


def draw(folder: Path, *names: str) -> Path:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index * 20, 0, 0)).save(folder / name)
    return folder


def reading(folder: Path, *names: str, table: str | None = None) -> FolderReading:
    return FolderReading(folder, "images", table, names, PROMPTS, ["woman", "man"])


def rows_of(given: FolderReading) -> list[ImageRow]:
    return read_folder(given).rows


def known(rows: Sequence[ImageRow]) -> list[tuple[str, str, int | None, str]]:
    return [(row.image_id, row.prompt, row.seed, row.option) for row in rows]


def write_table(folder: Path, columns: list[str], *rows: Sequence[object], name: str = "images.csv") -> None:
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def test_without_table_and_rule_the_id_is_the_path_and_hidden_files_do_not_count(tmp_path: Path) -> None:
    draw(tmp_path, "b 図.PNG", "ü/a.b.jpg", ".hidden.png", ".thumbnails/a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert known(rows_of(reading(tmp_path))) == [("b 図", "", None, ""), ("ü/a.b", "", None, "")]


def test_whatever_pillow_reads_is_an_image_and_the_rest_is_named_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settings_with: Callable[..., Settings]
) -> None:
    names = [f"{suffix}.{suffix}" for suffix in ("avif", "bmp", "gif", "jfif", "jp2", "ppm", "tga", "tiff", "webp")]
    draw(tmp_path, *names, "bare.png")
    (tmp_path / "bare.png").rename(tmp_path / "bare")
    for name in ("b.heic", "c.txt", "README"):
        (tmp_path / name).write_text("no picture")
    rows = read_images(settings_with(f"images={tmp_path}"), "images")
    assert [row.path.name for row in rows] == sorted([*names, "bare"])
    assert not any(row.problem for row in rows)
    assert "images: 3 other files left out, which Pillow does not read: README, b.heic, c.txt" in caplog.text


def test_a_folder_of_files_that_pillow_does_not_read_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"0")
    with pytest.raises(ValueError, match=r"holds no picture .*; 1 other file left out, .*: a\.heic\.$"):
        rows_of(reading(tmp_path))


def test_beside_a_table_other_files_are_not_missed(tmp_path: Path) -> None:
    write_table(draw(tmp_path, "a.png"), ["id"], ["a"])
    (tmp_path / "manifest.json").write_text("{}")
    assert read_folder(reading(tmp_path)).others == []


@pytest.mark.parametrize(
    ("rule", "name", "found"),
    [
        ("{prompt_index}_{seed}", "1_07.png", ("1_07", PROMPTS[1], 7, "")),
        ("{prompt}/{seed}", "a face of a nurse/7.png", ("a face of a nurse/7", PROMPTS[1], 7, "")),
        ("{prompt}_{seed}", "a_face_of_a_nurse_7.png", ("a_face_of_a_nurse_7", PROMPTS[1], 7, "")),
        ("{prompt}/{option}/{seed}-{skip}", "x/man/7-v2.png", ("x/man/7-v2", "x", 7, "man")),
        ("run (1)/{id}", "run (1)/a/b.png", ("a/b", "", None, "")),
    ],
)
def test_a_rule_reads_names(tmp_path: Path, rule: str, name: str, found: tuple[str, str, int | None, str]) -> None:
    assert known(rows_of(reading(draw(tmp_path, name), rule))) == [found]


def test_the_first_rule_that_fits_counts_and_other_names_are_left_out(tmp_path: Path) -> None:
    draw(tmp_path, "x/1.png", "x/man/2.png", "grid.png")
    table = read_folder(reading(tmp_path, "{prompt}/{seed}", "{prompt}/{option}/{seed}"))
    assert known(table.rows) == [("x/1", "x", 1, ""), ("x/man/2", "x", 2, "man")]
    assert table.left_out == ["grid.png"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [("{sede}", "{sede}.*Known: {id}"), ("{seed}{seed}", "twice"), ("images", "no field"), ("{}", "{}.*Known")],
)
def test_a_rule_that_is_none_is_refused(tmp_path: Path, rule: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_folder(reading(draw(tmp_path, "1.png"), rule))


def test_a_table_says_what_images_are_and_leaves_the_others_out(tmp_path: Path) -> None:
    draw(tmp_path, "a b.png", "deep/c.jpg", "samples.png")
    columns = ["id", "prompt", "prompt_index", "seed", "option", "path"]
    write_table(
        tmp_path, columns, ["1", "a dog", "", "5", "man", "a b.png"], ["", "", "1", "", "", "deep/c.jpg"],
        ["3", "", "", "", "", "gone.png"],
    )  # fmt: skip
    table = read_folder(reading(tmp_path))
    rows = table.rows
    assert table.left_out == ["samples.png"]
    assert known(rows) == [("1", "a dog", 5, "man"), ("deep/c", PROMPTS[1], None, ""), ("3", "", None, "")]
    assert [row.path for row in rows] == [tmp_path / "a b.png", tmp_path / "deep/c.jpg", tmp_path / "gone.png"]


def test_a_table_with_ids_alone_finds_the_files_and_goes_before_rules(tmp_path: Path) -> None:
    draw(tmp_path, "7.png")
    write_table(tmp_path, ["id", "prompt"], ["7", "a dog"], name="meta.csv")
    (row,) = rows_of(reading(tmp_path, "{seed}", table="meta.csv"))
    assert (row.path, row.prompt, row.seed) == (tmp_path / "7.png", "a dog", None)
    with pytest.raises(ValueError, match=r"has no table other\.csv"):
        rows_of(reading(tmp_path, "{seed}", table="other.csv"))


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    draw(tmp_path, "7.png")
    (tmp_path / "images.csv").write_text("\ufeffid,seed\n7,3\n", "utf-8")
    assert known(rows_of(reading(tmp_path))) == [("7", "", 3, "")]


TABLES = {
    "no id or path": ("name,seed\n7,3\n", "needs id or path"),
    "no rows": ("id,seed\n", "has no rows"),
    "a row without both": ("id,path,seed\n7,,1\n,,2\n", "row 3 has neither"),
    "a seed that is none": ("id,seed\n7,x1\n", "row 2: seed 'x1'"),
    "a prompt that is not there": ("id,prompt_index\n7,2\n", "prompt_index 2 is none of the 2"),
    "a foreign option": ("id,option\n7,robot\n", r"steered to robot \(1 images\).*woman, man"),
    "one id twice": ("id,path\n7,7.png\n7,8.png\n", "several images share: 7"),
    "latin-1": ("id,prompt\n7,caf\xe9\n", "UTF-8"),
}


@pytest.mark.parametrize(("text", "said"), TABLES.values(), ids=TABLES)
def test_a_table_that_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    draw(tmp_path, "7.png", "8.png")
    (tmp_path / "images.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=said) as caught:
        read_folder(reading(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_another_table_is_only_proposed_where_none_was_given(tmp_path: Path) -> None:
    draw(tmp_path, "7.png")
    for name in ("images.csv", "meta.csv"):
        (tmp_path / name).write_text("seed\n3\n")
    with pytest.raises(ValueError, match=r"needs id or path, or folders\.table= another one\.$"):
        read_folder(reading(tmp_path))
    with pytest.raises(ValueError, match=r"meta\.csv has the columns seed; it needs id or path\.$"):
        read_folder(reading(tmp_path, table="meta.csv"))


def test_folders_without_pictures_or_of_ambiguous_ids_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    draw(tmp_path / "twice", "a.png", "a.jpg")
    for name, said in (("nowhere", "is no folder"), ("empty", "holds no picture"), ("twice", "share: a")):
        with pytest.raises(ValueError, match=f"images=.*{name} .*{said}"):
            read_folder(reading(tmp_path / name))
    with pytest.raises(ValueError, match=r"has no table meta\.csv"):
        read_folder(reading(tmp_path / "twice", table="meta.csv"))
    with pytest.raises(ValueError, match="no name fits"):
        read_folder(reading(tmp_path / "twice", "{seed}"))


def test_unreadable_images_keep_their_rows_with_the_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "c.png").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        rows = mark_unreadable(rows_of(reading(tmp_path)), "images")
    assert [row.problem for row in rows] == ["the file is empty", "", "not a picture"]
    assert "2 of 3 images cannot be read" in caplog.text
    assert "a.png" in caplog.text


def test_a_folder_with_nothing_to_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 1 images can be read"):
        mark_unreadable(rows_of(reading(tmp_path)), "images")


def test_the_key_is_of_content_not_of_place(tmp_path: Path) -> None:
    names = ["0_1.png", "1_1.png"]
    one, other = (draw(tmp_path / name, *names) for name in ("one", "other"))
    first = content_key(rows_of(reading(one)))
    assert content_key(rows_of(reading(other))) == first
    assert content_key(rows_of(reading(one, "{prompt_index}_{seed}"))) != first
    Image.new("RGB", (8, 8), "blue").save(other / names[1])
    assert content_key(rows_of(reading(other))) != first
    (other / names[1]).unlink()
    assert content_key(rows_of(reading(other))) != first


def test_a_link_that_points_to_nothing_is_counted(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "one.png")
    (tmp_path / "two.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "three.txt").symlink_to(tmp_path / "nowhere.txt")
    pictures, others = list_pictures(tmp_path)
    assert (list(pictures), others) == (["one.png", "two.png"], ["three.txt"])
