"""Prompts that name an option: every one knows its option, subject and template, and few of many are balanced."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import SEEDS_PER_STREAM, audited_steps, first_seed
from icm_pipeline.generation.named import named_jobs, named_prompts
from icm_pipeline.methods.naming import named_options

Compose = Callable[..., Settings]


def test_a_prompt_that_names_an_option_has_the_article_that_fits(compose_settings: Compose) -> None:
    texts = {prompt.text for prompt in named_prompts(compose_settings("attribute=age").attribute)}
    assert {"a photo of an old teacher", "a photo of a young engineer"} <= texts
    assert "a photo of a old teacher" not in texts


def test_few_of_many_prompts_have_every_option_of_every_subject_equally_often(compose_settings: Compose) -> None:
    attribute = compose_settings("attribute=skin_tone").attribute
    prompts = named_prompts(attribute)[: 2 * 4 * 10]
    assert set(Counter((prompt.option, prompt.subject) for prompt in prompts).values()) == {2}
    assert len(Counter((prompt.option, prompt.template) for prompt in prompts).values()) == 4 * 10


def test_all_prompts_are_every_option_subject_and_template_once(compose_settings: Compose) -> None:
    attribute = compose_settings().attribute
    prompts = named_prompts(attribute)
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 2 * (4 + 6) * 10
    assert {prompt.subject for prompt in prompts} == {*attribute.probe_subjects, *attribute.trial_subjects}


@pytest.mark.parametrize(
    ("attribute", "world"),
    [("gender", "portraits"), ("gender", "people"), ("age", "portraits"), ("age", "people"),
     ("skin_tone", "portraits"), ("background", "portraits")],
)  # fmt: skip
def test_a_shipped_prompt_names_its_own_option_alone(compose_settings: Compose, attribute: str, world: str) -> None:
    found = compose_settings(f"attribute={attribute}", f"world={world}").attribute
    assert all(named_options(prompt.text, found.words) == {prompt.option} for prompt in named_prompts(found))


@pytest.mark.parametrize(
    "attribute", ["race_4", "race_7", "material", "flower_colour", "painter_style", "pose", "beard"]
)
def test_a_shipped_prompt_never_names_another_option(compose_settings: Compose, attribute: str) -> None:
    found = compose_settings("experiment=sd15_concept", f"attribute={attribute}").attribute
    prompts = named_prompts(found)
    assert {prompt.option for prompt in prompts} == set(found.options)
    assert all(named_options(prompt.text, found.words) <= {prompt.option} for prompt in prompts)


def test_jobs_know_their_option_and_their_prompt(compose_settings: Compose) -> None:
    settings = compose_settings()
    prompts = named_prompts(settings.attribute)
    jobs, options = named_jobs(settings, 210)
    assert len(jobs) == len(options) == len({job.seed for job in jobs}) == 210
    assert [(job.prompt, option) for job, option in zip(jobs, options, strict=True)] == [
        (prompts[job.prompt_index].text, prompts[job.prompt_index].option) for job in jobs
    ]


def test_named_prompts_have_seeds_that_no_other_stream_has() -> None:
    others = [first_seed(seed, stream) for seed in (0, 2**32 - 1) for stream in ("probe", "evaluation", "tuning")]
    named = [first_seed(seed, "named") for seed in (0, 2**32 - 1)]
    assert min(named) - max(others) >= SEEDS_PER_STREAM
    assert named[1] + SEEDS_PER_STREAM < 2**63


def test_an_attribute_that_no_prompt_can_name_is_refused(compose_settings: Compose) -> None:
    settings = compose_settings("attribute=gender")
    settings = replace(settings, attribute=replace(settings.attribute, named={}))
    with pytest.raises(ValueError, match=r"attribute\.named does not say"):
        named_jobs(settings, 4)


@pytest.mark.parametrize(("count", "expected"), [(5, [2, 6, 10, 14, 18]), (1, [10]), (20, list(range(20)))])
def test_audited_steps_are_spread_over_the_recorded_ones(
    compose_settings: Compose, count: int, expected: list[int]
) -> None:
    settings = compose_settings("model.num_steps=20", f"audit.sizes.full.num_steps={count}")
    assert audited_steps(settings) == expected
