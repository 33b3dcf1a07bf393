"""An outputs folder with a few small artifacts, and the commands that look after it."""

import json
import os
import time
from pathlib import Path

from icm_pipeline.cli.housekeeping import run_command
from icm_pipeline.pipeline.table import kinds_of_stages
from icm_pipeline.store.building import building, building_share
from icm_pipeline.store.manifest import Manifest
from icm_pipeline.store.shards import Share
from icm_pipeline.store.shelf import read_shelf

KEYS = {stage: f"{place:02d}" * 8 for place, stage in enumerate(("generate", "label", "probe", "steer", "evaluate"))}
PARENTS: dict[str, list[str]] = {
    "generate": [], "label": ["generate"], "probe": ["generate", "label"], "steer": ["probe"], "evaluate": ["steer"],
}  # fmt: skip


def description(stage: str, key: str, parents: dict[str, str]) -> Manifest:
    settings = {
        "config": {"alpha": 3.0, "attribute.options": {"woman": ["[a] woman"], "man": ["a man"]}},
        "weights": {"model.path": "cafe" * 4},
    }
    if stage == "report":
        settings["compared"] = {}
    return Manifest(stage, key, parents, "sd1-5", "skin_tone", "cpu", settings)


def make(outputs: Path, stage: str, key: str, parents: dict[str, str]) -> Path:
    folder = outputs / "artifacts" / stage / f"sd1-5-skin_tone-{key}"
    with building(folder, description(stage, key, parents)) as partial:
        assert partial is not None
        (partial / "data.txt").write_text(stage * 300)
        (partial / "images").mkdir()
        for number in range(3):
            (partial / "images" / f"{number}.png").write_bytes(b"x" * 1000)
    return folder


def make_chain(outputs: Path) -> Path:
    """A chain that ends in an evaluation, and steered images and labels that no evaluation was made from."""
    for stage, parents in PARENTS.items():
        make(outputs, stage, KEYS[stage], {parent: KEYS[parent] for parent in parents})
    make(outputs, "label", "a1" * 8, {"generate": KEYS["generate"]})
    make(outputs, "steer", "a2" * 8, {"probe": KEYS["probe"], "label": "a1" * 8})
    return outputs


def call(outputs: Path, *words: str) -> int:
    return run_command([*words, "--outputs", str(outputs)])


def kept_keys(outputs: Path) -> set[str]:
    return set(read_shelf(outputs, kinds_of_stages()).artifacts)


def half_made(outputs: Path) -> Path:
    return outputs / "artifacts" / "extract" / "sd1-5-skin_tone-b1"


def make_half(outputs: Path) -> Path:
    """Make one half of an artifact from what nothing else needs; return the partial folder."""
    half_made_by = description("extract", "b1", {"steer": "a2" * 8})
    with building_share(half_made(outputs), half_made_by, Share(0, 2), wait=True) as partial:
        assert partial is not None
        (partial / "half.txt").write_text("half")
    return partial


def grow_old(path: Path) -> None:
    """Let everything below a path, and an artifact there, be of the day before yesterday."""
    then = time.time() - 48 * 3600
    for manifest in path.rglob("manifest.json"):
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(then))
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "created": created}))
    for file in (path, *path.rglob("*")):
        os.utime(file, (then, then))
