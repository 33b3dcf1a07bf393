"""The probe stage: which images are used, what is held out, and what its files say of each layer and step."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from icm_pipeline.config.choices import SOLVERS
from icm_pipeline.config.schema import Settings
from icm_pipeline.localization.probes import fit_layer, split_samples
from icm_pipeline.methods.vectors import load_vectors
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.stages import probe
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.manifest import FileEntry, Manifest

Compose = Callable[..., Settings]
OPTIONS = ("woman", "man")
STEPS, LEVELS = [3, 11], [0.9, 0.4]
KINDS = {"early.attn1": "self_attention", "late.attn2": "cross_attention"}
Labels = NDArray[np.int64]
Run = Callable[..., "Found"]


@dataclass(frozen=True)
class Found:
    """What the stage left: its scores, and its folder."""

    folder: Path

    @property
    def scores(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "scores.json").read_text())
        return content


def told_apart(labels: Labels, at_step: int = 0) -> NDArray[np.float32]:
    """Return noise [n, 2, 6] that tells the options apart at one step and says nothing at the other."""
    x = np.random.default_rng(0).normal(size=(len(labels), len(STEPS), 6)).astype(np.float32)
    x[:, at_step, 0] += 20 * labels
    return x


@pytest.fixture
def run(settings_with: Compose, tmp_path: Path) -> Run:
    """Give a function that runs the stage on labels (-1: not recognised), activations and prompts made by hand."""

    def ran(labels: Labels, activations: NDArray[np.float32], *words: str, prompts: Labels | None = None) -> Found:
        recorded, labelled, folder = (tmp_path / name for name in ("generate", "label", "probe"))
        for path in (recorded, labelled, folder):
            path.mkdir(exist_ok=True)
        prompts = np.zeros(len(labels), np.int64) if prompts is None else prompts
        ids = [f"{index:06d}" for index in range(len(labels))]
        files = {layer: f"{number}.safetensors" for number, layer in enumerate(KINDS)}
        rows = [[name, "a face", number, 0, "", "a.png"] for name, number in zip(ids, prompts, strict=True)]
        write(recorded / "images.csv", ["id", "prompt", "prompt_index", "seed", "option", "path"], rows)
        shown = [[name, OPTIONS[label] if label >= 0 else ""] for name, label in zip(ids, labels, strict=True)]
        write(labelled / "labels.csv", ["id", "option"], shown[::-1])  # in an order of its own
        for name, x in zip(files.values(), (activations, activations[:, ::-1]), strict=True):
            save_file({"pooled": torch.from_numpy(x.copy())}, recorded / name)
        recording = {"kinds": KINDS, "files": files, "steps": STEPS, "noise_levels": LEVELS}
        (recorded / "recording.json").write_text(json.dumps(recording))
        names = ["images.csv", "recording.json", "a.png", *files.values()]
        parents = {
            "generate": Artifact(recorded, Manifest("", "0", files=dict.fromkeys(names, FileEntry(0, "")))),
            "label": Artifact(labelled, Manifest("", "1", files={"labels.csv": FileEntry(0, "")})),
        }
        probe.run(StageContext(settings_with("probe.min_per_option=2", *words), parents, folder))
        return Found(folder)

    return ran


def write(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def test_the_solver_is_the_one_of_the_settings(run: Run) -> None:
    labels = np.arange(40) % 2
    x, split = told_apart(labels), split_samples(labels, 0.25, np.random.default_rng(3))
    for solver in SOLVERS:
        found = run(labels, x, "probe.test_share=0.25", "seed=3", "probe.C=0.1", f"probe.solver={solver}")
        expected = fit_layer(x, labels, split, 0.1, 1000, solver=solver).directions["probe"]
        vectors = load_vectors(found.folder / "vectors-probe.safetensors")
        assert np.array_equal(vectors.directions["early.attn1"], expected)


def test_an_image_that_nobody_recognised_is_left_out_and_the_rows_after_it_keep_their_labels(run: Run) -> None:
    labels = np.arange(40) % 2
    x = told_apart(labels) + np.random.default_rng(1).normal(size=(40, 2, 6)).astype(np.float32) * 5
    labels[17], x[17] = -1, 1e4
    found = run(labels, x, "probe.test_share=0.25", "seed=3", "probe.C=0.1")
    kept = np.delete(labels, 17)
    split = split_samples(kept, 0.25, np.random.default_rng(3))
    expected = fit_layer(np.delete(x, 17, axis=0), kept, split, 0.1, 1000)
    for name in ("probe", "mean_difference", "pattern"):
        vectors = load_vectors(found.folder / f"vectors-{name}.safetensors")
        np.testing.assert_allclose(vectors.directions["early.attn1"], expected.directions[name], atol=1e-5)
        np.testing.assert_allclose(vectors.mean_norms["early.attn1"], expected.mean_norm, rtol=1e-5)
    assert found.scores["layers"]["early.attn1"]["accuracy"] == pytest.approx(expected.accuracy.tolist())
    assert (found.scores["num_train"], found.scores["num_test"]) == (len(split.train), len(split.test))


def test_a_score_is_the_mean_accuracy_over_steps_of_its_own_layer(run: Run) -> None:
    labels = np.arange(80) % 2
    found = run(labels, told_apart(labels), "probe.test_share=0.5").scores["layers"]
    early, late = (found[layer] for layer in KINDS)
    assert early["accuracy"][0] == 1
    assert early["accuracy"][1] < 0.8
    assert late["accuracy"] == early["accuracy"][::-1]
    for row, kind in ((early, "self_attention"), (late, "cross_attention")):
        assert row["score"] == pytest.approx(sum(row["accuracy"]) / 2)
        assert row["kind"] == kind


def test_vectors_keep_the_steps_with_their_noise_levels_in_order(run: Run) -> None:
    labels = np.arange(80) % 2
    found = run(labels, told_apart(labels))
    assert found.scores["steps"] == STEPS
    for name in ("probe", "mean_difference", "pattern"):
        vectors = load_vectors(found.folder / f"vectors-{name}.safetensors")
        assert (list(vectors.steps), list(vectors.noise_levels)) == (STEPS, LEVELS)
        telling = {"early.attn1": 0.9, "late.attn2": 0.4}  # at which noise level a layer tells the options apart
        for layer, level in telling.items():
            if name != "probe":  # whose weight is small on a feature that varies much
                assert vectors.directions[layer][vectors.slot(level), 1, 0] > 0.95
        assert vectors.kinds == KINDS
        assert vectors.scores == {layer: row["score"] for layer, row in found.scores["layers"].items()}


def test_the_held_out_share_is_the_one_asked_for(run: Run) -> None:
    labels = np.arange(80) % 2
    for share, num_test in (("0.1", 8), ("0.5", 40)):
        scores = run(labels, told_apart(labels), f"probe.test_share={share}").scores
        assert (scores["num_train"], scores["num_test"]) == (80 - num_test, num_test)


def test_chance_is_the_held_out_share_of_what_most_training_images_show(run: Run) -> None:
    labels = (np.arange(80) < 16).astype(np.int64)
    assert run(labels, told_apart(labels), "probe.test_share=0.25").scores["chance"] == pytest.approx(0.8)


def test_with_shuffled_labels_what_is_plain_to_see_is_at_chance(run: Run) -> None:
    labels = np.arange(400) % 2
    x, words = told_apart(labels), ("probe.test_share=0.5",)
    assert run(labels, x, *words).scores["layers"]["early.attn1"]["accuracy"][0] == 1
    shuffled = run(labels, x, *words, "probe.shuffle_labels=true").scores["layers"]["early.attn1"]["accuracy"]
    assert max(shuffled) < 0.65


def test_grouped_by_prompt_what_only_tells_prompts_apart_tells_no_options_apart(run: Run) -> None:
    """Each of eight prompts has a feature of its own and shows one option: read from prompts seen in training only."""
    prompts = np.arange(80) % 8
    labels = prompts % 2
    x = np.repeat(np.eye(8, dtype=np.float32)[prompts][:, None], 2, axis=1)
    words = ("probe.test_share=0.5", "probe.C=100")
    alone = run(labels, x, *words, prompts=prompts).scores["layers"]["early.attn1"]
    grouped = run(labels, x, *words, "probe.group_by_prompt=true", prompts=prompts).scores["layers"]["early.attn1"]
    assert alone["score"] == 1
    assert grouped["score"] <= 0.75


def test_the_seed_decides_what_is_held_out(run: Run) -> None:
    labels = np.arange(80) % 2
    x = told_apart(labels)
    first, again, other = (
        run(labels, x, "probe.test_share=0.5", f"seed={seed}").scores["layers"] for seed in (0, 0, 1000)
    )
    assert first == again != other


@pytest.mark.parametrize(("word", "unfinished"), [("probe.max_iter=1", True), ("probe.max_iter=1000", False)])
def test_probes_that_had_too_few_iterations_are_told(
    run: Run, caplog: pytest.LogCaptureFixture, word: str, unfinished: bool
) -> None:
    labels = np.arange(80) % 2
    run(labels, told_apart(labels) / 5, word, "probe.C=100")
    assert ("did not converge" in caplog.text) is unfinished


def test_an_option_that_too_few_images_show_is_refused_by_name(run: Run) -> None:
    labels = (np.arange(40) < 3).astype(np.int64)
    with pytest.raises(ValueError, match=r"at least 4 .*'man': 3.*too few of man"):
        run(labels, told_apart(labels), "probe.min_per_option=4")
