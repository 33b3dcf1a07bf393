"""Results made by hand: what a test does not name is as usual."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from icm_pipeline.results.comparisons import Compared
from icm_pipeline.results.evaluation import Change, Discrepancy, Evaluation, Fairness, Figure, Interval, Lost
from icm_pipeline.results.scores import LayerScores, Scores
from icm_pipeline.results.steering import Steering
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.files import hash_file
from icm_pipeline.store.manifest import MANIFEST, FileEntry, Manifest

PROMPTS = ("a face of a nurse", "a face of a doctor")


def steering(**changed: Any) -> Steering:
    """Return how the best two self-attention layers are steered at alpha 1.5."""
    usual = Steering(
        direction="probe", alpha_unit="relative", assignment="quota", draw_size=16, first_step=0, last_step=None,
        vector="per_step", norm_preserving=False, target_shares=None, method="icm", alpha=1.5, layers=["a", "b"],
        rule="top", kind="self_attention",
    )  # fmt: skip
    return replace(usual, **changed)


def discrepancy(mean: float, interval: Interval | None = None, prompts: Iterable[str] = PROMPTS) -> Discrepancy:
    return Discrepancy(mean, dict.fromkeys(prompts, mean), interval or (mean / 2, mean * 2))


def evaluation(fd: float = 0.2, prompts: Iterable[str] = PROMPTS, **changed: Any) -> Evaluation:
    """Return the figures of eight images, FD 0.6 before; changed: fields of the evaluation, or of its fairness."""
    half = Figure(0.5, dict.fromkeys(prompts, 0.5))
    before, after = discrepancy(0.6, prompts=prompts), discrepancy(fd, prompts=prompts)
    fair = Fairness(0.0, [], before, half, half, after, half, half, Change(fd - 0.6, (fd - 0.7, fd - 0.5)))
    fair = replace(fair, **{name: changed.pop(name) for name in vars(fair).keys() & changed.keys()})
    usual = Evaluation(
        model="tiny", attribute="gender", steering=steering(), num_images=8, lost=Lost(), unseen={}, fd_of="labels",
        fairness=fair, clip_i=0.9, clip_t_original=0.7, clip_t=0.7, ssim=0.6, obeyed=0.75, obeyed_by_option={},
        kept={"age": 0.5}, drift={}, shares={}, agreement=None, reference=None,
    )  # fmt: skip
    return replace(usual, **changed)


def compared(key: str = "0", told: tuple[str, ...] = (), less: Interval | None = None, **changed: Any) -> Compared:
    """Return an evaluation beside others; changed: as of `evaluation`."""
    found = evaluation(**changed)
    assert found.steering is not None
    return Compared(key, found, found.steering, told, less)


def scores(layers: Mapping[str, tuple[str, float, list[float]]], steps: Iterable[int] = (0, 1)) -> Scores:
    """Return scores of layers given as kind, mean score and accuracy by step."""
    return Scores(list(steps), 0.5, 8, 2, {layer: LayerScores(*row) for layer, row in layers.items()})


def as_artifact(folder: Path, stage: str = "", *more: str) -> Artifact:
    """Return a folder as an artifact of the files in it, and of those that are still to be written."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return Artifact(folder, Manifest(stage, "0", files=dict.fromkeys([*names, *more], FileEntry(0, ""))))


def write_artifact(folder: Path, stage: str, key: str = "", **more: Any) -> Path:
    """Give a folder with files the manifest of an artifact; more: fields of the manifest."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    files = {path.relative_to(folder).as_posix(): FileEntry(path.stat().st_size, hash_file(path)) for path in paths}
    Manifest(stage, key or folder.name, files=files, **more).write(folder)
    return folder
