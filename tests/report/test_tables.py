"""Tables on the terminal: what a user wrote is shown as it is, and names of layers stay whole."""

from typing import Any

import pytest

from icm_pipeline.report.tables import print_metrics, print_ranking, print_sweep

METRICS: dict[str, Any] = {
    "attribute": "[/b]", "model": "tiny[x]", "num_images": 8, "fd_floor": 0.0, "clip_i": 0.9, "clip_t": 0.7,
    "clip_t_original": 0.7, "obeyed": 1.0, "kept": {"skin_[/]tone": 0.5}, "agreement": None, "unseen": {},
    "steering": {"layers": ["a"], "alpha": 2.0, "alpha_unit": "relative", "assignment": "quota"},
    "fd": {"mean": 0.2, "interval_95": [0.1, 0.3], "by_prompt": {"a [red] face": 0.2}},
    "fd_original": {"mean": 0.2, "interval_95": [0.1, 0.3], "by_prompt": {"a [red] face": 0.2}},
    "fd_change": {"mean": 0.0, "interval_95": [-0.0001, -0.0]},
    "worst_share": {"mean": 0.5}, "worst_share_original": {"mean": 0.5},
    "reference": {"fid": 1.0, "fid_original": 1.0, "kid": -0.0001, "kid_original": 0.1},
}  # fmt: skip


def test_brackets_in_a_sweep_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_sweep("jobs of [/x]", ["job", "names[0]"], [["0", "[a,b]"], ["1", "[/x]"]], {"2": "failed: [b]"})
    text = capsys.readouterr().out
    assert all(shown in text for shown in ("jobs of [/x]", "names[0]", "[a,b]", "[/x]", "failed: [b]"))


def test_brackets_in_an_evaluation_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_metrics(METRICS)
    text = capsys.readouterr().out
    assert all(shown in text for shown in ("[/b] on tiny[x], 1 layer, alpha 2", "a [red] face", "skin [/]tone"))


def test_there_is_no_negative_zero(capsys: pytest.CaptureFixture[str]) -> None:
    print_metrics(METRICS)
    text = capsys.readouterr().out
    assert "-0.000" not in text
    assert "+0.000 to +0.000" in text


def test_names_of_layers_stay_in_one_line_of_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    print_ranking({"ranking": [{"layer": layer, "kind": "cross_attention", "score": 0.7}], "layers": [layer]})
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["*", "0.700", layer, "cross-attention"] for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_name_wider_than_the_terminal_is_not_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    print_ranking({"ranking": [{"layer": layer, "kind": "self_attention", "score": 0.7}], "layers": []})
    assert f"0.700    {layer} self-attention" in capsys.readouterr().out
