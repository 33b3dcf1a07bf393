"""Figures stay readable: 2 to 12 prompts, 2 to 9 options, names of 3 to 80 letters, points close together."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from icm_pipeline.images.table import ImageRow
from icm_pipeline.report.figures import sweep as sweeps
from icm_pipeline.report.figures.accuracy import plot_heat_map, plot_ranking
from icm_pipeline.report.figures.comparison import plot_comparison, plot_discrepancy
from icm_pipeline.report.figures.twins import plot_twins
from icm_pipeline.results.evaluation import Discrepancy
from icm_pipeline.results.sweeps import Sweep, SweepJob
from tests.helpers.results import compared, evaluation, scores, steering
from tests.report.conftest import texts_of

SENTENCE = "a colour photograph of the face of a person who works as a doctor in the hospital of a large town"
SIZES = [(2, 2, 3), (12, 2, 80), (8, 2, 65), (2, 9, 80)]  # prompts, options and letters of a name
Check = Callable[[], None]


def named(letters: int, number: int) -> str:
    """Return a name of so many letters; names of many differ in their last word only."""
    return f"{number:03}"[-letters:] if letters < 12 else f"{SENTENCE[: letters - 4].rstrip()} {number:03}"


def images(folder: Path, num_prompts: int, num_options: int, letters: int) -> list[ImageRow]:
    Image.new("RGB", (16, 16), "teal").save(folder / "a.png")
    return [
        ImageRow(f"{prompt}_{seed}", named(letters, prompt), prompt, seed, named(letters, seed), folder / "a.png")
        for prompt in range(num_prompts)
        for seed in range(max(2, num_options))
    ]


@pytest.mark.parametrize(("num_prompts", "num_options", "letters"), SIZES)
def test_prompts_beside_their_fd_cover_nothing(
    check_texts: Check, tmp_path: Path, num_prompts: int, num_options: int, letters: int
) -> None:
    found = evaluation(prompts=[named(letters, prompt) for prompt in range(num_prompts)], attribute=named(letters, 0))
    plot_discrepancy(tmp_path / "discrepancy.png", found)
    check_texts()


@pytest.mark.parametrize(("num_prompts", "num_options", "letters"), SIZES)
def test_prompts_and_options_of_twins_cover_nothing(
    check_texts: Check, tmp_path: Path, num_prompts: int, num_options: int, letters: int
) -> None:
    rows = images(tmp_path, num_prompts, num_options, letters)
    title = (
        f"Above: original. Below: the same seed, steered to the {named(letters, 0)} named. Orange: judged otherwise."
    )
    plot_twins(tmp_path / "twins.png", rows, rows, title, {"0_1"})
    check_texts()


@pytest.mark.parametrize(("num_prompts", "num_options", "letters"), [(2, 2, 3), (2, 4, 80)])
def test_prompts_options_and_settings_of_strips_cover_nothing(
    check_texts: Check, tmp_path: Path, num_prompts: int, num_options: int, letters: int
) -> None:
    rows = images(tmp_path, num_prompts, num_options, letters)
    columns = [("original", rows), ("best 4 cross-attention, alpha 4", rows), ("alpha 7", rows)]
    sweeps.plot_strips(tmp_path / "strips.png", columns, f"The same seeds over alpha ({named(letters, 0)})")
    check_texts()


@pytest.mark.parametrize("letters", [3, 80])
def test_titles_with_a_long_attribute_stay_inside(check_texts: Check, tmp_path: Path, letters: int) -> None:
    layers = {f"mid.{place}.attn1": ("self_attention", 0.6 + place / 100, [0.6, 0.7]) for place in range(6)}
    found = scores(layers)
    plot_heat_map(tmp_path / "heat_map.png", found, ["mid.1.attn1"], named(letters, 0))
    plot_ranking(tmp_path / "ranking.png", found, ["mid.1.attn1"], named(letters, 0))
    check_texts()


def job(number: int, fd: float, clip_i: float, **factors: object) -> SweepJob:
    found = evaluation(clip_i=clip_i)
    fair = replace(found.fairness, fd=Discrepancy(fd, {"a face": fd}, (fd / 2, fd * 1.2)))
    return SweepJob(str(number), "0", factors, replace(found, fairness=fair))


SWEEPS = {
    "close": [job(n, 0.1 + 0.002 * n, 0.9 - 0.001 * n * (-1) ** n, alpha=n, C=10.0**-n) for n in range(10)],
    "one point": [job(n, 0.3, 0.9, alpha=n) for n in range(4)],
    "corner": [job(n, 0.58 + 0.005 * n, 0.92 - 0.001 * n, alpha=n) for n in range(5)] + [job(5, 0.01, 0.96, alpha=7)],
    "long": [job(n, 0.1 + 0.05 * n, 0.9 - 0.02 * n, texts=[named(80, n), named(80, n + 1)]) for n in range(9)],
}


def test_figures_of_a_sweep_say_of_how_many_images_and_where_all_are_on_the_front(
    figures: list[Figure], tmp_path: Path
) -> None:
    apart = tuple(job(n, 0.1 + 0.1 * n, 0.8 + 0.02 * n, alpha=n) for n in range(3))
    for jobs, words in ((apart, "all are on the Pareto front"), (SWEEPS["close"], "filled: on the Pareto front")):
        sweep = Sweep(tmp_path, tuple(jobs), {})
        sweeps.plot_overview(tmp_path / "overview.png", sweep)
        sweeps.plot_front(tmp_path / "front.png", sweep)
        sweeps.plot_against(tmp_path / "against_alpha.png", sweep, "alpha")
        told = [" ".join(text.get_text() for text in texts_of(figure)) for figure in figures]
        assert all("8 images a job" in each for each in told)
        assert words in told[0] and f"({words.partition(' ')[0].rstrip(':')}" in told[1]
        figures.clear()


def test_a_band_of_an_interval_has_edges_in_the_colour_of_its_line(figures: list[Figure], tmp_path: Path) -> None:
    jobs = tuple(job(n, 0.1 + 0.1 * n, 0.9, alpha=n % 2, k=n // 2) for n in range(4))
    sweeps.plot_against(tmp_path / "against_alpha.png", Sweep(tmp_path, jobs, {}), "alpha")
    lines = [(line.get_color(), line.get_linestyle()) for line in figures[0].axes[0].get_lines()]
    for color in sweeps.SERIES_COLORS[:2]:
        assert (lines.count((color, "-")), lines.count((color, ":"))) == (1, 2)


@pytest.mark.parametrize("name", SWEEPS)
def test_labels_of_a_sweep_cover_no_point_and_no_label(
    check_texts: Check, figures: list[Figure], tmp_path: Path, name: str
) -> None:
    sweep = Sweep(tmp_path, tuple(SWEEPS[name]), {})
    sweeps.plot_front(tmp_path / "front.png", sweep)
    sweeps.plot_overview(tmp_path / "overview.png", sweep)
    check_texts()
    panel = figures[0].axes[0]
    points = panel.transData.transform([(job.fd, job.clip_i) for job in sweep.jobs])
    for label in panel.findobj(Annotation):
        box = label.get_window_extent()
        assert not any(box.contains(*point) for point in points)
        assert panel.bbox.x0 - 1 < box.x0 < box.x1 < panel.bbox.x1 + 1
        own = panel.transData.transform(label.xy)
        gaps = np.hypot(*(np.clip([own, *points], box.min, box.max) - [own, *points]).T)
        assert gaps[0] <= gaps.min() + 1.5 and gaps[0] < 40
    assert panel.bbox.width > figures[0].bbox.width / 2


def test_labels_of_a_comparison_cover_no_point_and_no_label(
    check_texts: Check, figures: list[Figure], tmp_path: Path
) -> None:
    told = (f"attribute.probe_templates=[{named(40, 0)}]",)
    results = [
        compared(str(n), told, fd=0.2 + n / 1000, clip_i=0.9 - n / 2000, steering=steering(alpha=float(n)))
        for n in range(5)
    ]
    plot_comparison(tmp_path / "comparison.png", results, "2")
    check_texts()
    panel = figures[0].axes[0]
    for label in panel.findobj(Annotation):
        points = panel.transData.transform([row.place for row in results])
        assert not any(label.get_window_extent().contains(*point) for point in points)
