"""Pictures of a setting: originals are made once, steered ones begin where they are steered, and users wait in turn."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from icm_pipeline import steer
from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.explore import studio as studio_module
from icm_pipeline.explore.kept import Kept
from icm_pipeline.explore.material import Material, Rival
from icm_pipeline.explore.setting import LEAST_CHANGE, LOOK, Setting, first_setting
from icm_pipeline.explore.studio import Picture, Shown, Studio
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import decode, denoise


@pytest.fixture
def setting(gender: Material) -> Setting:
    return replace(first_setting(gender), num_images=2, alpha=5.0)


def made(studio: Studio, material: Material, setting: Setting) -> Shown:
    return list(studio.show(material, setting))[-1]


def pixels(pictures: list[Picture] | None) -> list[bytes]:
    assert pictures is not None
    return [picture.image.tobytes() for picture in pictures]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the images of every run of the model."""
    runs: list[int] = []
    for name in ("plain_runs", "changed_runs"):
        run: Callable[..., Any] = getattr(studio_module, name)

        def counting(backbone: Any, jobs: list[Job], *args: Any, run: Callable[..., Any] = run) -> Any:
            runs.append(len(jobs))
            return run(backbone, jobs, *args)

        monkeypatch.setattr(studio_module, name, counting)
    return runs


def plainly(
    models: ModelCache, material: Material, setting: Setting, how: AbstractContextManager[Any] | None
) -> list[bytes]:
    """Make a setting's pictures without the explorer: pixels of each."""
    backbone = models.load(material.settings.model, material.settings.compute)
    jobs = [Job(f"{seed}", setting.prompt, 0, seed) for seed in setting.seeds]
    if how is None:
        return [sample.image.tobytes() for sample in decode(backbone, jobs, denoise(backbone, jobs))]
    with how:
        return [sample.image.tobytes() for sample in decode(backbone, jobs, denoise(backbone, jobs))]


@pytest.mark.parametrize("first_step", [0, 2])
def test_pictures_are_those_of_a_plain_run_and_of_steering_without_the_explorer(
    studio: Studio, models: ModelCache, gender: Material, setting: Setting, first_step: int
) -> None:
    own = replace(setting, first_step=first_step, last_step=2)
    shown = made(studio, gender, own)
    backbone = models.load(gender.settings.model, gender.settings.compute)
    steering = steer(
        backbone, gender.vectors, option="woman", layers=list(own.layers), alpha=5.0, window=(first_step, 2)
    )
    assert pixels(shown.originals) == plainly(models, gender, own, None)
    assert pixels(shown.steered) == plainly(models, gender, own, steering)
    assert pixels(shown.steered) != pixels(shown.originals)


def test_originals_are_made_once_and_what_was_made_lately_is_not_made_again(
    studio: Studio, gender: Material, setting: Setting, counted: list[int]
) -> None:
    made(studio, gender, setting)
    made(studio, gender, replace(setting, alpha=6.0))
    made(studio, gender, setting)
    made(studio, gender, replace(setting, num_images=3))
    assert counted == [2, 2, 2, 1, 1]


def test_steered_runs_begin_at_the_first_steered_step(
    studio: Studio, models: ModelCache, gender: Material, setting: Setting
) -> None:
    denoiser, calls = models.load(gender.settings.model, gender.settings.compute).denoiser, list[int]()
    layer = denoiser.conv_in  # type: ignore[union-attr]
    handle = layer.register_forward_pre_hook(lambda *_: calls.append(1))  # type: ignore[operator, union-attr]
    try:
        made(studio, gender, replace(setting, first_step=3))
    finally:
        handle.remove()
    assert len(calls) == 4 + 1


def test_progress_tells_every_step_of_both_runs(studio: Studio, gender: Material, setting: Setting) -> None:
    told: list[tuple[int, int]] = []
    list(studio.show(gender, setting, lambda done, total: told.append((done, total))))
    assert told == [(step, 4) for step in (1, 2, 3, 4)] * 2


def test_new_originals_come_before_steered_pictures(studio: Studio, gender: Material, setting: Setting) -> None:
    first, second = studio.show(gender, setting)
    assert first.steered is None
    assert second.originals == first.originals
    assert len(list(studio.show(gender, replace(setting, alpha=6.0)))) == 1


def test_no_alpha_steers_nothing(studio: Studio, gender: Material, setting: Setting, counted: list[int]) -> None:
    shown = made(studio, gender, replace(setting, alpha=0.0))
    assert shown.steered == shown.originals
    assert counted == [2]


def test_readings_cover_every_step_and_are_the_originals_before_the_first_steered_one(
    studio: Studio, gender: Material, setting: Setting
) -> None:
    shown = made(studio, gender, replace(setting, first_step=2))
    before, after = shown.originals[0].reading, shown.steered[0].reading  # type: ignore[index]
    assert before is not None
    assert after is not None
    assert before.shape == after.shape == (4, 2)
    assert np.allclose(before.sum(axis=1), 1)
    assert np.allclose(before[:2], after[:2])
    assert not np.allclose(before[3], after[3])


def test_least_change_steers_those_alone_that_do_not_show_it(
    studio: Studio, gender: Material, setting: Setting
) -> None:
    own = replace(setting, way=LEAST_CHANGE, num_images=4)
    shown = made(studio, gender, own)
    assert shown.steered is not None
    is_woman = [picture.probabilities.argmax() == 0 for picture in shown.originals]  # type: ignore[union-attr]
    assert [picture.steered_to == "" for picture in shown.steered] == is_woman
    men = made(studio, gender, replace(own, option="man"))
    assert [picture.steered_to == "" for picture in men.steered or []] == [not each for each in is_woman]


