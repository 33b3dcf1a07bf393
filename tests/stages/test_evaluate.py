"""The evaluate stage by hand: what was kept, who obeyed, how two judges agree, and FD with its companions."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation import judging
from icm_pipeline.evaluation.fairness import drift_of, fairness_figures
from icm_pipeline.labelers.base import Questions
from icm_pipeline.metrics.fairness import expected_floor
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.evaluation import Fairness
from icm_pipeline.stages import evaluate
from icm_pipeline.store.artifacts import Artifact
from tests.helpers.results import as_artifact, steering

Compose = Callable[..., Settings]

# What two judges see in each image: P(woman) of the first before and after, P(old) before and after, P(woman) of the
# second before and after; and what it was steered to.
SEEN = [
    (0.9, 0.8, 0.1, 0.2, 0.9, 0.8, "woman"),
    (0.8, 0.7, 0.1, 0.9, 0.2, 0.9, "woman"),
    (0.7, 0.6, 0.8, 0.7, 0.8, 0.3, "woman"),
    (0.6, 0.9, 0.9, 0.2, 0.7, 0.7, "man"),
    (0.9, 0.1, 0.2, 0.3, 0.9, 0.2, "man"),
    (0.8, 0.3, 0.3, 0.1, 0.1, 0.1, "man"),
    (0.2, 0.2, 0.3, 0.2, 0.3, 0.4, "man"),
    (0.1, 0.6, 0.3, 0.2, 0.2, 0.6, "man"),
]
PROMPTS = ["a face of a doctor", "a face of a nurse"]


class ByColour:
    """Sees a probability in a channel of a picture's colour; of what no channel shows, as much of every option."""

    def __init__(self, channels: dict[str, int]) -> None:
        self._channels = channels

    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        colours = np.array([np.asarray(images[index])[0, 0] for index in range(len(images))]) / 250
        found = {}
        for name, options in questions.items():
            found[name] = np.full((len(images), len(options)), 1 / len(options))
            if name in self._channels:
                shown = colours[:, self._channels[name]]
                found[name] = np.stack([shown, 1 - shown, *[0 * shown] * (len(options) - 2)], axis=1)
        return found


class ColourEncoder:
    """Embeds a picture as the first two channels of its colour, and every text along the first."""

    def __init__(self, *args: Any) -> None:
        pass

    def embed_images(self, images: Sequence[Any], unit_length: bool = True) -> Floats:
        return np.array([np.asarray(images[index], float)[0, 0, :2] for index in range(len(images))])

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        return np.tile([1.0, 0.0], (len(texts), 1))


