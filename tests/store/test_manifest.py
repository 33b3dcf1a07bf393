"""Manifests: what is written is read, and those of format 5, whose mappings are lists of pairs, are read too."""

import json
from pathlib import Path

import pytest

from icm_pipeline.results.comparisons import differences
from icm_pipeline.store.artifacts import Artifact, open_artifact
from icm_pipeline.store.files import hash_file
from icm_pipeline.store.manifest import FORMAT_VERSION, FileEntry, Manifest, ShareEntry, earlier_formats, read_manifest
from icm_pipeline.store.shelf import read_shelf
from tests.helpers.shelf import call

# The manifest of labels that format 5 left behind, shortened.
FORMAT_5 = """
{
  "stage": "label", "key": "8624ed3d065e1199", "parents": {"generate": "ac7a03d96131979e"},
  "model": "tiny", "attribute": "gender", "device": "cpu",
  "settings": {
    "stage": "label", "format": 5,
    "config": {
      "labeler.kind": "clip", "labeler.groups": [],
      "attribute.options": [
        ["woman", ["a photo of a woman", "a portrait of a lady"]], ["man", ["a photo of a man", "a portrait of a man"]]
      ],
      "layers": [["rule", "top"], ["k", 3], ["names", null]]
    },
    "weights": {"labeler.path": "3c07682c653cf95f"}
  },
  "device_name": "AMD EPYC",
  "shares": [{"share": "0-of-1", "device": "cpu", "device_name": "AMD EPYC", "seconds": 2.5}],
  "format": 5, "files": {},
  "code": {"version": "0.1.0", "commit": "3806f1106fc5d53563676ecabd25474d5abe57cb", "modified": false},
  "libraries": {"icm_pipeline": "0.1.0", "torch": "2.14.1"}, "python": "3.11.7", "machine": "x86_64",
  "created": "2026-11-28T04:58:14Z", "seconds": 0.708
}
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of an artifact of format 5 in the outputs folder `tmp_path`."""
    folder = tmp_path / "artifacts" / "label" / "tiny-gender-8624ed3d065e1199"
    folder.mkdir(parents=True)
    (folder / "labels.csv").write_text("id,option\n0,woman\n")
    entry = {"size": (folder / "labels.csv").stat().st_size, "sha256": hash_file(folder / "labels.csv")}
    content = {**json.loads(FORMAT_5), "files": {"labels.csv": entry}}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    manifest = Manifest(
        "probe", "k1", {"label": "k0"}, settings={"config": {"attribute.options": {"b": [], "a": [["x", "y"]]}}},
        shares=(ShareEntry("0-of-1", 1.5, "cpu"),), files={"data.txt": FileEntry(3, "cafe")}, seconds=2.0,
    )  # fmt: skip
    manifest.write(tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert list(read_manifest(tmp_path).config["attribute.options"]) == ["b", "a"]


def test_settings_of_format_5_are_read_as_the_mappings_they_were(old: Path) -> None:
    manifest = read_manifest(old)
    assert manifest.format == 5
    assert manifest.config["attribute.options"]["woman"] == ["a photo of a woman", "a portrait of a lady"]
    assert manifest.config["layers"] == {"rule": "top", "k": 3, "names": None}
    assert manifest.shares[0].seconds == 2.5


def test_artifacts_of_format_5_are_listed_shown_verified_kept_and_compared(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [
        call(tmp_path, *words) for words in (["ls"], ["show", "8624"], ["verify"], ["gc", "--older-than", "1e6"])
    ] == [0, 0, 0, 0]
    text = capsys.readouterr().out
    assert "woman: a photo of a woman, a portrait of a lady; man: a photo of a man" in text
    assert "2026-11-28 04:58:14" in text
    artifact = open_artifact(old)
    assert artifact is not None
    assert read_shelf(tmp_path, {}).artifacts == {artifact.key: artifact}
    changed = {**artifact.manifest.config, "labeler.kind": "tiny"}
    today = Artifact(tmp_path, Manifest("label", "k", settings={"config": changed}))
    assert differences([artifact, artifact, today]).told == ((), (), ("labeler.kind=tiny",))


def test_artifacts_of_an_earlier_format_are_told_of_unless_one_of_today_is_there(old: Path) -> None:
    wanted = old.with_name("tiny-gender-0123456789abcdef")
    assert earlier_formats(wanted) == [5]
    assert earlier_formats(old.with_name("tiny-age-0123456789abcdef")) == []
    wanted.mkdir()
    Manifest("label", "0123456789abcdef").write(wanted)
    assert earlier_formats(wanted) == []
    assert FORMAT_VERSION == 6
