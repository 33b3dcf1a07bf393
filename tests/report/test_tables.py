"""Tables on the terminal: what a user wrote is shown as it is, and names of layers stay whole."""

from dataclasses import replace

import pytest

from icm_pipeline.localization.selection import LayerScore
from icm_pipeline.report.tables import print_metrics, print_ranking, print_sweep
from icm_pipeline.results.evaluation import Change, Realism
from icm_pipeline.results.scores import Selection
from tests.helpers.results import evaluation, steering

FOUND = evaluation(
    prompts=["a [red] face"], attribute="[/b]", model="tiny[x]", kept={"skin_[/]tone": 0.5},
    steering=steering(layers=["a"], alpha=2.0), fd_change=Change(0.0, (-0.0001, -0.0)),
    reference=Realism(num_images=9, features="CLIP", fid_original=1.0, kid_original=0.1, kid_original_deviation=0,
                      fid=1.0, kid=-0.0001, kid_deviation=0),
)  # fmt: skip


def test_brackets_in_a_sweep_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_sweep("jobs of [/x]", ["job", "names[0]"], [["0", "[a,b]"], ["1", "[/x]"]], {"2": "failed: [b]"})
    text = capsys.readouterr().out
    assert all(shown in text for shown in ("jobs of [/x]", "names[0]", "[a,b]", "[/x]", "failed: [b]"))


def test_a_sweep_has_its_cautions_below_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_sweep("1 job", ["job"], [["0"]], {}, ["Caution: [few]"])
    assert capsys.readouterr().out.rstrip().endswith("Caution: [few]")


def test_brackets_in_an_evaluation_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_metrics(FOUND)
    text = capsys.readouterr().out
    assert all(
        shown in text for shown in ("[/b] on tiny[x]: best 1 self-attention, alpha 2", "a [red] face", "skin [/]tone")
    )


def test_there_is_no_negative_zero(capsys: pytest.CaptureFixture[str]) -> None:
    print_metrics(FOUND)
    text = capsys.readouterr().out
    assert "-0.000" not in text
    assert "+0.000 to +0.000" in text


def test_long_prompts_that_begin_alike_are_told_apart_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    beginning = "a colour photograph of the face of a person who works as"
    print_metrics(evaluation(prompts=[f"{beginning} {work}" for work in ("a doctor", "a nurse", "an engineer")]))
    lines = [line for line in capsys.readouterr().out.splitlines() if "0.600" in line]
    assert [line.split("0.600")[0].strip(" │") for line in lines] == [
        "FD  ... a doctor", "FD  ... a nurse", "FD  ... an engineer", "FD  mean",
    ]  # fmt: skip
    print_metrics(evaluation(prompts=["a" * 80, "b" * 80]))
    assert capsys.readouterr().out.count("b") >= 80


def test_few_images_come_with_a_caution(capsys: pytest.CaptureFixture[str]) -> None:
    print_metrics(replace(FOUND, num_images=16))
    text = " ".join(capsys.readouterr().out.split())
    assert "Caution: intervals of 16 images find only" in text
    assert "Caution: of 9 images, FID depends on their number" in text
    many = replace(FOUND.reference, num_images=2000)
    print_metrics(replace(FOUND, num_images=2000, reference=many))
    assert "Caution" not in capsys.readouterr().out


def test_names_of_layers_stay_in_one_line_of_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    print_ranking(Selection([layer], "top", "cross_attention", [LayerScore(layer, "cross_attention", 0.7)]))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["*", "0.700", layer, "cross-attention"] for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_name_wider_than_the_terminal_is_not_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    print_ranking(Selection([], "top", "self_attention", [LayerScore(layer, "self_attention", 0.7)]))
    assert f"0.700    {layer} self-attention" in capsys.readouterr().out
