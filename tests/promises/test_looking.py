"""On the embedded model: what is read comes true, steered pictures show it, and single pictures become balanced."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from icm_pipeline import Balance, SteeringVectors, fit_vectors, record, steer
from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.tiny import TinyLabeler
from icm_pipeline.methods.strength import Strength
from tests.helpers.models import load

OPTIONS = ("woman", "man")
NUM_STEPS = 10
JUDGE = LabelerConfig("tiny", "attribute-classifier", "embedded:tiny-classifier", 64, "cpu", "none", "", {})
HALVES = {"woman": 0.5, "man": 0.5}
PROMPT = "a portrait of a person"


@dataclass(frozen=True)
class World:
    pipe: Any
    judge: TinyLabeler
    vectors: SteeringVectors


def make(pipe: Any, seeds: Sequence[int]) -> list[Any]:
    images: list[Any] = pipe(
        [PROMPT] * len(seeds), num_inference_steps=NUM_STEPS, guidance_scale=1.5,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    ).images  # fmt: skip
    return images


def options_of(judge: TinyLabeler, images: Sequence[Any]) -> list[str]:
    found = judge.label(images, {"gender": {name: [name] for name in OPTIONS}})["gender"]
    return [OPTIONS[place] for place in found.argmax(1)]


@pytest.fixture(scope="module")
def world() -> World:
    """Fit vectors and readers to 128 portraits of a person."""
    pipe = load("embedded:tiny", num_steps=NUM_STEPS).pipe
    judge, recordings, labels = TinyLabeler(JUDGE, "labeler"), [], list[str]()
    for start in range(1000, 1128, 16):
        with record(pipe) as seen:
            images = make(pipe, range(start, start + 16))
        recordings += seen.recordings
        labels += options_of(judge, images)
    vectors = fit_vectors(recordings, labels, OPTIONS, C=0.0003, model="tiny", attribute="gender").best(3)
    return World(pipe, judge, replace(vectors, strength=Strength(7.0, "activation", 0, 8, NUM_STEPS)))


@pytest.mark.slow
def test_steered_pictures_show_what_they_are_steered_to_and_the_others_are_the_originals(world: World) -> None:
    seeds = range(24)
    plain = make(world.pipe, seeds)
    with steer(world.pipe, world.vectors, shares=HALVES, look=4) as looks:
        made = make(world.pipe, seeds)
    (look,), shown = looks, options_of(world.judge, made)
    assert 1 <= look.steered.sum() <= 10
    assert sorted(look.options) == ["man"] * 12 + ["woman"] * 12
    for place, steered in enumerate(look.steered):
        assert (made[place].tobytes() == plain[place].tobytes()) == (not steered)
    obeyed = [name == wanted for name, wanted in zip(shown, look.options, strict=True)]
    assert sum(obeyed) >= 20
    before, after = (abs(names.count("man") - 12) for names in (options_of(world.judge, plain), shown))
    assert after <= 3 < before


@pytest.mark.slow
def test_pictures_made_one_at_a_time_become_balanced(world: World) -> None:
    balance, shown = Balance(HALVES), list[str]()
    with steer(world.pipe, world.vectors, shares=balance, look=4) as looks:
        for seed in range(16):
            shown += options_of(world.judge, make(world.pipe, [seed]))
    assert balance.counts == {"woman": 8, "man": 8}
    assert 0 < sum(bool(look.steered[0]) for look in looks) < 16
    assert 5 <= shown.count("woman") <= 11
