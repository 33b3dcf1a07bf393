"""The HTML pages in a real browser: what a person points at, filters, chooses and prints, at a desk and on a phone."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from icm_pipeline.results.sweeps import read_sweep
from tests.helpers.browser import SIZES, opened_browser, opened_page
from tests.helpers.pages import HOSTILE, MISSED, made_run, made_sweep, written, written_sweep
from tests.helpers.results import PROMPTS, compared

pytestmark = pytest.mark.browser
NUM_IMAGES = 60  # more than a screen has at once
Open = Callable[..., Any]
# Texts whose contrast to what lies behind them is below WCAG's 4.5, each with its contrast.
FAINT = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => rgb.slice(0, 3).map((c) => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if ((channels(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255 255 255)";
  };
  return [...document.querySelectorAll("body *:not(script):not(noscript)")]
    .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => {
      const [a, b] = [light(channels(getComputedStyle(e).color)), light(channels(behind(e)))];
      return [e.textContent.trim().slice(0, 30), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    }).filter(([, contrast]) => contrast < 4.5);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as found:
        yield found


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Write a page of a run and one of a sweep."""
    run, sweep = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("sweep")
    others = [compared(key="other", fd=0.3)]
    written(run, made_run(run / "artifacts", audited=True, number=NUM_IMAGES, others=others))
    written_sweep(sweep, made_sweep(sweep))
    return {path.name.rstrip("0123456789"): (path / "report.html").as_uri() for path in (run, sweep)}


@pytest.fixture
def at(browser: Any, addresses: dict[str, str]) -> Iterator[Open]:
    """Give what opens one of the pages, once a test, and checks at its end that it complained of nothing."""
    opened = []

    def open_it(name: str, size: str = "desktop", scheme: str = "light") -> Any:
        opened.append(opened_page(browser, addresses.get(name, name), size, scheme))
        return opened[0].__enter__()

    yield open_it
    opened[0].__exit__(None, None, None)


def seen(page: Any) -> list[str]:
    """Return the ids of the pairs on the screen, in order."""
    items = "[...document.querySelectorAll('.pairs li')].filter((item) => item.checkVisibility())"
    found: list[str] = page.evaluate(f"{items}.map((item) => item.dataset.id)")
    return found


def choose(page: Any, name: str, value: str) -> None:
    page.locator(f".filters select[name={name}]").select_option(value)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("name", ["run", "sweep"])
