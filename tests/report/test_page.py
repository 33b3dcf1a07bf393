"""The run's page: every run under a name of its own, figures without a negative zero."""

from dataclasses import replace
from pathlib import Path

from icm_pipeline.report.page import write_page
from icm_pipeline.results.comparisons import Compared
from icm_pipeline.results.evaluation import Agreement, Change, Realism, SideAgreement
from tests.helpers.results import compared

RESULT = compared(
    attribute="skin_tone", kept={}, fd_change=Change(0.0, (-0.0001, -0.0)),
    reference=Realism(num_images=9, features="CLIP", fid_original=1, kid_original=0, kid_original_deviation=0, fid=1,
                      kid=-1e-6, kid_deviation=0),
    agreement=Agreement(judges=["a", "b"], options=[], original=SideAgreement([], 1, -0.001, 0),
                        steered=SideAgreement([], 1, None, 0)),
)  # fmt: skip
CONTROL = replace(RESULT, told=("probe.shuffle_labels=true",), fd_less_this=(-0.0001, 0.1))


def page(folder: Path, *results: Compared, usual: tuple[str, ...] = ()) -> str:
    return write_page(folder / "report.md", results[0], {}, list(results), usual).read_text()


def test_a_control_has_a_row_of_its_own_name(tmp_path: Path) -> None:
    text = page(tmp_path, RESULT, CONTROL, usual=("probe.shuffle_labels=false",))
    assert "| best 2 self-attention, alpha 1.5 | 0.200 |" in text
    assert "| best 2 self-attention, alpha 1.5, probe.shuffle_labels=true | 0.200 |" in text
    assert "Where a row does not say otherwise: `probe.shuffle_labels=false`." in text


def test_the_page_of_a_control_says_so_in_its_title(tmp_path: Path) -> None:
    title = page(tmp_path, CONTROL, RESULT).splitlines()[0]
    assert title == "# skin tone on tiny: best 2 self-attention, alpha 1.5, probe.shuffle_labels=true"


def test_few_images_come_with_a_caution(tmp_path: Path) -> None:
    assert "\nCaution: intervals of 8 images find only" in page(tmp_path, RESULT, CONTROL)
    assert "\nCaution: of 8 images, FID depends on their number" in page(tmp_path, RESULT, CONTROL)


def test_there_is_no_negative_zero(tmp_path: Path) -> None:
    text = page(tmp_path, RESULT, CONTROL)
    assert "-0.0" not in text
    assert "+0.000 to +0.000" in text
