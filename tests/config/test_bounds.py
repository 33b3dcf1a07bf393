"""What a setting may be on its own: its choices and its bounds, and the message that tells them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from icm_pipeline.config.bounds import CHOICES, SEEDS, Bounds
from icm_pipeline.config.schema import ConfigError, Settings, value_at
from icm_pipeline.generation.jobs import SEEDS_PER_STREAM, make_jobs
from icm_pipeline.generation.sampling import SAMPLER_SEED

Compose = Callable[..., Settings]


@pytest.mark.parametrize("alpha", ["nan", "inf", "-inf"])
def test_an_alpha_that_is_no_finite_number_is_refused(settings_with: Compose, alpha: str) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        settings_with(f"alpha={alpha}")


@pytest.mark.parametrize("alpha", ["0", "-15", "1e3"])
def test_any_finite_alpha_is_accepted(settings_with: Compose, alpha: str) -> None:
    assert settings_with(f"alpha={alpha}").alpha == float(alpha)


@pytest.mark.parametrize("dotted", CHOICES)
def test_an_unknown_choice_is_refused_and_the_choices_are_listed(settings_with: Compose, dotted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_with(f"{dotted}=nonsense")
    message = str(caught.value)
    assert f"{dotted}=nonsense" in message
    assert all(choice in message for choice in CHOICES[dotted])


@pytest.mark.parametrize(("dotted", "choice"), [(d, c) for d, choices in CHOICES.items() for c in choices])
def test_every_listed_choice_is_accepted(settings_with: Compose, dotted: str, choice: str) -> None:
    assert value_at(settings_with(f"{dotted}={choice}"), dotted) == choice


@pytest.mark.parametrize(
    "word",
    [
        "model.num_steps=0",
        "model.batch_size=0",
        "layers.k=0",
        "layers.k=-1",
        "generate.images_per_prompt=0",
        "generate.shard_size=0",
        "evaluate.images_per_prompt=0",
        "timesteps.count=0",
        "timesteps.start=-0.1",
        "method.first_step=-1",
        "probe.max_iter=0",
        "probe.min_per_option=1",
        "shards=0",
        "shard=1",
        "shard=-1",
        "evaluate.bootstrap=-1",
        "evaluate.bootstrap=0",
        "probe.test_share=0",
        "probe.test_share=1",
        "probe.test_share=nan",
        "probe.C=0",
        "probe.C=-1",
        "probe.C=inf",
        "probe.C=nan",
        "timesteps.start=1",
        "method.first_step=20",
        "seed=-1",
        "model.num_threads=0",
        "model.decode_batch_size=0",
        "labeler.batch_size=0",
        "judge.batch_size=0",
        "evaluate.clip.batch_size=0",
        "model.guidance_scale=nan",
        "method.draw_size=0",
        "method.last_step=-1",
        "seed=4294967296",
        "seed=99999999999999999999",
        "layers.seed=-1",
        "pretrain.num_portraits=0",
        "pretrain.num_held_out=0",
        "pretrain.num_quality_images=0",
        "pretrain.steps.clip=0",
        "pretrain.batch_sizes.diffusion=0",
        "pretrain.learning_rates.tiny_flux=0",
    ],
)
def test_a_number_out_of_range_is_refused_by_name(settings_with: Compose, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_with(word)
    assert word.split("=")[0] in str(caught.value)


@pytest.mark.parametrize(
    "word",
    [
        "model.num_steps=1 method.first_step=0",
        "layers.k=1",
        "probe.min_per_option=2",
        "timesteps.start=0.99",
        "method.first_step=19",
        "probe.test_share=0.99",
        "method.last_step=19",
        "model.num_threads=1",
        "model.decode_batch_size=1",
        "model.grow_batch=true model.device=cuda",
        "seed=4294967295",
        "pretrain.num_portraits=1 pretrain.steps.clip=1",
    ],
)
def test_the_last_value_within_range_is_accepted(settings_with: Compose, word: str) -> None:
    settings_with(*word.split())


@pytest.mark.parametrize("word", ["labeler.faces=some", "judge.faces=some", "labeler.kind=oracle"])
def test_an_unknown_judge_or_choice_of_faces_is_refused_with_the_choices(settings_with: Compose, word: str) -> None:
    with pytest.raises(ConfigError, match=rf"{word.split('=')[0]}=.*Choose one of"):
        settings_with(word)


@pytest.mark.parametrize("seconds", ["0", "-1", "inf"])
def test_seconds_an_image_that_no_image_can_take_are_refused(settings_with: Compose, seconds: str) -> None:
    with pytest.raises(ConfigError, match=r"plan.seconds_per_image"):
        settings_with(f"plan.seconds_per_image={seconds}")


@pytest.mark.parametrize(
    ("bounds", "admitted", "refused", "said"),
    [
        (Bounds(), [0, -1.5, 10**400], [math.nan, math.inf, None], "a finite number"),
        (Bounds(least=0, most=2), [0, 2], [-1, 3], "at least 0 and at most 2"),
        (Bounds(above=0, below=1), [0.5], [0, 1, math.nan], "more than 0 and less than 1"),
        (Bounds(least=1, null="every step"), [1, None], [0], "at least 1, or null for every step"),
    ],
)
def test_bounds_admit_what_they_say(bounds: Bounds, admitted: list, refused: list, said: str) -> None:
    assert all(bounds.admit(value) for value in admitted)
    assert not any(bounds.admit(value) for value in refused)
    assert str(bounds) == said


@pytest.mark.parametrize("dotted", ["model.decode_batch_size", "model.num_threads", "timesteps.count"])
def test_null_is_accepted_where_it_stands_for_something(settings_with: Compose, dotted: str) -> None:
    assert value_at(settings_with(f"{dotted}=null"), dotted) is None


@pytest.mark.parametrize("stream", ["probe", "evaluation"])
def test_every_seed_that_is_accepted_makes_images(stream: str) -> None:
    assert SEEDS.most is not None
    last = make_jobs(["a face"], SEEDS_PER_STREAM, SEEDS.most, stream)[-1]
    torch.Generator().manual_seed(last.seed + SAMPLER_SEED)
    np.random.RandomState(SEEDS.most)  # of KID's subsets