def test_a_page_fits_and_is_readable(at: Open, name: str, size: str, scheme: str, tmp_path: Path) -> None:
    page = at(name, size, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert page.evaluate("[...document.querySelectorAll('img')].filter((i) => i.src && !i.naturalWidth).length") == 0
    assert page.evaluate(FAINT) == []
    light = sum(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"))
    assert (light > 600) == (scheme == "light")
    page.screenshot(path=tmp_path / "page.png", full_page=True)


@pytest.mark.parametrize("size", list(SIZES))
def test_pictures_are_filtered_by_prompt_option_and_outcome(at: Open, size: str) -> None:
    page = at("run", size)
    assert page.locator(".filters output").inner_text() == f"{NUM_IMAGES} of {NUM_IMAGES} pairs"
    assert seen(page)[:MISSED] == [f"{NUM_IMAGES - MISSED + number:06d}" for number in range(MISSED)]
    choose(page, "prompt", PROMPTS[0])
    assert page.locator(".filters output").inner_text() == f"{NUM_IMAGES // 2} of {NUM_IMAGES} pairs"
    choose(page, "option", "man")
    assert {number % 4 for number in map(int, seen(page))} == {2}
    choose(page, "prompt", "")
    choose(page, "option", "")
    choose(page, "fate", "missed")
    assert len(seen(page)) == MISSED
    choose(page, "fate", "")
    choose(page, "order", "made")
    assert seen(page)[0] == "000000"


def test_the_rest_of_many_pictures_comes_when_it_is_asked_for(at: Open) -> None:
    page = at("run")
    assert len(seen(page)) == 48
    page.locator(".more").click()
    assert len(seen(page)) == NUM_IMAGES
    assert not page.locator(".more").is_visible()


def test_a_pair_is_looked_at_more_closely(at: Open) -> None:
    page = at("run", "phone")
    page.locator(".pairs li button").first.click()
    closer = page.locator("#closer")
    assert closer.is_visible()
    assert "the judge sees" in closer.locator(".told").inner_text()
    assert [cell.inner_text() for cell in closer.locator("tbody td").all()][:3] == ["woman", "30%", "90%"]
    page.keyboard.press("Escape")
    assert not closer.is_visible()


def test_the_heat_map_tells_the_cell_that_is_pointed_at(at: Open) -> None:
    page = at("run")
    cells = page.locator(".cells").first
    cells.scroll_into_view_if_needed()
    box = cells.bounding_box()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"])
    words = "mid.attn1 (steered), step 10: 1.000, chance 0.500"
    assert page.locator("#readout").inner_text() == words
    assert page.locator("#tip").inner_text() == words
    page.mouse.move(0, 0)
    assert not page.locator("#tip").is_visible()


def test_the_heat_map_is_read_with_the_keyboard(at: Open) -> None:
    page = at("run")
    page.locator(".cells").first.focus()
    assert page.locator("#readout").inner_text().startswith("mid.attn1 (steered), step 0: 0.600")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert page.locator("#readout").inner_text() == "up.attn1, step 10: 0.600, chance 0.500"


@pytest.mark.parametrize("size", list(SIZES))
def test_a_point_of_the_front_shows_its_pictures(at: Open, size: str) -> None:
    page = at("sweep", size)
    assert page.locator("#chosen").inner_text() == "Job 2: alpha 4"  # of the lowest FD
    before = page.locator(".pairs .steered").first.get_attribute("src")
    point = page.locator("#front .point[data-select='0']")
    if size == "desktop":
        point.hover()
        assert page.locator("#tip").inner_text().startswith("Job 0: alpha 1. FD 0.600")
    point.click()
    assert page.locator("#chosen").inner_text() == "Job 0: alpha 1"
    assert page.locator(".pairs .steered").first.get_attribute("src") != before
    assert page.locator("tr.chosen").get_attribute("data-row") == "0"
    assert page.locator(".slider output").inner_text() == "1"
    assert page.locator("#pictures").bounding_box()["y"] < SIZES[size][1]


def test_the_slider_goes_over_alpha_with_the_same_seeds(at: Open) -> None:
    page = at("sweep")
    originals = [each.get_attribute("src") for each in page.locator(".pairs img[alt=original]").all()]
    slider, shown = page.locator(".slider input"), set()
    assert slider.get_attribute("aria-valuetext") == "alpha 4"
    slider.focus()
    for alpha in ("2", "1"):
        page.keyboard.press("ArrowLeft")
        assert page.locator(".slider output").inner_text() == alpha
        assert page.locator("#chosen").inner_text().endswith(f"alpha {alpha}")
        shown.add(page.locator(".pairs .steered").first.get_attribute("src"))
    assert len(shown) == 2
    assert [each.get_attribute("src") for each in page.locator(".pairs img[alt=original]").all()] == originals


def test_a_job_is_chosen_in_the_table_too(at: Open) -> None:
    page = at("sweep")
    page.locator("#jobs [data-select='1']").click()
    assert page.locator("#chosen").inner_text() == "Job 1: alpha 2"
    choose(page, "fate", "missed")
    assert len(seen(page)) == MISSED


def test_a_job_whose_pictures_were_removed_shows_none_of_another(browser: Any, tmp_path: Path) -> None:
    made_sweep(tmp_path)
    shutil.rmtree(tmp_path / "outputs" / "artifacts" / "steer" / "s1")
    written_sweep(tmp_path, read_sweep(tmp_path / "sweep", tmp_path / "outputs"))
    with opened_page(browser, (tmp_path / "report.html").as_uri()) as page:
        page.locator("#jobs [data-select='1']").click()
        assert page.locator("#chosen").inner_text() == "Job 1: its pictures are not in this page"
        assert page.locator(".filters output").inner_text() == "0 of 0 pairs"
        assert seen(page) == []
        page.locator("#jobs [data-select='0']").click()
        assert len(seen(page)) == 8


def test_what_users_write_does_nothing(browser: Any, tmp_path: Path) -> None:
    prompts = (HOSTILE, "a face of a doctor")
    run, sweep = tmp_path / "run", tmp_path / "sweep"
    run.mkdir()
    written(run, made_run(run / "artifacts", prompts, ("<b>woman</b>", "man")))
    written_sweep(sweep, made_sweep(sweep, prompts=prompts))
    for path in (run / "report.html", sweep / "report.html"):
        with opened_page(browser, path.as_uri()) as page:
            page.locator(".pairs li button").first.click()
            assert page.locator("#closer h2").inner_text() == HOSTILE
            assert page.title() != "taken"
            assert page.locator("b", has_text="woman").count() == 0


def test_on_paper_there_are_all_pictures_and_nothing_to_click(at: Open, tmp_path: Path) -> None:
    page = at("run", scheme="dark")
    page.emulate_media(media="print")
    assert not any(page.locator(name).first.is_visible() for name in (".filters", "nav", ".more", "details"))
    assert len(seen(page)) == NUM_IMAGES
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(path=tmp_path / "report.pdf", format="A4").startswith(b"%PDF")


@pytest.mark.parametrize(
    ("name", "told"), [("run", "Choose a pair to look closer."), ("sweep", "Choose a point for its pictures.")]
)
def test_on_paper_a_legend_stays_with_its_maps_and_nothing_says_to_choose(at: Open, name: str, told: str) -> None:
    page = at(name)
    assert page.get_by_text(told).is_visible()
    page.emulate_media(media="print")
    assert not page.get_by_text(told).is_visible()
    if name == "run":
        assert page.evaluate("getComputedStyle(document.querySelector('#where .colors')).breakAfter") == "avoid"
