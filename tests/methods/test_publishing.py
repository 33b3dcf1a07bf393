"""Vectors on the hub: what is published is fetched again, the card says what is known, and each refusal says why."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save

from icm_pipeline.methods.publishing import FILE_NAME, HubError
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors, load_vectors
from icm_pipeline.methods.vectors_card import About, card
from tests.helpers.hub import READ_ONLY, TOKEN, StandIn, own_hub, stand_in

ME = "me/gender-of-sd15"


@pytest.fixture
def vectors() -> SteeringVectors:
    drawn = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(0))
    return SteeringVectors(
        directions={"mid.attn1": torch.nn.functional.normalize(drawn, dim=-1)},
        mean_norms={"mid.attn1": torch.rand(2)}, steps=(0, 1), noise_levels=(1.0, 0.5), options=("woman", "man"),
        model="sd15", attribute="gender", scores={"mid.attn1": 0.9}, kinds={"mid.attn1": "self_attention"},
        strength=Strength(3.0, "relative", 0, 8, 20), made_with={"path": "somebody/sd15", "num_steps": 20},
    )  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with own_hub(tmp_path, monkeypatch) as hub:
        yield hub


def test_what_is_published_is_fetched_again(hub: StandIn, vectors: SteeringVectors) -> None:
    page = vectors.push_to_hub(ME, license="mit", pictures=[Image.new("RGB", (4, 4), "red")], message="First")
    assert page == f"{hub.endpoint}/{ME}"
    assert sorted(hub.repositories[ME]) == ["README.md", "pictures/0.png", FILE_NAME]
    assert hub.commits == ["First"]
    fetched = load_vectors(ME)
    assert torch.equal(fetched.directions["mid.attn1"], vectors.directions["mid.attn1"])
    assert (fetched.strength, fetched.scores) == (vectors.strength, vectors.scores)
    assert load_vectors(ME, revision="a" * 40).options == ("woman", "man")


def test_publishing_again_is_a_second_commit_to_the_same_repository(hub: StandIn, vectors: SteeringVectors) -> None:
    vectors.push_to_hub(ME, message="First")
    replace(vectors, scores={"mid.attn1": 0.7}).push_to_hub(ME, message="Second")
    assert hub.commits == ["First", "Second"]
    assert load_vectors(ME).scores == {"mid.attn1": 0.7}


def test_publishing_again_keeps_the_licence_and_leaves_no_picture_of_before(
    hub: StandIn, vectors: SteeringVectors
) -> None:
    red = Image.new("RGB", (4, 4), "red")
    vectors.push_to_hub(ME, license="mit", pictures=[red, red])
    hub.repositories[ME]["notes.png"] = b"mine"
    vectors.push_to_hub(ME, pictures=[red])
    assert 'license: "mit"' in hub.repositories[ME]["README.md"].decode()
    assert sorted(hub.repositories[ME]) == ["README.md", "notes.png", "pictures/0.png", FILE_NAME]
    vectors.push_to_hub(ME, license="cc-by-4.0")
    assert 'license: "cc-by-4.0"' in hub.repositories[ME]["README.md"].decode()


def test_a_readme_of_somebody_else_is_kept_unless_it_may_be_lost(hub: StandIn, vectors: SteeringVectors) -> None:
    own = {"README.md": b"---\nlicense: apache-2.0\n---\n# Mine", "pictures/0.png": b"mine"}
    hub.repositories[ME] = dict(own)
    with pytest.raises(HubError, match=rf"{ME} was not published: it has a README\.md that icm_pipeline did not write"):
        vectors.push_to_hub(ME)
    assert hub.repositories[ME] == own
    vectors.push_to_hub(ME, replace_card=True)
    assert b"library_name: icm_pipeline" in hub.repositories[ME]["README.md"]
    assert hub.repositories[ME]["pictures/0.png"] == b"mine"


def test_names_in_a_card_are_names_and_no_markdown(vectors: SteeringVectors) -> None:
    text = card(replace(vectors, attribute="a\n# b", options=("*x*", "<script>")), ME, About())
    assert "\n# b" not in text.replace("# Steering", "")
    assert r"towards *\*x\** or *\<script\>*" in text
    assert r"| options | \*x\*, \<script\> |" in text


def test_a_file_or_folder_of_that_name_comes_before_the_hub(
    hub: StandIn, vectors: SteeringVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors.push_to_hub(ME)
    monkeypatch.chdir(tmp_path)
    Path("me").mkdir()
    replace(vectors, attribute="of here").save(ME)
    hub.asked.clear()
    assert load_vectors(ME).attribute == "of here"
    assert hub.asked == []


def test_a_private_repository_is_for_those_who_have_its_token(
    hub: StandIn, vectors: SteeringVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors.push_to_hub(ME, private=True)
    assert hub.private == {ME}
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"there is no such repository, or it is private\. Log in with `hf auth login`"):
        load_vectors(ME)


def test_without_a_token_nothing_is_published(
    hub: StandIn, vectors: SteeringVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=rf"{ME} was not published: there is no token\. Log in with `hf auth login`"):
        vectors.push_to_hub(ME)
    assert hub.asked == []
    vectors.push_to_hub(ME, token=TOKEN)
    assert ME in hub.repositories


@pytest.mark.parametrize(
    ("token", "message"), [("hf_of_nobody", "the hub does not know this token"), (READ_ONLY, "may not write there")]
)
def test_a_token_that_may_not_is_told_from_one_that_is_not_known(
    hub: StandIn, vectors: SteeringVectors, token: str, message: str
) -> None:
    with pytest.raises(HubError, match=f"{ME} was not published: .*{message}"):
        vectors.push_to_hub(ME, token=token)
    assert hub.repositories == {}


def test_what_is_not_there_is_told_from_what_holds_no_vectors(hub: StandIn, vectors: SteeringVectors) -> None:
    hub.repositories |= {"me/other": {"model.safetensors": b""}, "me/weights": {FILE_NAME: save({"x": torch.zeros(1)})}}
    with pytest.raises(HubError, match=r"you/nothing is no file here, .* there is no such repository"):
        load_vectors("you/nothing")
    with pytest.raises(HubError, match=rf"me/other .* it has no {FILE_NAME}, so it holds no steering vectors"):
        load_vectors("me/other")
    with pytest.raises(ValueError, match="me/weights holds no steering vectors"):
        load_vectors("me/weights")
    vectors.push_to_hub(ME)
    with pytest.raises(HubError, match="the repository has no such revision"):
        load_vectors(ME, revision="elsewhere")


def test_a_name_that_is_none_and_a_picture_that_is_none_are_refused_before_anything_is_asked(
    hub: StandIn, vectors: SteeringVectors, tmp_path: Path
) -> None:
    with pytest.raises(HubError, match="'gender' is no repository of the hub: give user/name"):
        vectors.push_to_hub("gender")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(HubError, match=r"notes\.txt is no picture"):
        vectors.push_to_hub(ME, pictures=[tmp_path / "notes.txt"])
    assert hub.asked == []


def test_where_there_is_no_hub_publishing_says_so(
    hub: StandIn, vectors: SteeringVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE keeps this program off the hub"):
        vectors.push_to_hub(ME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("icm_pipeline.methods.publishing.hub_answers", lambda: False)
    with pytest.raises(HubError, match="cannot be reached from here"):
        vectors.push_to_hub(ME)


def test_a_program_finds_the_hub_that_the_environment_names(vectors: SteeringVectors, tmp_path: Path) -> None:
    with stand_in() as hub:
        hub.repositories[ME] = {FILE_NAME: vectors.to_bytes()}
        code = f"import icm_pipeline; print(icm_pipeline.load_vectors({ME!r}))"
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        environment.pop("HF_HUB_OFFLINE", None)
        told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "gender (woman, man) on sd15: 1 layers, 2 steps" in told.stdout


def test_the_card_says_what_is_known(vectors: SteeringVectors) -> None:
    about = About("clip ViT-L-14", "mit", {"FD of steered images": "0.04"}, {"A probe | tells it.": "supported: 0.99"})
    text = card(vectors, ME, about, ["pictures/0.png"])
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "icm_pipeline", "license": "mit", "base_model": "somebody/sd15",
        "tags": ["icm", "steering-vectors", "text-to-image", "fairness"],
    }  # fmt: skip
    for row in (
        "| options | woman, man |", "| alpha | 3.0 times the layer's mean activation |",
        "| steered steps | 0 to 8 of 20 |", "| made with | num_steps 20 |", "| licence | mit |",
        "| judge of the images they were fitted to | clip ViT-L-14 |",
        "| `mid.attn1` | 0.900 (self-attention) |", "| FD of steered images | 0.04 |",
        "| A probe \\| tells it. | supported: 0.99 |", "](pictures/0.png)", f'load_vectors("{ME}")',
        'pipe("a face of a doctor", num_inference_steps=20).images',
    ):  # fmt: skip
        assert row in body, row


def test_the_card_says_what_is_not_known(vectors: SteeringVectors) -> None:
    text = card(replace(vectors, strength=None, scores={}, made_with={}), ME, About())
    for row in (
        "| alpha | not chosen yet |", "| judge of the images they were fitted to | not known |",
        "| made with | not known |",
        "none was given: ask before you use them", "No audit of these vectors is known.", "alpha=1.0, alpha_unit",
        'pipe("a face of a doctor").images',
    ):  # fmt: skip
        assert row in text, row
    assert "license:" not in text
    assert "## Measured" not in text


@pytest.mark.parametrize("folder", ["/models/of/mine", "../mine", "there/is", "a/b/c"])
def test_no_folder_of_a_machine_is_published(
    hub: StandIn, vectors: SteeringVectors, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there" / "is").mkdir(parents=True)
    replace(vectors, made_with={"path": folder, "num_steps": 20}).push_to_hub(ME)
    assert load_vectors(ME).made_with == {"path": "sd15", "num_steps": 20}
    assert not any(json.dumps(folder).encode().strip(b'"') in content for content in hub.repositories[ME].values())


def test_the_card_gives_each_options_own_alpha(vectors: SteeringVectors) -> None:
    from icm_pipeline.methods.tuning import Tuned

    text = card(replace(vectors, tuned={"woman": Tuned(2.5), "man": Tuned(4.0)}), ME, About())
    assert "| alpha | woman 2.5, man 4 times the layer's mean activation |" in text
