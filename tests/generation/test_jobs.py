"""Jobs: every image has a prompt and a seed of its own, whatever dataset it belongs to."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icm_pipeline.config.schema import LARGEST_SEED, Settings
from icm_pipeline.generation.jobs import SEEDS_PER_STREAM, fill_templates, first_seed, make_jobs, tuning_jobs
from icm_pipeline.generation.sampling import SAMPLER_SEED

PROMPTS = ["a face of a nurse", "a face of a doctor", "a face of a firefighter"]


def test_every_template_meets_every_subject_in_order() -> None:
    assert fill_templates(["a {}", "the {}"], ["man", "dog"]) == ["a man", "a dog", "the man", "the dog"]


def test_repeated_prompts_are_made_once() -> None:
    assert fill_templates(["a {}", "a {}"], ["man", "man"]) == ["a man"]


def test_every_prompt_gets_as_many_images_as_asked_for() -> None:
    jobs = make_jobs(PROMPTS, 5, 0, "probe")
    assert {prompt: sum(job.prompt == prompt for job in jobs) for prompt in PROMPTS} == dict.fromkeys(PROMPTS, 5)


@settings(deadline=None)  # the first example waits for a busy machine
@given(num_prompts=st.integers(1, 7), images=st.integers(1, 9), seed=st.integers(0, 10_000))
def test_no_two_jobs_share_a_seed_or_an_id(num_prompts: int, images: int, seed: int) -> None:
    prompts = [f"prompt {index}" for index in range(num_prompts)]
    jobs = make_jobs(prompts, images, seed, "probe") + make_jobs(prompts, images, seed, "evaluation")
    assert len({job.seed for job in jobs}) == len(jobs)
    assert len({job.image_id for job in jobs}) == num_prompts * images


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), other=st.integers(0, 10_000), num=st.integers(1, 50))
def test_the_streams_of_all_seeds_are_disjoint(seed: int, other: int, num: int) -> None:
    probe = {job.seed for job in make_jobs(["a"], num, seed, "probe")}
    evaluation = {job.seed for job in make_jobs(["a"], num, other, "evaluation")}
    assert not probe & evaluation
    assert seed == other or not probe & {job.seed for job in make_jobs(["a"], num, other, "probe")}


@settings(deadline=None)
@given(seed=st.integers(0, LARGEST_SEED), other=st.integers(0, LARGEST_SEED))
def test_trials_have_seeds_that_no_dataset_and_no_other_seed_has(seed: int, other: int) -> None:
    trial = first_seed(seed, "tuning")
    theirs = [first_seed(other, stream) for stream in ("probe", "evaluation", *(["tuning"] if seed != other else []))]
    assert all(abs(trial - first) >= SEEDS_PER_STREAM for first in theirs)
    assert trial + SEEDS_PER_STREAM + SAMPLER_SEED < 2**63


def test_the_same_arguments_give_the_same_jobs() -> None:
    assert make_jobs(PROMPTS, 4, 3, "probe") == make_jobs(PROMPTS, 4, 3, "probe")


def test_another_seed_gives_other_noise_and_the_same_ids() -> None:
    jobs, others = make_jobs(PROMPTS, 4, 0, "probe"), make_jobs(PROMPTS, 4, 1, "probe")
    assert [job.image_id for job in jobs] == [job.image_id for job in others]
    assert not {job.seed for job in jobs} & {job.seed for job in others}


@pytest.mark.parametrize("far", [1000, 10_000, 2**16, 2**31])
def test_seeds_far_apart_give_other_noise_too(far: int) -> None:
    near = {job.seed for job in make_jobs(PROMPTS, 50, 0, "probe")}
    assert not near & {job.seed for job in make_jobs(PROMPTS, 50, far, "probe")}


def test_more_images_keep_the_jobs_there_were() -> None:
    assert make_jobs(PROMPTS, 6, 0, "probe")[: 3 * 4] == make_jobs(PROMPTS, 4, 0, "probe")


def test_any_leading_part_covers_the_prompts_evenly() -> None:
    jobs = make_jobs(PROMPTS, 4, 0, "evaluation")
    for end in range(1, len(jobs) + 1):
        counts = [sum(job.prompt_index == index for job in jobs[:end]) for index in range(len(PROMPTS))]
        assert max(counts) - min(counts) <= 1


def test_the_prompt_index_points_to_the_prompt() -> None:
    assert all(PROMPTS[job.prompt_index] == job.prompt for job in make_jobs(PROMPTS, 4, 0, "probe"))


def test_ids_sort_in_the_order_of_the_jobs() -> None:
    ids = [job.image_id for job in make_jobs(PROMPTS, 40, 0, "probe")]
    assert ids == sorted(ids)


def test_more_images_than_a_stream_has_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="images_per_prompt"):
        make_jobs(["a", "b"], SEEDS_PER_STREAM // 2 + 1, 0, "probe")


def test_an_unknown_stream_is_refused() -> None:
    with pytest.raises(KeyError):
        make_jobs(PROMPTS, 1, 0, "training")


@pytest.mark.parametrize(("name", "words"), [("probe_subjects", "[]"), ("trial_subjects", "[nurse]")])
def test_trials_that_are_all_evaluated_name_the_subjects_that_made_them(
    settings_with: Callable[..., Settings], name: str, words: str
) -> None:
    found = settings_with(
        "attribute.probe_templates=['a face of a {}']", "attribute.probe_subjects=[nurse]",
        f"attribute.trial_subjects={words}", "attribute.evaluation_prompts=[a face of a nurse]",
    )  # fmt: skip
    with pytest.raises(ValueError, match=rf"Every prompt of attribute\.{name} is evaluated"):
        tuning_jobs(found, 4)


def test_trials_leave_out_the_subjects_that_are_evaluated_in_whatever_template(
    settings_with: Callable[..., Settings],
) -> None:
    found = settings_with(
        "attribute.probe_templates=['a face of a {}','a photo of a {}']",
        "attribute.trial_subjects=[engineer,judge]", "attribute.evaluation_prompts=[a face of an engineer]",
    )  # fmt: skip
    assert {job.prompt for job in tuning_jobs(found, 8)} == {"a face of a judge", "a photo of a judge"}


def test_trials_of_subjects_that_are_all_evaluated_leave_out_those_words_with_either_article(
    settings_with: Callable[..., Settings],
) -> None:
    found = settings_with(
        "attribute.probe_templates=['a face of a {}','a photo of a {}']",
        "attribute.trial_subjects=[engineer]", "attribute.evaluation_prompts=[a face of an engineer]",
    )  # fmt: skip
    assert {job.prompt for job in tuning_jobs(found, 8)} == {"a photo of a engineer"}
