"""The page in a real browser: it steers, its map chooses layers, two users do not meet, and it looks as it should."""

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.explore.material import Material
from icm_pipeline.explore.pictures import data_uri
from icm_pipeline.explore.setting import Setting, first_setting
from icm_pipeline.explore.studio import Studio
from tests.helpers.browser import SIZES, opened_browser

pytestmark = pytest.mark.browser
NOTE_TOASTS = """() => {
  window.toasts = [];
  new MutationObserver((all) => all.forEach((one) => one.addedNodes.forEach((node) => {
    const toast = node.nodeType === 1 && (node.matches('.toast-body') ? node : node.querySelector('.toast-body'));
    if (toast) window.toasts.push(toast.innerText);
  }))).observe(document.body, {childList: true, subtree: true});
}"""
PATIENCE = 120_000  # milliseconds, on a busy machine
STEERED = "#icm-shown .icm-row:first-child figure:nth-child(2) img"


@pytest.fixture(scope="module")
def address(shipped: list[Material]) -> Iterator[str]:
    """The page, served by a thread."""
    pytest.importorskip("gradio")
    import uvicorn

    from icm_pipeline.explore.serving import application

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = application(Studio(shipped), "127.0.0.1")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as found:
        yield found


class Visit:
    """A page that a user has open, with what its console said and which addresses it asked for."""

    def __init__(self, browser: Any, address: str, size: str = "desktop", scheme: str = "light") -> None:
        width, height = SIZES[size]
        self.page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector(STEERED)
        self.page.evaluate(NOTE_TOASTS)

    def toasts(self) -> list[str]:
        """Return what errors and warnings the page has shown so far."""
        found: list[str] = self.page.evaluate("window.toasts")
        return found

    def pictures(self) -> list[str]:
        return [picture.get_attribute("src") for picture in self.page.query_selector_all("#icm-shown .icm-row img")]

    def until(self, what: str, *told: Any) -> None:
        """Wait until an expression of JavaScript holds."""
        self.page.wait_for_function(what, arg=list(told))

    def slide_to(self, position: float) -> None:
        number = self.page.locator("#icm-position input[type=number]")
        number.fill(f"{position:g}")
        number.blur()

    def until_command_has(self, words: str) -> None:
        """Wait until the pictures of a setting are shown whose command has these words."""
        told = "[...document.querySelectorAll('textarea')].some(e => e.value.includes(words))"
        self.until(f"([words]) => !document.querySelector('.icm-waiting') && {told}", words)


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    visit = Visit(browser, address)
    yield visit
    visit.page.context.close()


def expected(shipped: list[Material], models: ModelCache, material: Material, setting: Setting) -> list[str]:
    """Return the pictures that a setting has for a user who is alone: originals and steered ones."""
    shown = list(Studio(shipped, models).show(material, setting))[-1]
    pairs = zip(shown.originals, shown.steered or [], strict=True)
    return [data_uri(picture.image) for pair in pairs for picture in pair]


def without_differences(pictures: list[str]) -> list[str]:
    return [picture for place, picture in enumerate(pictures) if place % 3 < 2]


def test_the_slider_steers(visit: Visit, shipped: list[Material], models: ModelCache, gender: Material) -> None:
    own = first_setting(gender)
    assert without_differences(visit.pictures()) == expected(shipped, models, gender, own)
    visit.slide_to(10.5)
    visit.until_command_has("option=man explore.alpha=10.5")
    found = without_differences(visit.pictures())
    assert found == expected(shipped, models, gender, replace(own, option="man", alpha=10.5))
    assert visit.page.locator("#icm-shown").inner_text().count("steered to man") == 2
    visit.slide_to(0)
    visit.until_command_has("explore.alpha=0")
    assert len(set(without_differences(visit.pictures()))) == 2  # each original, twice
    assert visit.wrong == []


def test_a_click_in_the_map_changes_layers_and_window(visit: Visit, gender: Material) -> None:
    layer = next(name for name in gender.layers if name not in gender.chosen)
    before = visit.pictures()
    visit.page.locator(f'#icm-map-box td[data-layer="{layer}"]').nth(1).click()
    visit.until_command_has(f",{layer}]")
    visit.until("([layer]) => document.querySelector(`[data-layer='${layer}'][aria-pressed=true]`)", layer)
    visit.page.locator(f'#icm-map-box button[data-layer="{gender.chosen[0]}"]').click()
    visit.until("([layer]) => document.querySelector(`[data-layer='${layer}'][aria-pressed=false]`)", gender.chosen[0])
    visit.page.locator('#icm-map-box button[data-step="1"]').click()
    visit.until_command_has("first_step=1 last_step=3")
    assert visit.page.locator("#icm-map-box thead .icm-inside").count() == 3
    assert visit.pictures() != before
    assert visit.wrong == []


