"""`icm push`: what a run left goes onto a hub, with the judge, the evaluation and the audit behind it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from icm_pipeline.cli.publishing import run_push
from icm_pipeline.methods.vectors import SteeringVectors, load_vectors
from icm_pipeline.results.verdicts import Claim, Finding, Verdicts
from tests.helpers.hub import StandIn, own_hub
from tests.helpers.results import evaluation, write_artifact

ME = "me/gender-of-tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with own_hub(tmp_path, monkeypatch) as hub:
        yield hub


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Labels, probes, steered images and their evaluation; an audit of these probes, and one of others."""
    label = folder(tmp_path, "label")
    write_artifact(label, "label", settings={"config": {"labeler.kind": "clip", "labeler.model": "ViT-L-14"}})
    write_artifact(folder(tmp_path, "probe"), "probe", parents={"label": label.name})
    steer = folder(tmp_path, "steer")
    directions = {"mid.attn1": torch.eye(2)[None]}
    SteeringVectors(directions, {"mid.attn1": torch.ones(1)}, (0,), (1.0,), ("woman", "man"), "tiny", "gender").save(
        steer / "vectors.safetensors"
    )
    Image.new("RGB", (2, 2)).save(steer / "samples.png")
    write_artifact(steer, "steer", parents={"probe": key("probe")})
    evaluation(fd=0.25).write(folder(tmp_path, "evaluate"))
    write_artifact(folder(tmp_path, "evaluate"), "evaluate", parents={"steer": key("steer")})
    return tmp_path


def key(stage: str) -> str:
    return f"{stage}-0123456789abcdef"


def folder(outputs: Path, stage: str) -> Path:
    found = outputs / "artifacts" / stage / key(stage)
    found.mkdir(parents=True, exist_ok=True)
    (found / "data.txt").write_text(stage)
    return found


def audit(outputs: Path, probe: str) -> None:
    finding = Finding(
        "separability.grouped", "A probe tells it.", 0.9, (0.8, 1.0), "accuracy", 0.5, 0.6, 0.01, "", 9, ""
    )
    Verdicts([Claim(finding, 0.01, "supported", "")], {}).write(folder(outputs, "audit"))
    write_artifact(folder(outputs, "audit"), "audit", parents={"probe": probe})


def test_a_run_is_published_with_what_its_artifacts_tell(
    hub: StandIn, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit(outputs, key("probe"))
    assert run_push([key("steer"), ME, "--license", "mit", "--outputs", str(outputs)]) == 0
    assert f"{hub.endpoint}/{ME}" in capsys.readouterr().out
    text = hub.repositories[ME]["README.md"].decode()
    for row in (
        "clip ViT-L-14", "| FD of steered images (95 %) | 0.250 (0.125 to 0.500) |", "| pairs that keep age | 50% |",
        "| A probe tells it. | supported: 0.90 (0.80 to 1.00) accuracy |", "](pictures/0.png)", 'license: "mit"',
    ):  # fmt: skip
        assert row in text, row
    (outputs / "fetched.safetensors").write_bytes(hub.repositories[ME]["vectors.safetensors"])
    assert load_vectors(outputs / "fetched.safetensors").options == ("woman", "man")


def test_the_card_alone_is_printed_and_nothing_is_sent(
    hub: StandIn, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit(outputs, "another")
    assert run_push([key("steer"), ME, "--card", "--outputs", str(outputs)]) == 0
    said = capsys.readouterr()
    assert "No audit of these vectors is known." in said.out
    assert said.err == ""
    assert run_push([key("steer"), "badname", "--card", "--outputs", str(outputs)]) == 0
    assert capsys.readouterr().err == "badname is no user/name, as the hub wants it.\n"
    assert hub.asked == []


@pytest.mark.parametrize(("word", "message"), [(key("probe"), "holds no vectors.safetensors"), ("ffff", "icm ls")])
def test_what_has_no_vectors_is_refused(
    hub: StandIn, outputs: Path, word: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_push([word, ME, "--outputs", str(outputs)]) == 1
    assert message in capsys.readouterr().err
    assert hub.asked == []


def test_without_a_token_the_command_says_what_to_do(
    hub: StandIn, outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert run_push([key("steer"), ME, "--outputs", str(outputs)]) == 1
    assert "error: me/gender-of-tiny was not published: there is no token. Log in" in capsys.readouterr().err
