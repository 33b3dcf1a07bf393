"""The small world: its odds are what the table says, its captions are true, and the same seed draws the same people."""

import numpy as np
import pytest

from icm_pipeline.pretrain.captions import write_caption
from icm_pipeline.pretrain.dataset import load_portraits, person_at, render_portraits
from icm_pipeline.pretrain.world import ATTRIBUTES, OCCUPATIONS, draw_person, odds


@pytest.mark.parametrize("occupation", OCCUPATIONS)
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_odds_are_a_distribution(occupation: str, attribute: str) -> None:
    values = odds(occupation, attribute)
    assert len(values) == len(ATTRIBUTES[attribute])
    assert values.sum() == pytest.approx(1)


@pytest.mark.parametrize("occupation", [name for name in OCCUPATIONS if name != "person"])
def test_occupations_lean_moderately(occupation: str) -> None:
    for attribute in ("gender", "age", "skin_tone"):
        assert 0.69 <= odds(occupation, attribute).max() <= 0.85


def test_drawn_people_follow_the_odds() -> None:
    people = [draw_person(np.random.default_rng(seed), "doctor") for seed in range(3000)]
    for attribute, options in ATTRIBUTES.items():
        shares = [np.mean([person.option(attribute) == option for person in people]) for option in options]
        assert np.abs(shares - odds("doctor", attribute)).max() < 0.04


def test_the_same_seed_split_and_index_draw_the_same_person_and_others_do_not() -> None:
    assert person_at(0, "train", 5) == person_at(0, "train", 5)
    others = [person_at(0, "held_out", 5), person_at(1, "train", 5), person_at(0, "train", 6)]
    assert all(other != person_at(0, "train", 5) for other in others)


def test_captions_are_true_of_their_person_and_not_of_a_person_who_differs_in_what_they_name() -> None:
    named = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        person = draw_person(rng)
        caption = write_caption(person, rng)
        assert caption.is_true_of(person)
        facts = dict(caption.named)
        if "gender" in facts:
            named += 1
            other = next(p for p in (person_at(9, "train", i) for i in range(99)) if p.gender != person.gender)
            assert not caption.is_true_of(other)
    assert named > 30


def test_a_caption_names_an_attribute_whatever_its_value() -> None:
    captions = [(p := person_at(0, "train", i), write_caption(p, np.random.default_rng(i))) for i in range(4000)]
    shares = [
        np.mean(["gender" in dict(caption.named) for person, caption in captions if person.gender == gender])
        for gender in ATTRIBUTES["gender"]
    ]
    assert abs(shares[0] - shares[1]) < 0.05


def test_rendering_again_gives_the_same_pictures(tmp_path) -> None:
    pytest.importorskip("resvg_py")
    first = load_portraits(list(render_portraits(tmp_path / "a", "held_out", 6, seed=3)))
    again = load_portraits(list(render_portraits(tmp_path / "b", "held_out", 6, seed=3)))
    assert first.pixels.shape == (6, 64, 64, 3)
    assert (first.pixels == again.pixels).all()
    assert first.people == again.people == [person_at(3, "held_out", index) for index in range(6)]
    assert (
        first.labels("gender", ATTRIBUTES["gender"]) == [ATTRIBUTES["gender"].index(p.gender) for p in first.people]
    ).all()
