"""method=prompt: the option in the prompt, an appeal, or nothing; where none is drawn nothing can be obeyed."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.methods.concepts import with_option
from icm_pipeline.methods.prompt import with_appeal
from icm_pipeline.methods.registry import check_method
from icm_pipeline.stages import image_sets
from tests.helpers.running import Run

Compose = Callable[..., Settings]


@pytest.mark.parametrize(
    ("prompt", "option", "expected"),
    [
        ("a face of a doctor", "woman", "a face of a woman doctor"),
        ("a face of an engineer", "man", "a face of a man engineer"),
        ("a face of a doctor", "old", "a face of an old doctor"),
        ("a nurse in the rain", "man", "a man nurse in the rain"),
        ("two doctors", "old", "two doctors, old"),
    ],
)
def test_the_option_stands_behind_the_article_of_the_subject(prompt: str, option: str, expected: str) -> None:
    assert with_option(prompt, option) == expected


def test_the_appeal_is_that_of_the_paper_about_the_prompts_subject() -> None:
    appeal = "if all individuals can be {subject} irrespective of their {attribute}"
    assert with_appeal("a face of a doctor", appeal, "gender") == (
        "a face of a doctor if all individuals can be a doctor irrespective of their gender"
    )


def test_each_image_is_made_of_the_prompt_with_its_own_option(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dict[str, str]()

    def noting(backbone: object, jobs: list[Job]) -> torch.Tensor:
        made.update({job.image_id: job.prompt for job in jobs})
        return denoise(backbone, jobs)  # type: ignore[arg-type]

    monkeypatch.setattr(image_sets, "denoise", noting)
    table = rows(run("steer", "method=prompt"))
    assert {row["option"] for row in table} == {"woman", "man"}
    assert made == {row["id"]: with_option(row["prompt"], row["option"]) for row in table}


def test_where_no_option_is_drawn_nothing_is_obeyed_and_fd_is_there(run: Run) -> None:
    words = ("method=prompt", "method.params.text=ethical")
    assert {row["option"] for row in rows(run("steer", *words))} == {""}
    found = json.loads((run("evaluate", *words) / "metrics.json").read_text())
    assert (found["obeyed"], found["fd_floor"], found["obeyed_by_option"]) == (None, None, {})
    assert {"fd", "fd_labels", "deviation_ratio"} <= found.keys()
    low, high = found["fd"]["interval_95"]
    assert low <= found["fd"]["mean"] <= high
    drawn = json.loads((run("evaluate", "method=prompt") / "metrics.json").read_text())
    assert drawn["obeyed"] is not None


def test_the_same_prompt_gives_the_originals(run: Run) -> None:
    pictures = [
        {path.name: path.read_bytes() for path in (folder / "images").glob("*.png")}
        for folder in (run("originals"), run("steer", "method=prompt", "method.params.text=none"))
    ]
    assert pictures[0] == pictures[1] != {}


def test_a_text_that_is_not_known_and_least_change_without_a_draw_are_refused(compose_settings: Compose) -> None:
    with pytest.raises(ConfigError, match=r"method\.params\.text=ethnic is not known; choose from none, ethical"):
        check_method(compose_settings("method=prompt", "method.params.text=ethnic"))
    with pytest.raises(ConfigError, match=r"method=prompt draws no option"):
        check_method(compose_settings("method=prompt", "method.params.text=none", "method.assignment=least_change"))
    check_method(compose_settings("method=prompt", "method.assignment=least_change"))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
