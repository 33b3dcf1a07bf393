"""The foretell stage: which images and steps it reads, what it leaves, and when it says that it cannot."""

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.readers import Reader, load_readers
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.foretelling import Foretold
from icm_pipeline.stages import foretell
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.manifest import FileEntry, Manifest
from tests.helpers.results import as_artifact

Compose = Callable[..., Settings]
Labels = NDArray[np.int64]
OPTIONS = ("woman", "man")
STEPS, LEVELS = [2, 5, 15], [0.99, 0.9, 0.4]  # of 20
KINDS = {"early.attn1": "self_attention", "late.attn2": "cross_attention"}
Run = Callable[..., tuple[Foretold, tuple[Reader, ...]]]


def told_from(labels: Labels, first: int) -> NDArray[np.float32]:
    """Return noise [n, 3, 6] that tells the options apart from one recorded step on."""
    x = np.random.default_rng(0).normal(size=(len(labels), len(STEPS), 6)).astype(np.float32)
    x[:, first:, 0] += 20 * labels[:, None]
    return x


@pytest.fixture
def run(settings_with: Compose, tmp_path: Path) -> Run:
    """Give a function that runs the stage on labels (-1: not recognised) and activations of two layers."""

    def ran(labels: Labels, activations: NDArray[np.float32], *words: str, steps: list[int] = STEPS) -> object:
        recorded, labelled, folder = (tmp_path / name for name in ("generate", "label", "foretell"))
        for path in (recorded, labelled, folder):
            path.mkdir(exist_ok=True)
        files = {layer: f"{number}.safetensors" for number, layer in enumerate(KINDS)}
        ids = [f"{index:06d}" for index in range(len(labels))]
        rows = [[name, "a face", number // 4, 0, "", "a.png"] for number, name in enumerate(ids)]
        write(recorded / "images.csv", ["id", "prompt", "prompt_index", "seed", "option", "path"], rows)
        shown = [[name, OPTIONS[label] if label >= 0 else ""] for name, label in zip(ids, labels, strict=True)]
        write(labelled / "labels.csv", ["id", "option"], shown)
        noise = np.random.default_rng(1).normal(size=activations.shape).astype(np.float32)
        for name, x in zip(files.values(), (activations, noise), strict=True):
            save_file({"pooled": torch.from_numpy(x.copy())}, recorded / name)
        recording = {"kinds": KINDS, "files": files, "steps": steps, "noise_levels": LEVELS}
        (recorded / "recording.json").write_text(json.dumps(recording))
        names = ["images.csv", "recording.json", "a.png", *files.values()]
        parents = {
            "generate": Artifact(recorded, Manifest("", "0", files=dict.fromkeys(names, FileEntry(0, "")))),
            "label": Artifact(labelled, Manifest("", "1", files={"labels.csv": FileEntry(0, "")})),
        }
        foretell.run(StageContext(settings_with(*words), parents, folder))
        return Foretold.read(as_artifact(folder)), load_readers(folder / "readers.safetensors")

    return ran  # type: ignore[return-value]


def write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def drawn() -> Labels:
    labels = np.random.default_rng(2).integers(0, 2, 80)
    labels[[3, 50]] = -1
    return labels


def test_the_steps_of_the_first_half_are_read_and_the_first_good_one_is_told(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        foretold, readers = run(drawn(), told_from(drawn(), 1))
    assert [(reader.step, reader.noise_level) for reader in readers] == [(2, 0.99), (5, 0.9)]
    assert [reading.step for reading in foretold.readings] == [2, 5]
    assert [reading.accuracy for reading in foretold.readings] == [reader.accuracy for reader in readers]
    assert foretold.readings[0].accuracy < 0.75
    assert foretold.readings[1].accuracy == 1
    assert readers[1].layers == ["early.attn1"]
    assert foretold.readings[1].num_layers == 1
    assert foretold.num_images == 78
    assert "right in 100.0% after 6 steps, by 1 layers" in caplog.text


def test_the_readers_see_in_raw_activations_what_the_images_show(run: Run) -> None:
    labels, seen = drawn(), drawn() >= 0
    x = told_from(labels, 1)
    _, readers = run(labels, x)
    found = readers[1].probabilities({"early.attn1": torch.from_numpy(x[:, 1])})
    assert (found.argmax(1) == labels)[seen].all()


@pytest.mark.parametrize("words", [[], ["probe.shuffle_labels=true"]])
def test_what_no_step_foretells_is_said(run: Run, caplog: pytest.LogCaptureFixture, words: list[str]) -> None:
    with caplog.at_level(logging.INFO):
        foretold, _ = run(drawn(), told_from(drawn(), 0 if words else 3), *words)
    assert all(reading.accuracy < 0.75 for reading in foretold.readings)
    assert "good enough (90%) after none of the first 6 steps" in caplog.text


def test_without_an_early_step_or_enough_images_it_refuses(run: Run) -> None:
    with pytest.raises(ValueError, match=r"first half of the 20 steps.*the first is 12\. Record earlier ones"):
        run(drawn(), told_from(drawn(), 0), steps=[12, 15, 18])
    rare = np.where(np.arange(80) < 5, 1, 0)
    with pytest.raises(ValueError, match="too few of man"):
        run(rare, told_from(rare, 0))


def test_readers_of_which_none_is_good_enough_are_kept_and_refused(
    run: Run, settings_with: Compose, tmp_path: Path
) -> None:
    run(drawn(), told_from(drawn(), 2))  # not before the second half
    artifact = Artifact(tmp_path / "foretell", Manifest("", "2", files={"readers.safetensors": FileEntry(0, "")}))
    least = "method.assignment=least_change"
    with pytest.raises(ValueError, match="look=auto: no reader"):
        foretell.check(settings_with(least, "method.look=auto"), artifact)
    foretell.check(settings_with(least, "method.look=6"), artifact)
