"""The run's page: every run under a name of its own, figures without a negative zero."""

from pathlib import Path
from typing import Any

from icm_pipeline.report.page import write_page
from tests.report.test_comparison import USUAL

FD = {"mean": 0.2, "interval_95": [0.1, 0.3], "by_prompt": {"a face": 0.2}}
RESULT: dict[str, Any] = {
    "model": "tiny", "attribute": "skin_tone", "steering": USUAL, "num_images": 8, "fd": FD, "fd_original": FD,
    "fd_floor": 0.0, "fd_change": {"interval_95": [-0.0001, -0.0]}, "worst_share": {"mean": 0.5},
    "worst_share_original": {"mean": 0.5}, "clip_i": 0.9, "clip_t": 0.7, "clip_t_original": 0.7, "ssim": 0.6,
    "obeyed": 1.0, "kept": {}, "told": (), "fd_less_this": None,
    "reference": {"num_images": 9, "features": "CLIP", "fid": 1, "fid_original": 1, "kid": -1e-6, "kid_original": 0},
    "agreement": {"judges": ["a", "b"], "original": {"share": 1, "kappa": -0.001},
                  "steered": {"share": 1, "kappa": None}},
}  # fmt: skip
CONTROL = {**RESULT, "told": ("probe.shuffle_labels=true",), "fd_less_this": (-0.0001, 0.1)}


def page(folder: Path, *results: dict[str, Any], usual: tuple[str, ...] = ()) -> str:
    return write_page(folder / "report.md", results[0], {}, list(results), usual).read_text()


def test_a_control_has_a_row_of_its_own_name(tmp_path: Path) -> None:
    text = page(tmp_path, RESULT, CONTROL, usual=("probe.shuffle_labels=false",))
    assert "| best 2 self-attention, alpha 1.5 | 0.200 |" in text
    assert "| best 2 self-attention, alpha 1.5, probe.shuffle_labels=true | 0.200 |" in text
    assert "Where a row does not say otherwise: `probe.shuffle_labels=false`." in text


def test_the_page_of_a_control_says_so_in_its_title(tmp_path: Path) -> None:
    title = page(tmp_path, CONTROL, RESULT).splitlines()[0]
    assert title == "# skin tone on tiny: best 2 self-attention, alpha 1.5, probe.shuffle_labels=true"


def test_there_is_no_negative_zero(tmp_path: Path) -> None:
    text = page(tmp_path, RESULT, CONTROL)
    assert "-0.0" not in text
    assert "+0.000 to +0.000" in text
