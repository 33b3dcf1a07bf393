"""What a setting may be on its own: every field of the schema that has choices or bounds is checked, and told."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from icm_pipeline.config.bounds import MAY_BE, Bounds, Choices, number
from icm_pipeline.config.checks import check_fields
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import LARGEST_SEED, Settings
from icm_pipeline.config.values import value_at
from icm_pipeline.generation.jobs import SEEDS_PER_STREAM, make_jobs
from icm_pipeline.generation.sampling import SAMPLER_SEED

Compose = Callable[..., Settings]


def limited(schema: type = Settings, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings that may not be everything of their type, with what they may be."""
    kinds = get_type_hints(schema)
    for each in fields(schema):
        if is_dataclass(kinds[each.name]):
            yield from limited(kinds[each.name], f"{place}{each.name}.")
        elif MAY_BE in each.metadata:
            yield place + each.name, each.metadata[MAY_BE]


LIMITED = dict(limited())
CHOICES = {dotted: may_be.names for dotted, may_be in LIMITED.items() if isinstance(may_be, Choices)}


def test_limits_stand_at_the_fields_that_need_them() -> None:
    assert {"seed", "alpha", "layers.rule", "evaluate.clip.kind", "compute.dtype", "pretrain.steps"} < set(LIMITED)
    assert CHOICES["evaluate.clip.kind"] == ("clip",)
    assert len(LIMITED) >= 51


@pytest.mark.parametrize("dotted", LIMITED)
def test_every_field_with_limits_is_checked_and_what_it_may_be_is_told(settings_with: Compose, dotted: str) -> None:
    settings, may_be = settings_with(), LIMITED[dotted]
    group: Any = settings
    *places, name = dotted.split(".")
    for place in places:
        group = getattr(group, place)
    wrong = "nonsense" if isinstance(may_be, Choices) else math.nan
    found = getattr(group, name)
    key = next(iter(found)) if isinstance(found, dict) else ""
    setattr(group, name, {**found, key: wrong} if key else wrong)
    with pytest.raises(ConfigError) as caught:
        check_fields(settings)
    assert str(caught.value) == may_be.refusal(f"{dotted}.{key}" if key else dotted, wrong)


@pytest.mark.parametrize("dotted", CHOICES)
def test_every_listed_choice_is_accepted(dotted: str) -> None:
    assert all(LIMITED[dotted].admit(choice) for choice in CHOICES[dotted])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("alpha=inf", "alpha=inf must be a finite number, or auto."),
        ("alpha=foo", "alpha=foo must be a finite number, or auto."),
        ("alpha=true", "alpha=True must be a finite number, or auto."),
        ("alpha=[1,2]", "alpha=[1, 2] must be a finite number, or auto."),
        ("alpha={a: 1}", "alpha={'a': 1} must be a finite number, or auto."),
        ("method.wanted_share=0", "method.wanted_share=0.0 must be more than 0 and at most 1."),
        ("method.wanted_share=1.5", "method.wanted_share=1.5 must be more than 0 and at most 1."),
        ("probe.C=inf", "probe.C=inf must be a finite number more than 0."),
        ("layers.k=0", "layers.k=0 must be at least 1."),
        ("timesteps.start=1", "timesteps.start=1.0 must be at least 0 and less than 1."),
        ("timesteps.count=0", "timesteps.count=0 must be at least 1, or null for every step."),
        ("seed=4294967296", "seed=4294967296 must be at least 0 and at most 4294967295."),
        ("plan.seconds_per_image=0", "must be more than 0, or null for what finished artifacts took."),
        ("pretrain.steps.clip=0", "pretrain.steps.clip=0 must be at least 1."),
        ("labeler.kind=oracle", "labeler.kind=oracle is not known. Choose one of: age_gender, clip,"),
    ],
)
def test_a_value_that_a_setting_may_not_have_is_refused_in_words(settings_with: Compose, word: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_with(word)
    assert said in str(caught.value)


@pytest.mark.parametrize("word", ["shard=1", "shard=-1", "method.first_step=20"])
def test_a_number_that_another_setting_rules_out_is_refused_by_name(settings_with: Compose, word: str) -> None:
    with pytest.raises(ConfigError, match=word.split("=")[0]):
        settings_with(word)


@pytest.mark.parametrize(
    "word",
    [
        "model.num_steps=1 method.first_step=0",
        "method.first_step=19 method.last_step=19",
        "probe.test_share=0.99 probe.min_per_option=2",
        "compute.grow_batch=true compute.device=cuda",
        "seed=4294967295 alpha=-15",
        "compute.decode_batch_size=null compute.num_threads=null timesteps.count=null",
    ],
)
def test_the_last_value_within_range_is_accepted(settings_with: Compose, word: str) -> None:
    settings = settings_with(*word.split())
    for dotted, value in (each.split("=") for each in word.split()):
        assert value_at(settings, dotted) == OmegaConf.create(f"x: {value}").x


@pytest.mark.parametrize(
    ("bounds", "admitted", "refused", "said"),
    [
        (number()[MAY_BE], [0, -1.5, 10**400], [math.nan, math.inf, None], "a finite number"),
        (number(at_least=0, at_most=2)[MAY_BE], [0, 2], [-1, 3], "at least 0 and at most 2"),
        (number(more_than=0, less_than=1)[MAY_BE], [0.5], [0, 1, math.nan], "more than 0 and less than 1"),
        (number(at_least=1, null="every step")[MAY_BE], [1, None], [0], "at least 1, or null for every step"),
    ],
)
def test_bounds_admit_what_they_say(bounds: Bounds, admitted: list, refused: list, said: str) -> None:
    assert all(bounds.admit(value) for value in admitted)
    assert not any(bounds.admit(value) for value in refused)
    assert bounds.refusal("x", 3) == f"x=3 must be {said}."


@pytest.mark.parametrize("stream", ["probe", "evaluation"])
def test_every_seed_that_is_accepted_makes_images(stream: str) -> None:
    first, second = make_jobs(["a face"], 2, LARGEST_SEED, stream)
    assert second.seed == first.seed + 1  # as all that follow
    torch.Generator().manual_seed(first.seed + SEEDS_PER_STREAM - 1 + SAMPLER_SEED)
    np.random.RandomState(LARGEST_SEED)  # of KID's subsets