def test_the_strip_and_another_attribute_are_shown(visit: Visit, skin_tone: Material) -> None:
    visit.page.get_by_role("button", name=re.compile("along the slider")).click()
    visit.page.wait_for_selector("#icm-strip figure:nth-child(7) img")
    visit.page.get_by_label("Attribute").click()
    visit.page.get_by_role("option", name="skin_tone").click()
    visit.until_command_has("attribute=skin_tone")
    visit.until_command_has("option=light")
    visit.until("() => document.querySelectorAll('#icm-shown .icm-row:first-child meter').length == 8")
    assert visit.page.locator("#icm-strip figure").count() == 0
    assert visit.page.get_by_label("To the left").is_visible()
    assert visit.page.locator('#icm-map-box [aria-pressed="true"]').count() == len(skin_tone.chosen)
    visit.page.get_by_label("To the right").click()
    visit.page.get_by_role("option", name="light", exact=True).click()  # what is to the left
    left = skin_tone.options[(skin_tone.options.index("light") + 1) % len(skin_tone.options)]
    visit.until(f"() => document.querySelector('#icm-position').innerText.includes('{left}')")
    visit.page.get_by_label("Attribute").click()
    visit.page.get_by_role("option", name="gender").click()
    visit.until_command_has("attribute=gender")
    assert visit.toasts() == []
    assert visit.wrong == []


def test_clicks_that_follow_each_other_at_once_all_count(visit: Visit, gender: Material) -> None:
    others = [layer for layer in gender.layers if layer not in gender.chosen][:8]
    visit.page.evaluate(
        """(layers) => layers.forEach((layer, place) => setTimeout(() =>
        document.querySelector(`#icm-map-box button[data-layer="${layer}"]`).click(), 40 * place))""",
        others,
    )
    visit.until(
        "(layers) => layers.every((each) => document.querySelector(`[data-layer='${each}'][aria-pressed=true]`))",
        *others,
    )
    visit.page.locator('#icm-map-box button[data-step="3"]').click()
    visit.page.locator('#icm-map-box button[data-step="2"]').click()
    visit.until_command_has("last_step=2")
    assert visit.page.locator('#icm-map-box [aria-pressed="true"]').count() == len(gender.chosen) + 8
    assert visit.wrong == []


def test_controls_show_what_was_used_and_an_empty_one_is_told(visit: Visit) -> None:
    visit.page.get_by_role("button", name=re.compile("along the slider")).click()
    visit.page.wait_for_selector("#icm-strip figure:nth-child(7) img")
    seed = visit.page.get_by_label("First seed")
    for typed, told in (("", "The first seed is empty"), ("-1", "The seed is -1: give 0 to"), ("1e30", "give 0 to")):
        seed.fill(typed)
        visit.page.get_by_text(told).first.wait_for()
    seed.fill("1.6")
    visit.until_command_has("image_seed=2")
    assert seed.input_value() == "2"
    assert visit.page.locator("#icm-strip figure").count() == 0  # that was of another seed
    first, last = (visit.page.locator(f"#icm-{end}-step input[type=number]") for end in ("first", "last"))
    first.fill("3")
    first.blur()
    visit.until_command_has("first_step=3 last_step=3")
    last.fill("1")
    last.blur()
    visit.until_command_has("first_step=1 last_step=3")
    assert (first.input_value(), last.input_value()) == ("1", "3")
    visit.slide_to(2)
    visit.until_command_has("explore.alpha=2")
    number = visit.page.locator("#icm-position input[type=number]")
    number.fill("")
    number.blur()
    visit.until_command_has("explore.alpha=0")
    assert any("The first seed is empty" in told for told in visit.toasts())
    assert visit.wrong == []


def test_two_browsers_at_once_get_what_each_would_get_alone(
    browser: Any, address: str, shipped: list[Material], models: ModelCache, gender: Material
) -> None:
    own = replace(first_setting(gender), alpha=12.25)
    here, there = Visit(browser, address), Visit(browser, address)
    here.slide_to(-12.25)
    there.slide_to(12.25)
    here.until_command_has("option=woman explore.alpha=12.25")
    there.until_command_has("option=man explore.alpha=12.25")
    assert without_differences(here.pictures()) == expected(shipped, models, gender, own)
    assert without_differences(there.pictures()) == expected(shipped, models, gender, replace(own, option="man"))
    assert here.wrong + there.wrong == []
    for visit in (here, there):
        visit.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_it_fits_every_width_in_light_and_dark_and_asks_nobody_else(
    browser: Any, address: str, tmp_path: Path, size: str, scheme: str
) -> None:
    visit = Visit(browser, address, size, scheme)
    visit.page.wait_for_selector("#icm-chart svg polyline.icm-steered")
    visit.page.screenshot(
        path=Path(os.environ.get("ICM_SCREENSHOTS", tmp_path)) / f"{size}-{scheme}.png", full_page=True
    )
    width = SIZES[size][0]
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    background = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) > 380) == (scheme == "light")
    assert {url for url in visit.asked if not url.startswith((address, "data:", "blob:"))} == set()
    assert visit.wrong == []
    visit.page.context.close()


def test_what_cannot_be_made_is_told_on_the_page(visit: Visit) -> None:
    visit.page.get_by_label("Prompt").fill("x" * 501)
    visit.page.get_by_label("Prompt").press("Enter")
    visit.page.get_by_text("The prompt has 501 characters").wait_for()
    assert visit.pictures()