def test_equal_shares_steer_half_of_the_images_to_each_option(
    studio: Studio, gender: Material, setting: Setting
) -> None:
    shown = made(studio, gender, replace(setting, balanced=True))
    assert sorted(picture.steered_to for picture in shown.steered or []) == ["man", "woman"]


def test_a_look_leaves_what_it_does_not_steer_to_the_bit(
    shipped: list[Material], models: ModelCache, setting: Setting
) -> None:
    material = shipped[0]
    readers = tuple(replace(reader, accuracy=1.0) for reader in material.vectors.readers)
    material = replace(material, vectors=replace(material.vectors, readers=readers))
    shown = made(Studio([material], models), material, replace(setting, way=LOOK, num_images=4))
    assert shown.steered is not None
    for before, after in zip(shown.originals, shown.steered, strict=True):
        assert (before.image.tobytes() == after.image.tobytes()) == (after.steered_to == "")
    assert {picture.steered_to for picture in shown.steered} <= {"", "woman"}


def test_a_rival_changes_pictures_as_its_run_did_and_not_at_all_without_strength(
    shipped: list[Material], models: ModelCache, setting: Setting
) -> None:
    how = replace(shipped[0].settings.method, name="prompt", params={"text": "option"}, strength=None)
    rival = Rival(replace(shipped[0].settings, method=how), {})
    material = replace(shipped[0], rivals={"prompt": rival})
    studio = Studio([material], models)
    shown = made(studio, material, replace(setting, way="prompt"))
    assert [picture.steered_to for picture in shown.steered or []] == ["woman", "woman"]
    assert pixels(shown.steered) != pixels(shown.originals)
    without = made(studio, material, replace(setting, way="prompt", alpha=0.0))
    assert pixels(without.steered) == pixels(shown.originals)


def test_the_strip_goes_from_one_option_through_the_original_to_the_other(
    studio: Studio, gender: Material, setting: Setting
) -> None:
    strip = studio.strip(gender, setting, "woman", "man", lambda done, total: None)
    assert [picture.steered_to for picture in strip] == ["woman"] * 3 + [""] + ["man"] * 3
    assert pixels(strip[3:4]) == pixels(made(studio, gender, setting).originals[:1])
    assert len(set(pixels(strip))) == 7


def test_the_strip_steers_by_its_way_of_steering(
    shipped: list[Material], models: ModelCache, studio: Studio, gender: Material, setting: Setting
) -> None:
    own = replace(setting, way=LEAST_CHANGE)
    original = made(studio, gender, own).originals[0]
    shows = gender.options[int(np.argmax(original.probabilities))]  # type: ignore[arg-type]
    strip = studio.strip(gender, own, "woman", "man", lambda done, total: None)
    other = next(option for option in gender.options if option != shows)
    sides = {"woman": strip[:3], "man": strip[4:]}
    assert [picture.steered_to for picture in sides[shows]] == [""] * 3
    assert pixels(sides[shows]) == pixels([original] * 3)
    assert [picture.steered_to for picture in sides[other]] == [other] * 3
    how = replace(gender.settings.method, name="prompt", params={"text": "option"}, strength=None)
    material = replace(shipped[0], rivals={"prompt": Rival(replace(gender.settings, method=how), {})})
    told = made(studio, material, replace(setting, way="prompt", option="man", alpha=material.alpha))
    strip = studio.strip(material, replace(setting, way="prompt"), "woman", "man", lambda done, total: None)
    assert pixels(strip[5:6]) == pixels(told.steered)[:1]
    assert (material.has_strength("prompt"), material.has_strength("published")) == (False, True)


def test_without_a_judge_pictures_come_without_probabilities(
    studio: Studio, gender: Material, setting: Setting
) -> None:
    shown = made(studio, replace(gender, judge_problem="no weights"), setting)
    assert [picture.probabilities for picture in (*shown.originals, *(shown.steered or []))] == [None] * 4


def test_two_users_at_once_get_what_each_would_get_alone(
    studio: Studio, shipped: list[Material], models: ModelCache, gender: Material, skin_tone: Material, setting: Setting
) -> None:
    theirs = replace(first_setting(skin_tone), num_images=2, option="dark", alpha=6.0)
    alone = [made(Studio(shipped, models), gender, setting), made(Studio(shipped, models), skin_tone, theirs)]
    found: dict[int, Shown] = {}
    asked = [(gender, setting), (skin_tone, theirs)]
    threads = [
        threading.Thread(target=lambda index=index, each=each: found.update({index: made(studio, *each)}))
        for index, each in enumerate(asked)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [pixels(found[index].steered) for index in (0, 1)] == [pixels(each.steered) for each in alone]


def test_what_is_kept_is_bounded_and_the_least_recently_used_goes_first() -> None:
    kept: Kept[int] = Kept(2)
    kept["a"], kept["b"] = 1, 2
    assert kept["a"] == 1
    kept["c"] = 3
    assert [name in kept for name in "abc"] == [True, False, True]


def test_a_rival_that_cannot_be_recorded_is_shown_without_readings(
    shipped: list[Material], models: ModelCache, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = studio_module.changed_runs

    def refusing(*asked: Any) -> Any:
        if asked[-2]:
            raise BackboneError("rows of its own")
        return run(*asked)

    monkeypatch.setattr(studio_module, "changed_runs", refusing)
    how = replace(shipped[0].settings.method, name="prompt", params={"text": "option"}, strength=None)
    material = replace(shipped[0], rivals={"prompt": Rival(replace(shipped[0].settings, method=how), {})})
    shown = made(Studio([material], models), material, replace(setting, way="prompt"))
    assert [picture.reading for picture in shown.steered or []] == [None, None]
    assert pixels(shown.steered) != pixels(shown.originals)
