"""Which prompts are evaluated, as choices of configuration; and the target shares of each prompt, from a CSV."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.fairness import fairness_figures
from icm_pipeline.generation.jobs import evaluation_jobs, tuning_prompts
from icm_pipeline.methods.assignment import assign_options, shares_of_jobs, target_by_prompt
from icm_pipeline.metrics.intervals import bootstrap_interval
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pretrain.world import OCCUPATIONS

Compose = Callable[..., Settings]
PAPER = ["doctor", "firefighter", "nurse", "receptionist"]


def test_the_papers_set_and_that_of_the_whole_embedded_world_are_choices(compose_settings: Compose) -> None:
    assert compose_settings("evaluation=paper").attribute.evaluation_prompts == [f"a face of a {who}" for who in PAPER]
    world = compose_settings("evaluation=world").attribute.evaluation_prompts
    assert [prompt.split()[-1] for prompt in world] == [who for who in OCCUPATIONS if who != "person"]
    assert "a face of an engineer" in world
    assert compose_settings().attribute.evaluation_prompts == [f"a face of a {who}" for who in PAPER]


def test_winobias_is_36_occupations_with_five_templates_and_fits_any_attribute(compose_settings: Compose) -> None:
    prompts = compose_settings("evaluation=winobias", "model=sd15", "attribute=race_4").attribute.evaluation_prompts
    assert len(set(prompts)) == len(prompts) == 180
    for template in ("an image", "a picture", "a photo", "a headshot", "a portrait"):
        assert sum(prompt.startswith(f"{template} of a") for prompt in prompts) == 36
    assert {"a photo of an analyst", "a headshot of a CEO", "a portrait of a construction worker"} <= set(prompts)
    assert not {"a photo of an auditor", "a photo of a mover"} & set(prompts)


def test_a_set_that_is_named_beats_that_of_an_experiment(compose_settings: Compose) -> None:
    fresh = compose_settings("experiment=fresh").attribute.evaluation_prompts
    assert [prompt.split()[-1] for prompt in fresh] == ["teacher", "mechanic", "engineer", "librarian"]
    assert compose_settings("experiment=age").attribute.evaluation_prompts == fresh
    assert len(compose_settings("experiment=bench", "evaluation=world").attribute.evaluation_prompts) == 10
    assert tuning_prompts(compose_settings("experiment=bench", "evaluation=world"))


def table(path: Path, columns: list[str], *rows: list[str]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return f"method.shares_table={path}"


def test_each_prompt_is_steered_to_its_own_shares_of_a_table(settings_with: Compose, tmp_path: Path) -> None:
    rows = [["nurse", "0.75", "0.25"], ["doctor", "0.5", "0.5"], ["firefighter", "0.25", "0.75"],
            ["receptionist", "1", "0"], ["chef", "0.5", "0.5"]]  # fmt: skip
    settings = settings_with(table(tmp_path / "t.csv", ["subject", "woman", "man"], *rows))
    jobs = evaluation_jobs(settings)
    options = assign_options([job.prompt_index for job in jobs], shares_of_jobs(settings, jobs), "quota", 1, 0)
    women = {
        job.prompt.split()[-1]: int((options[[other.prompt == job.prompt for other in jobs]] == 0).sum())
        for job in jobs
    }
    assert women == {"doctor": 12, "firefighter": 6, "nurse": 18, "receptionist": 24}
    for how in ("image", "batch"):
        drawn = assign_options([job.prompt_index for job in jobs], shares_of_jobs(settings, jobs), how, 4, 0)
        assert (drawn[[job.prompt.endswith("receptionist") for job in jobs]] == 0).all()


def test_fd_its_floor_and_its_interval_are_against_the_shares_of_each_prompt(settings_with: Compose) -> None:
    names = ("nurse", "doctor")
    words = [
        f"method.shares_by_prompt.a face of a {name}=[{share},{1 - share}]"
        for name, share in zip(names, (1, 0.5), strict=True)
    ]
    settings = settings_with(
        *words, "attribute.evaluation_prompts=[a face of a nurse,a face of a doctor]", "evaluate.images_per_prompt=4"
    )
    prompts = [f"a face of a {name}" for name in names for _ in range(4)]
    shown = np.eye(2)[[0, 0, 0, 0, 0, 0, 1, 1]]
    found = fairness_figures(settings, {"steered": shown}, prompts, shown.argmax(1), made_here=True)
    assert found.fd.by_prompt == {"a face of a nurse": 0.0, "a face of a doctor": 0.0}
    assert found.fd_floor == 0
    turned = fairness_figures(settings, {"steered": shown[::-1]}, prompts, shown.argmax(1), made_here=True)
    assert turned.fd.by_prompt["a face of a nurse"] == pytest.approx(np.sqrt(0.5))
    assert turned.fd.by_prompt["a face of a doctor"] == pytest.approx(np.sqrt(0.5))
    goal = target_by_prompt(settings)
    low, high = bootstrap_interval(shown, prompts, 50, np.random.default_rng(0), goal)
    assert low == 0.0 <= high
    with pytest.raises(ValueError, match="no target shares for 'a face of a judge'"):
        bootstrap_interval(shown, ["a face of a judge"] * 8, 5, np.random.default_rng(0), goal)


def test_devrat_pools_the_templates_of_an_occupation_and_fd_does_not(settings_with: Compose) -> None:
    pairs = [("a photo of a nurse", 0), ("a portrait of a nurse", 1), ("a photo of an analyst", 0)]
    prompts, shown = (
        [prompt for prompt, _ in pairs for _ in range(4)],
        np.eye(2)[[o for _, o in pairs for _ in range(4)]],
    )
    listed = ",".join(prompt for prompt, _ in pairs)
    settings = settings_with(f"attribute.evaluation_prompts=[{listed}]", "evaluate.images_per_prompt=4")
    found = fairness_figures(settings, {"steered": shown}, prompts, shown.argmax(1), made_here=True)
    assert found.deviation_ratio is not None and found.fd_labels is not None
    assert found.deviation_ratio.by_prompt == {"a nurse": 0.0, "a photo of an analyst": 1.0}
    assert found.deviation_ratio.mean == 0.5
    assert found.fd_labels.by_prompt == dict.fromkeys([prompt for prompt, _ in pairs], pytest.approx(np.sqrt(0.5)))
    assert list(found.fd.by_prompt) == [prompt for prompt, _ in pairs]


def test_the_shares_of_a_table_and_not_its_place_are_in_the_keys(settings_with: Compose, tmp_path: Path) -> None:
    prompts = settings_with().attribute.evaluation_prompts

    def key(name: str, share: float, *words: str) -> str:
        rows = [[prompt, str(share), str(1 - share)] for prompt in prompts]
        return Keys(settings_with(table(tmp_path / name, ["prompt", "woman", "man"], *rows), *words)).key("steer")

    assert key("a.csv", 0.25) == key("b.csv", 0.25)
    assert key("a.csv", 0.25) not in (key("a.csv", 0.5), Keys(settings_with()).key("steer"))


@pytest.mark.parametrize(
    ("columns", "rows", "said"),
    [
        (["subject", "woman"], [["nurse", "1"]], "lacks the column man; it has: subject, woman"),
        (["who", "woman", "man"], [["nurse", "1", "0"]], "lacks the column prompt or subject"),
        (["subject", "woman", "man"], [["nurse", "1", "0"]], "no shares for 3 evaluation prompts, the first"),
        (["subject", "woman", "man"], [["nurse", "0.6", "0.6"]], "of sum 1"),
        (["subject", "woman", "man"], [["nurse", "-1", "2"]], "non-negative"),
        (["subject", "woman", "man"], [["nurse", "half", "0.5"]], "share of woman for 'nurse' is 'half', no number"),
        (["subject", "woman", "man"], [["nurse", "1"]], "the share of man for 'nurse' is None, no number"),
        (["subject", "woman", "man"], [["nurse", "1", "0"], ["nurse ", "0", "1"]], "subject 'nurse' more than once"),
        (["prompt", "woman", "man"], [["a nurse", "1", "0"]] * 2, "the prompt 'a nurse' more than once"),
        (["subject", "woman", "man", "woman"], [["nurse", "1", "0", "0"]], "the column 'woman' more than once"),
        (["subject", "woman", "man", "other"], [["nurse", "1", "0", "0"]], "the column other, which is no option"),
        (["subject", "woman", "man"], [["nurse", "0", "5", "0", "5"]], "than named columns: nurse, 0, 5, 0, 5"),
        (["subject", "woman", "man", ""], [["nurse", "1", "0", "5"]], "more cells than named columns"),
        (["subject", "woman", "man"], [["", "1", "0"]], "a row without its subject: , 1, 0"),
        (["subject", "woman", "man"], [["nurse", "", "1"]], "share of woman for 'nurse' is '', no number"),
        (["subject;woman;man"], [["nurse;0,5;0,5"]], "separated by semicolons"),
        (["subject", "woman", "man"], [["pilot", "1", "0"]], "names no prompt of attribute.evaluation_prompts"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_say_what_each_prompt_gets_is_refused(
    settings_with: Compose, tmp_path: Path, columns: list[str], rows: list[list[str]], said: str
) -> None:
    wrong = table(tmp_path / "t.csv", columns, *rows)
    prompts = [] if "first" in said else ["attribute.evaluation_prompts=[a face of a nurse]"]
    with pytest.raises(ConfigError, match=said):
        settings_with(wrong, *prompts)


def test_a_table_is_read_and_does_not_stand_beside_other_shares(settings_with: Compose, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        settings_with(f"method.shares_table={tmp_path / 'none.csv'}")
    one = ("attribute.evaluation_prompts=[a face of a nurse]",)
    right = table(tmp_path / "t.csv", ["subject", "woman", "man"], ["nurse", "0.5", "0.5"])
    with pytest.raises(ConfigError, match="exclude each other"):
        settings_with(right, *one, "method.target_shares=[0.5,0.5]")
    with pytest.raises(ConfigError, match="learns one set of shares"):
        check_stage(settings_with(right, *one, "method.name=uce"))
    with pytest.raises(ConfigError, match="do not go with an audit"):
        check_stage(settings_with(right, *one, "audit.included=true"))
    check_stage(settings_with(right, *one))


def test_blanks_around_names_and_rows_of_blanks_do_not_count(settings_with: Compose, tmp_path: Path) -> None:
    rows = [["", "", ""], [" nurse ", " 0.25", "0.75", ""], [], [" "]]
    given = table(tmp_path / "t.csv", ["subject ", "woman", " man", ""], *rows)
    settings = settings_with(given, "attribute.evaluation_prompts=[a face of a nurse]")
    assert dict(settings.method.shares_by_prompt) == {"a face of a nurse": [0.25, 0.75]}