def image_set(folder: Path, side: int) -> Artifact:
    """Make the table and the pictures of one side; the originals stand in the opposite order."""
    folder.mkdir()
    rows = []
    for index, seen in enumerate(SEEN):
        colour = tuple(round(250 * share) for share in (seen[side], seen[2 + side], seen[4 + side]))
        Image.new("RGB", (16, 16), colour).save(folder / f"{index}.png")
        rows.append([index, PROMPTS[index // 4], index // 4, index, seen[6] if side else "", f"{index}.png"])
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        header = ["id", "prompt", "prompt_index", "seed", "option", "path"]
        csv.writer(file).writerows([header, *(rows if side else rows[::-1])])
    steering().write(folder)
    return as_artifact(folder)


@pytest.fixture
def metrics(settings_with: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Give a function that evaluates the images above; the first judge is `judge`, the second `labeler`."""
    judges = {"judge": ByColour({"gender": 0, "age": 1}), "labeler": ByColour({"gender": 2})}
    monkeypatch.setattr(judging, "load_labeler", lambda config, setting: judges[setting])
    monkeypatch.setattr(judging, "ClipJudge", ColourEncoder)
    parents = {name: image_set(tmp_path / name, side) for side, name in enumerate(("originals", "steer"))}

    def evaluated(*words: str) -> dict[str, Any]:
        folder = tmp_path / "evaluate"
        folder.mkdir(exist_ok=True)
        fixed = ("evaluate.bootstrap=50", "evaluate.images_per_prompt=4", "judge.model=first", "labeler.model=second")
        evaluate.run(StageContext(settings_with(*fixed, *words), parents, folder))
        content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
        return content

    return evaluated


def test_obedience_is_the_share_of_images_that_show_what_they_were_steered_to(
    metrics: Callable[..., dict[str, Any]],
) -> None:
    found = metrics()
    assert found["obeyed_by_option"] == {"woman": 1.0, "man": 0.6}
    assert found["obeyed"] == 0.75


def test_what_was_kept_and_how_far_it_drifted_are_of_the_other_attributes_alone(
    metrics: Callable[..., dict[str, Any]],
) -> None:
    """Of age six of eight pairs stay on their side; of what the judge sees nothing of, all do."""
    found = metrics()
    assert found["kept"] == {"age": 6 / 8, "skin_tone": 1, "background": 1, "glasses": 1}
    assert found["drift"]["age"] == pytest.approx(((2.0 - 1.9) / 4 + (1.1 - 0.8) / 4) / 2, abs=1e-6)
    assert found["drift"]["glasses"] == pytest.approx(0)


def test_two_judges_agree_as_far_as_their_table_says(metrics: Callable[..., dict[str, Any]]) -> None:
    found = metrics()["agreement"]
    assert (found["judges"], found["options"]) == (["first", "second"], ["woman", "man"])
    assert found["original"]["table"] == [[4, 2], [0, 2]]
    assert found["steered"]["table"] == [[4, 1], [0, 3]]
    assert (found["original"]["share"], found["steered"]["share"]) == (0.75, 0.875)
    by_chance = (6 * 4 + 2 * 4) / 64
    assert found["original"]["kappa"] == pytest.approx((0.75 - by_chance) / (1 - by_chance))
    by_chance = (5 * 4 + 3 * 4) / 64
    assert found["steered"]["kappa"] == pytest.approx((0.875 - by_chance) / (1 - by_chance))


def test_clip_i_and_clip_t_are_means_over_twins_and_over_each_side(metrics: Callable[..., dict[str, Any]]) -> None:
    found = metrics()
    before, after = (np.array([[row[side], row[2 + side]] for row in SEEN]) for side in (0, 1))
    lengths = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
    twins = (before * after).sum(1) / lengths[0] / lengths[1]
    assert found["clip_i"] == pytest.approx(((twins + 1) / 2).mean(), abs=1e-6)
    for name, side, length in (("clip_t_original", before, lengths[0]), ("clip_t", after, lengths[1])):
        assert found[name] == pytest.approx(((side[:, 0] / length + 1) / 2).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("words", "target", "hard"),
    [
        ([], 0.5, False),
        (["method.target_shares=[0.75,0.25]"], 0.75, False),
        (["evaluate.fd=labels"], 0.5, True),
    ],
)
def test_fd_and_its_companions_are_of_each_prompts_mean(
    metrics: Callable[..., dict[str, Any]], words: list[str], target: float, hard: bool
) -> None:
    found = metrics(*words)
    for side, suffix in enumerate(("_original", "")):
        woman = np.array([row[side] for row in SEEN]).reshape(2, 4)
        labels = (woman > 0.5).mean(1)
        shares = labels if hard else woman.mean(1)
        expected = {
            "fd_labels": np.sqrt(2) * np.abs(labels - target),
            "deviation_ratio": 2 * np.abs(labels - 0.5),
            "fd": np.sqrt(2) * np.abs(shares - target),
            "parity_gap": np.abs(2 * shares - 1),
            "worst_share": np.minimum(shares, 1 - shares),
        }
        for name, values in expected.items():
            figure = found[f"{name}{suffix}"]
            assert list(figure["by_prompt"]) == PROMPTS
            assert list(figure["by_prompt"].values()) == pytest.approx(values.tolist(), abs=1e-6)
            assert figure["mean"] == pytest.approx(values.mean(), abs=1e-6)
    assert found["fd_change"]["mean"] == pytest.approx(found["fd"]["mean"] - found["fd_original"]["mean"])


# Figures of fairness on their own, on probabilities made by hand.
OBEYED = np.eye(2)[np.tile([0, 0, 0, 1], 8)]  # 32 images that show what they were steered to, three quarters woman
TWO_PROMPTS = ["a"] * 16 + ["b"] * 16


def figures(settings: Settings, made_here: bool = True, **changed: Any) -> Fairness:
    given = {"sides": {"original": OBEYED[:, ::-1], "steered": OBEYED}, "wanted": OBEYED.argmax(1)} | changed
    return fairness_figures(settings, given["sides"], TWO_PROMPTS, given["wanted"], made_here)


def test_fixed_quotas_leave_only_unseen_failures_to_chance_in_images_that_obey_and_draws_more(
    settings_with: Compose,
) -> None:
    found = {how: figures(settings_with(f"method.assignment={how}")) for how in ("quota", "image")}
    low, high = found["quota"].fd.interval_95
    assert low == pytest.approx(found["quota"].fd.mean)
    assert low + 0.05 < high < np.sqrt(0.5)  # failures that none of 32 images happens to show
    low, high = found["image"].fd.interval_95
    assert low < found["image"].fd.mean < high
    for how in found:  # nobody fixed what the originals show
        low, high = found[how].fd_original.interval_95
        assert low < found[how].fd_original.mean < high
    low, high = figures(settings_with("method.assignment=quota"), made_here=False).fd.interval_95
    assert low < high


def test_figures_and_intervals_are_towards_the_target(settings_with: Compose) -> None:
    found = figures(settings_with("method.assignment=image", "method.target_shares=[0.75,0.25]"))
    assert found.fd.mean == pytest.approx(0, abs=1e-9)
    low, high = found.fd.interval_95
    assert low == 0 < high < 0.3
    assert found.fd_original.mean == pytest.approx(2**0.5 * 0.5)
    low, high = found.fd_change.interval_95
    assert found.fd_change.mean == pytest.approx(-(2**0.5) * 0.5)
    assert low < found.fd_change.mean < high


def test_the_floor_is_of_how_options_were_drawn_towards_the_target(settings_with: Compose) -> None:
    words = ("evaluate.images_per_prompt=16", "method.target_shares=[0.7,0.3]", "method.draw_size=4")
    for how in ("quota", "image", "batch"):
        settings = settings_with(*words, f"method.assignment={how}")
        rng = np.random.default_rng(settings.seed)
        expected = expected_floor(16, np.array([0.7, 0.3]), how, 4, rng)
        assert figures(settings).fd_floor == pytest.approx(expected)
    floors = [figures(settings_with(*words, f"method.assignment={how}")).fd_floor for how in ("image", "batch")]
    assert 0.05 < floors[0] < floors[1]


def test_the_floor_of_images_from_elsewhere_is_of_what_they_were_steered_to(settings_with: Compose) -> None:
    settings = settings_with("method.target_shares=[0.5,0.5]")
    assert figures(settings, made_here=False).fd_floor == pytest.approx(2**0.5 * 0.25)
    unknown = np.where(np.arange(32) == 5, -1, OBEYED.argmax(1))
    assert figures(settings, made_here=False, wanted=unknown).fd_floor is None


def test_intervals_are_drawn_as_often_as_asked_for_by_the_seed(settings_with: Compose) -> None:
    intervals = [
        figures(settings_with("method.assignment=image", f"evaluate.bootstrap={count}", f"seed={seed}")).fd
        for count, seed in ((200, 0), (200, 0), (200, 1000), (20, 0))
    ]
    assert intervals[0] == intervals[1]
    assert intervals[0] != intervals[2]
    assert intervals[0] != intervals[3]


def test_drift_is_the_mean_total_variation_over_prompts_that_the_judge_saw_on_both_sides() -> None:
    before = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8], [np.nan, np.nan]])
    after = np.array([[0.5, 0.5], [0.5, 0.5], [0.6, 0.4], [0.1, 0.9]])
    assert drift_of(before, after, ["a", "a", "b", "c"]) == pytest.approx((0.25 + 0.4) / 2)
    assert drift_of(before[3:], after[3:], ["c"]) is None
