"""A sweep read back from its folder: what was varied, the front, what is left out and why, and the report on it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from icm_pipeline.images.table import COLUMNS
from icm_pipeline.report.figures.sweep import sweep_axes, sweep_series
from icm_pipeline.report.sweep_report import report_sweep
from icm_pipeline.report.wording import phrase
from icm_pipeline.results.sweeps import STOPPED, Sweep, SweepJob, read_sweep, sweep_name, write_result
from icm_pipeline.store.files import hash_file
from tests.helpers.results import PROMPTS, evaluation, steering, write_artifact


def write_images(folder: Path, stage: str, color: str) -> Path:
    (folder / "images").mkdir(parents=True)
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for index in range(8):
            path = f"images/{index:06d}.png"
            Image.new("RGB", (8, 8), color).save(folder / path)
            option = ("woman", "man")[index // 2 % 2] if stage == "steer" else ""
            writer.writerow([f"{index:06d}", PROMPTS[index % 2], index % 2, index, option, path])
    return write_artifact(folder, stage)


@pytest.fixture
def add_job(tmp_path: Path) -> Callable[..., None]:
    """Give a function that adds one finished job to the sweep `tmp_path/sweep`, with its artifacts in `outputs`."""
    originals = write_images(tmp_path / "outputs/artifacts/originals/o", "originals", "gray")

    def add(
        number: int | str,
        fd: float,
        clip_i: float,
        words: tuple[str, ...] = (),
        model: str = "tiny",
        judged: str = "labels",
        **changed: Any,
    ) -> None:
        artifacts = tmp_path / "outputs" / "artifacts"
        evaluated = artifacts / "evaluate" / f"e{number}"
        evaluated.mkdir(parents=True)
        found = evaluation(fd, model=model, clip_i=clip_i, steering=steering(**{"alpha": 2.0, **changed}))
        found.write(evaluated)
        folders = {
            "evaluate": write_artifact(
                evaluated, "evaluate", parents={"originals": model}, settings={"config": {"evaluate.fd": judged}}
            ),
            "steer": write_images(artifacts / "steer" / f"s{number}", "steer", "red"),
            "originals": originals,
        }
        job = tmp_path / "sweep" / str(number)
        job.mkdir(parents=True)
        write_result(job, list(words), {name: str(folder) for name, folder in folders.items()})

    return add


def read(tmp_path: Path) -> Sweep:
    return read_sweep(tmp_path / "sweep", tmp_path / "outputs")


def test_jobs_come_in_the_order_of_their_numbers(tmp_path: Path, add_job: Callable[..., None]) -> None:
    for number in (10, 2, 1):
        add_job(number, 0.1, 0.9)
    assert [job.name for job in read(tmp_path).jobs] == ["1", "2", "10"]


def test_jobs_in_folders_of_folders_are_found_and_named_by_both(tmp_path: Path, add_job: Callable[..., None]) -> None:
    for name in ("a/10", "a/2", "b=1/0"):
        add_job(name, 0.1, 0.9)
    assert [job.name for job in read(tmp_path).jobs] == ["a/2", "a/10", "b=1/0"]


def test_what_differs_between_the_jobs_is_found(tmp_path: Path, add_job: Callable[..., None]) -> None:
    add_job(0, 0.3, 0.9, ("alpha=2", "probe.C=0.1", "layers.k=2"))
    add_job(1, 0.2, 0.8, ("alpha=4", "probe.C=1", "layers.k=3"), alpha=4.0, layers=["a", "b", "c"])
    sweep = read(tmp_path)
    assert sweep.varied() == ["k", "alpha", "probe.C"]
    assert [sweep.jobs[1].factors[name] for name in sweep.varied()] == [3, 4.0, 1]


def test_the_front_holds_what_nothing_else_beats_in_both(tmp_path: Path, add_job: Callable[..., None]) -> None:
    for number, (fd, clip_i) in enumerate([(0.1, 0.8), (0.2, 0.9), (0.2, 0.85), (0.3, 0.9), (0.05, 0.7)]):
        add_job(number, fd, clip_i)
    assert read(tmp_path).front() == [True, True, False, False, True]


def test_a_judges_rounding_puts_nothing_on_the_front(tmp_path: Path, add_job: Callable[..., None]) -> None:
    add_job(0, 2e-9, 0.97)
    add_job(1, 1e-9, 0.91)
    add_job(2, 0.0, 0.97)
    assert read(tmp_path).front() == [True, False, True]


def test_equal_results_are_on_the_front_together(tmp_path: Path, add_job: Callable[..., None]) -> None:
    for number in (0, 1):
        add_job(number, 0.1, 0.8)
    assert read(tmp_path).front() == [True, True]


def test_a_job_is_compared_with_jobs_of_the_same_originals_and_judging_only(
    tmp_path: Path, add_job: Callable[..., None]
) -> None:
    add_job(0, 0.1, 0.9)
    add_job(1, 0.2, 0.8)
    add_job(2, 0.2, 0.8, model="other")
    add_job(3, 0.3, 0.7, judged="probabilities")
    assert read(tmp_path).front() == [True, False, True, True]


def test_jobs_without_a_result_are_left_out_with_the_reason(tmp_path: Path, add_job: Callable[..., None]) -> None:
    add_job(0, 0.1, 0.9)
    for name in ("1", "2", "3", "4", "5"):
        (tmp_path / "sweep" / name / ".hydra").mkdir(parents=True)
    write_result(tmp_path / "sweep/1", [], {}, "layers.k=99 is more than the 12 layers")
    write_result(tmp_path / "sweep/3", [], {"select": "/nowhere"})
    (tmp_path / "sweep/4/result.json").write_text('{"overr')
    write_result(tmp_path / "sweep/5", [], {}, STOPPED)
    sweep = read(tmp_path)
    assert [job.name for job in sweep.jobs] == ["0"]
    assert sweep.left_out["1"] == "failed: layers.k=99 is more than the 12 layers"
    assert sweep.left_out["2"] == "did not finish"
    assert sweep.left_out["3"].startswith("has no evaluation")
    assert "cannot be read" in sweep.left_out["4"]
    assert sweep.left_out["5"] == "was stopped"


def test_a_job_that_judged_a_folder_is_left_out_with_the_place_of_its_figures(
    tmp_path: Path, add_job: Callable[..., None]
) -> None:
    for number in (0, 1):
        add_job(number, 0.1, 0.9)
    evaluated = tmp_path / "outputs/artifacts/evaluate/e1"
    evaluation(steering=None, clip_i=None).write(evaluated)
    write_artifact(evaluated, "evaluate")
    sweep = read(tmp_path)
    assert [job.name for job in sweep.jobs] == ["0"]
    assert sweep.left_out["1"] == f"judged a folder of images; its figures are in {evaluated}"


def test_a_damaged_evaluation_is_left_out_by_name(tmp_path: Path, add_job: Callable[..., None]) -> None:
    add_job(0, 0.1, 0.9)
    add_job(1, 0.2, 0.9)
    (tmp_path / "outputs/artifacts/evaluate/e1/metrics.json").write_text("{}")
    assert "is damaged" in read(tmp_path).left_out["1"]


@pytest.mark.parametrize("content", [None, "empty"])
def test_a_folder_that_is_no_sweep_is_refused(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "sweep").mkdir()
    with pytest.raises(ValueError, match="Give the folder that a multirun printed"):
        read(tmp_path)


def test_a_sweep_in_which_nothing_finished_is_refused_with_every_reason(tmp_path: Path) -> None:
    (tmp_path / "sweep/0/.hydra").mkdir(parents=True)
    with pytest.raises(ValueError, match="job 0: did not finish"):
        read(tmp_path)


def test_a_sweep_moved_with_its_outputs_is_found_there(tmp_path: Path, add_job: Callable[..., None]) -> None:
    add_job(0, 0.1, 0.9)
    moved = tmp_path / "elsewhere"
    (tmp_path / "outputs").rename(moved)
    (job,) = read_sweep(tmp_path / "sweep", moved).jobs
    assert job.steered is not None
    assert job.steered.folder.is_relative_to(moved)


@pytest.mark.parametrize(
    ("names", "changed", "words"),
    [
        (["alpha", "k"], {}, "k = 2, alpha 2"),
        (["alpha"], {"alpha": "auto"}, "alpha auto"),
        (["rule", "k"], {"rule": "worst"}, "worst 2"),
        (["kind"], {"kind": "cross_attention"}, "best 2 cross-attention"),
        (["first_step", "last_step"], {"first_step": 5, "last_step": 9}, "steps 5 to 9"),
        (["first_step", "last_step"], {"first_step": 5}, "steps 5 to the end"),
        (["first_step"], {"first_step": 5, "last_step": 9}, "from step 5"),
        (["last_step"], {"last_step": 9}, "to step 9"),
    ],
)
def test_a_job_is_named_by_what_was_varied(
    tmp_path: Path, add_job: Callable[..., None], names: list[str], changed: dict[str, Any], words: str
) -> None:
    add_job(0, 0.1, 0.9, **changed)
    assert phrase(read(tmp_path).jobs[0].factors, names) == words


def test_jobs_of_methods_of_their_own_are_named_by_these_alone(tmp_path: Path, add_job: Callable[..., None]) -> None:
    for number, method in enumerate(("icm", "leace")):
        add_job(number, 0.1, 0.9, method=method, alpha=1.0 + number)
    assert read(tmp_path).varied() == ["method", "alpha"]
    assert read(tmp_path).telling() == ["method"]
    add_job(2, 0.1, 0.9, method="leace", alpha=1.0)
    assert read(tmp_path).telling() == ["method", "alpha"]


def test_a_line_joins_the_jobs_that_differ_in_one_factor(tmp_path: Path, add_job: Callable[..., None]) -> None:
    for number, (alpha, k) in enumerate([(4.0, 1), (2.0, 1), (2.0, 2)]):
        add_job(number, 0.1, 0.9, alpha=alpha, layers=["l"] * k)
    sweep = read(tmp_path)
    assert sweep_axes(sweep) == ["k", "alpha"]
    lines = {name: [job.name for job in jobs] for name, jobs in sweep_series(sweep, "alpha").items()}
    assert lines == {"k = 1": ["1", "0"], "k = 2": ["2"]}


def test_the_jobs_of_a_search_are_points_of_one_series(tmp_path: Path, add_job: Callable[..., None]) -> None:
    for number, (alpha, first) in enumerate([(1.5, 4), (2.5, 1), (3.5, 2)]):
        add_job(number, 0.1, 0.9, alpha=alpha, first_step=first)
    series = sweep_series(read(tmp_path), "first_step")
    assert {name: [job.name for job in jobs] for name, jobs in series.items()} == {"": ["1", "2", "0"]}


def test_nothing_is_drawn_against_a_number_that_came_with_another_rule(
    tmp_path: Path, add_job: Callable[..., None]
) -> None:
    add_job(0, 0.1, 0.9)
    add_job(1, 0.1, 0.9, rule="all", layers=["l"] * 12)
    assert sweep_series(read(tmp_path), "k") == {}


def test_a_varied_rule_is_no_axis(tmp_path: Path, add_job: Callable[..., None]) -> None:
    add_job(0, 0.1, 0.9)
    add_job(1, 0.1, 0.9, rule="worst")
    assert sweep_axes(read(tmp_path)) == []


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in folder.iterdir()}


def test_the_report_has_table_page_and_figures_and_is_the_same_twice(
    tmp_path: Path, add_job: Callable[..., None]
) -> None:
    for number, (alpha, fd, clip_i) in enumerate([(1.0, 0.4, 0.95), (2.0, 0.2, 0.9), (4.0, 0.3, 0.8)]):
        add_job(number, fd, clip_i, alpha=alpha)
    folder = report_sweep(read(tmp_path))
    first = hashes(folder)
    assert set(first) == {
        "sweep.csv", "sweep.md", "report.html", "overview.png", "front.png", "against_alpha.png", "strips.png",
    }  # fmt: skip
    with (folder / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["alpha"], row["fd"], row["front"]) for row in rows] == [
        ("1.0", "0.4", "True"), ("2.0", "0.2", "True"), ("4.0", "0.3", "False"),
    ]  # fmt: skip
    page = (folder / "sweep.md").read_text()
    assert all(f"({name})" in page for name in first if name.endswith(".png"))
    assert "| 1 | 2 | 0.600 | 0.200 | 0.10 to 0.40 | 0.900 | 75% | 50% | * |" in page
    assert all("Caution: intervals of 8 images" in text for text in (page, (folder / "report.html").read_text("utf-8")))
    report_sweep(read(tmp_path))
    assert hashes(folder) == first
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["0", "1", "2", "report"]


def test_a_single_job_without_images_can_be_reported(tmp_path: Path, add_job: Callable[..., None]) -> None:
    add_job(0, 0.1, 0.9)
    sweep = read(tmp_path)
    (job,) = sweep.jobs
    bare = Sweep(sweep.folder, (SweepJob(job.name, job.subject, job.factors, job.evaluation),), {})
    assert set(hashes(report_sweep(bare))) == {"sweep.csv", "sweep.md", "report.html", "overview.png", "front.png"}


def test_the_page_names_settings_as_they_are_written(tmp_path: Path, add_job: Callable[..., None]) -> None:
    words = ("evaluate.images_per_prompt=4", "layers.names=[a,b]")
    add_job(0, 0.1, 0.9, (*words, "model.num_steps=6"), model="x")
    add_job(1, 0.1, 0.9, (*words, "model.num_steps=8"), model="y")
    page = (report_sweep(read(tmp_path)) / "sweep.md").read_text()
    assert "| job | model | model.num_steps | FD before |" in page
    assert "evaluate.images_per_prompt 4, layers.names [a,b]." in page
    assert "alpha unit relative" in page
    assert page.startswith("# Sweep sweep: 2 jobs\n")


def test_a_sweep_of_one_job_is_one_job(tmp_path: Path, add_job: Callable[..., None]) -> None:
    add_job(0, 0.1, 0.9)
    page = (report_sweep(read(tmp_path)) / "sweep.md").read_text()
    assert page.startswith("# Sweep sweep: 1 job\n")


def test_a_sweep_is_named_with_its_day() -> None:
    assert sweep_name(Path("multirun/2026-01-31/20-15-00")) == "2026-01-31_20-15-00"
    assert sweep_name(Path("sweeps/night")) == "night"


def test_what_a_job_leaves_can_be_read_back(tmp_path: Path) -> None:
    write_result(tmp_path, ["alpha=2"], {"steer": "/x"})
    assert json.loads((tmp_path / "result.json").read_text()) == {
        "overrides": ["alpha=2"], "artifacts": {"steer": "/x"}, "error": None,
    }  # fmt: skip
