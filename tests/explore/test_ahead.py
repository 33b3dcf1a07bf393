"""The slider's next places are made while nobody asks, and whoever asks comes first."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.explore import studio as studio_module
from icm_pipeline.explore.ahead import Ahead, next_places
from icm_pipeline.explore.material import Material
from icm_pipeline.explore.setting import Setting, first_setting
from icm_pipeline.explore.studio import Shown, Studio
from icm_pipeline.explore.turns import GaveWayError


@pytest.fixture
def setting(gender: Material) -> Setting:
    return replace(first_setting(gender), num_images=1, alpha=7.0)


def made(studio: Studio, material: Material, setting: Setting) -> list[bytes]:
    shown: Shown = list(studio.show(material, setting))[-1]
    return [picture.image.tobytes() for picture in shown.steered or []]


@pytest.fixture
def before_a_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Give a function that has something done before every steered run of the model."""

    def begin(act: Callable[[], Any], run: Callable[..., Any] = studio_module.changed_runs) -> None:
        def acting(*asked: Any) -> Any:
            act()
            return run(*asked)

        monkeypatch.setattr(studio_module, "changed_runs", acting)

    return begin


def test_the_next_places_are_those_around_the_slider_that_steer(gender: Material, setting: Setting) -> None:
    found = next_places(setting, gender, "woman", "man")
    assert [(place.option, place.alpha) for place in found] == [
        ("woman", alpha) for alpha in (6.125, 7.875, 5.25, 8.75, 4.375, 9.625)
    ]
    at_the_end = next_places(replace(setting, alpha=14.0), gender, "woman", "man")
    assert [place.alpha for place in at_the_end] == [13.125, 12.25, 11.375]
    at_none = next_places(replace(setting, option="man", alpha=0.0), gender, "woman", "man")
    assert [(place.option, place.alpha) for place in at_none[:2]] == [("man", 0.875), ("woman", 0.875)]


def test_what_was_made_ahead_is_not_made_again_and_is_the_same(
    studio: Studio, shipped: list[Material], models: ModelCache, gender: Material, setting: Setting,
    before_a_run: Callable[..., None],
) -> None:  # fmt: skip
    alone = made(Studio(shipped, models), gender, setting)
    studio.make_ahead(gender, setting)
    runs = list[int]()
    before_a_run(lambda: runs.append(1))
    assert made(studio, gender, setting) == alone
    assert runs == []


def test_who_asks_comes_before_what_is_made_ahead(
    studio: Studio, shipped: list[Material], models: ModelCache, gender: Material, setting: Setting,
    before_a_run: Callable[..., None],
) -> None:  # fmt: skip
    asked, found = replace(setting, alpha=5.0), list[list[bytes]]()
    alone = made(Studio(shipped, models), gender, asked)
    user = threading.Thread(target=lambda: found.append(made(studio, gender, asked)))
    made(studio, gender, replace(setting, alpha=0.0))  # the original

    def ask() -> None:
        if user.ident is None:
            user.start()
            while not studio._lock._asking:
                time.sleep(0.001)

    before_a_run(ask)
    with pytest.raises(GaveWayError):
        studio.make_ahead(gender, setting)
    user.join()
    assert found == [alone]


def test_the_thread_makes_what_it_was_told_last(studio: Studio, gender: Material, setting: Setting) -> None:
    ahead, refused = Ahead(studio), replace(setting, prompt="x" * 501)
    ahead.tell(gender, [refused])
    ahead.tell(gender, [setting, replace(setting, alpha=6.0)])
    wanted = [replace(setting, alpha=alpha) for alpha in (7.0, 6.0)]
    deadline = time.monotonic() + 60
    while len(studio._steered._found) < len(wanted) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [shift.alpha for _, shift in studio._steered._found] == [7.0, 6.0]  # type: ignore[misc, has-type]


def test_at_the_end_of_the_program_nothing_is_in_the_model(studio: Studio, gender: Material, setting: Setting) -> None:
    ahead = Ahead(studio)
    ahead.tell(gender, next_places(setting, gender, "woman", "man"))
    ahead.end()
    assert not ahead._thread.is_alive()
