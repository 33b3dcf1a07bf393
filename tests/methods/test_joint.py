"""steer with several attributes: joint shares are met, only what must change is pushed, and what is refused."""

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import icm_pipeline
from icm_pipeline import Balance
from icm_pipeline.methods.orthogonal import orthogonal
from icm_pipeline.methods.readers import Reader
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.tuning import Tuned
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.looking import make

MID = "mid_block.attentions.0.transformer_blocks.0.attn1"
UP = "up_blocks.1.attentions.0.transformer_blocks.0.attn1"
READ = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
NUM_STEPS = 6
CELLS = list(itertools.product(["woman", "man"], ["young", "old"]))
QUARTERS = dict.fromkeys(CELLS, 0.25)
Vectors = tuple[SteeringVectors, SteeringVectors]


@pytest.fixture(scope="module")
def attributes(pipe: Any) -> Vectors:
    """Return gender and age in different layers; by their readers three of four images show women, all are young."""
    with icm_pipeline.record(pipe, layers=[MID, UP, READ]) as seen:
        run(pipe)
    recording = seen.recordings[0]

    def planted(attribute: str, options: tuple[str, str], layer: str, num_second: int, seed: int) -> SteeringVectors:
        activations, draw = recording.activations, torch.Generator().manual_seed(seed)
        along = torch.nn.functional.normalize(
            torch.randn(NUM_STEPS, activations[layer].shape[-1], generator=draw), dim=1
        )
        return SteeringVectors(
            directions={layer: torch.stack([along, -along], dim=1)},
            mean_norms={layer: activations[layer].norm(dim=-1).mean(0)},
            steps=tuple(recording.steps), noise_levels=tuple(recording.noise_levels), options=options, model="sd",
            attribute=attribute, strength=Strength(2.0, "relative", 0, None, NUM_STEPS),
            readers=tuple(
                reader(activations[READ][:, step], num_second, step, recording.noise_levels[step], seed)
                for step in (1, 3)
            ),
        )  # fmt: skip

    return planted("gender", ("woman", "man"), MID, 1, 11), planted("age", ("young", "old"), UP, 0, 12)


def reader(seen: Tensor, num_second: int, step: int, noise_level: float, seed: int) -> Reader:
    """Return a reader that takes the images furthest along a random direction for the second option."""
    direction = torch.randn(seen.shape[1], generator=torch.Generator().manual_seed(seed))
    order = (seen @ direction).sort(descending=True).values
    edge = order[num_second - 1 : num_second + 1].mean() if num_second else order[0] + (order[0] - order[-1])
    scale = 4 / (order[0] - order[-1])
    return Reader(step, noise_level, {READ: torch.stack([-direction, direction]) * scale},
                  torch.stack([edge, -edge]) * scale, 0.95)  # fmt: skip


def in_one_layer(attributes: Vectors) -> Vectors:
    """Return both attributes in one layer, at a cosine of 0.6 of each other."""
    gender, age = attributes
    along = gender.directions[MID][:, 0]
    other = torch.nn.functional.normalize(torch.roll(along, 1, dims=1), dim=1)
    other = torch.nn.functional.normalize(other - (other * along).sum(1, keepdim=True) * along, dim=1)
    other = 0.6 * along + 0.8 * other
    directions = {MID: torch.stack([other, -other], dim=1)}
    return gender, replace(age, directions=directions, mean_norms=gender.mean_norms)


def run(pipe: Any, **more: Any) -> Tensor:
    return make(pipe, num_steps=NUM_STEPS, **more)


def close(made: Tensor, expected: Tensor) -> bool:
    return torch.allclose(made, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_a_cell_is_what_steering_each_attribute_makes_bitwise_where_layers_differ(
    pipe: Any, attributes: Vectors
) -> None:
    gender, age = attributes
    with icm_pipeline.steer(pipe, gender, option="man"), icm_pipeline.steer(pipe, age, option="old"):
        expected = run(pipe)
    with icm_pipeline.steer(pipe, [gender, age], option=("man", "old")):
        assert torch.equal(run(pipe), expected)
    with icm_pipeline.steer(pipe, [age, gender], option=("old", "man")):
        assert torch.equal(run(pipe), expected)
    with icm_pipeline.steer(pipe, gender, option="man"):
        expected = run(pipe)
    for alpha in ([2.0, 0.0], np.array([2.0, 0.0])):
        with icm_pipeline.steer(pipe, [gender, age], option=("man", "old"), alpha=alpha):  # type: ignore[arg-type]
            assert torch.equal(run(pipe), expected)


def test_options_with_alphas_of_their_own_are_pushed_by_them(pipe: Any, attributes: Vectors) -> None:
    gender, age = attributes
    told = replace(gender, tuned={"woman": Tuned(1.0), "man": Tuned(3.0)})
    with icm_pipeline.steer(pipe, [gender, age], option=CELLS, alpha=2.0):
        given = run(pipe)
    with icm_pipeline.steer(pipe, [told, age], option=CELLS, alpha=2.0):
        assert torch.equal(run(pipe), given)
    with icm_pipeline.steer(pipe, [told, age], option=CELLS):
        own = run(pipe)
    with icm_pipeline.steer(pipe, [told, age], option=("man", "old")):
        assert torch.equal(run(pipe)[3], own[3])
    with icm_pipeline.steer(pipe, told, option="man"), icm_pipeline.steer(pipe, age, option="old"):
        assert torch.equal(run(pipe)[3], own[3])
    everyone = {**dict.fromkeys(CELLS, 0.0), ("man", "young"): 1.0}
    with icm_pipeline.steer(pipe, [told, age], shares=everyone, look=2) as looks:
        made = run(pipe)
    with icm_pipeline.steer(pipe, told, option="man"):
        men = run(pipe)
    pushed = looks[0].steered[:, 0]
    assert pushed.any()
    assert close(made[pushed], men[pushed])


def test_each_image_may_have_a_cell_of_its_own(pipe: Any, attributes: Vectors) -> None:
    with icm_pipeline.steer(pipe, list(attributes), option=CELLS):
        made = run(pipe)
    for image, cell in enumerate(CELLS):
        with icm_pipeline.steer(pipe, list(attributes), option=cell):
            assert torch.equal(run(pipe)[image], made[image])


def test_in_a_layer_of_both_the_directions_are_orthogonal_in_any_order(
    pipe: Any, attributes: Vectors, caplog: pytest.LogCaptureFixture
) -> None:
    gender, age = in_one_layer(attributes)
    turned = orthogonal([gender, age])
    with icm_pipeline.steer(pipe, turned[0], option="man"), icm_pipeline.steer(pipe, turned[1], option="old"):
        expected = run(pipe)
    with (
        caplog.at_level(logging.INFO, "icm_pipeline.methods.joint"),
        icm_pipeline.steer(pipe, [gender, age], option=("man", "old")),
    ):
        made = run(pipe)
    assert torch.equal(made, expected)
    assert f"gender and age overlap by 0.60 in {MID}" in caplog.text
    with icm_pipeline.steer(pipe, [age, gender], option=("old", "man")):
        assert close(run(pipe), made)
    with icm_pipeline.steer(pipe, gender, option="man"), icm_pipeline.steer(pipe, age, option="old"):
        assert not close(run(pipe), made)


@pytest.mark.parametrize("window", [(0, None), (1, 4)])
@pytest.mark.parametrize("norm_preserving", [False, True])
def test_shares_of_cells_are_met_and_only_what_must_change_is_pushed(
    pipe: Any, attributes: Vectors, window: tuple[int, int | None], norm_preserving: bool
) -> None:
    """Of the images one shows a man: two are pushed along gender, two along age, of two prompts with one each."""
    plain, how = run(pipe), {"window": window, "norm_preserving": norm_preserving}
    with icm_pipeline.steer(pipe, list(attributes), shares=QUARTERS, look=2, **how) as looks:
        made = run(pipe)
    (look,) = looks
    assert look.attributes == ("gender", "age")
    for prompt in (look.options[:2], look.options[2:]):
        assert len(set(prompt)) == 2
    shown = np.stack([each.argmax(1) for each in look.probabilities], 1)
    assert [each.step for each in look.readers] == [1, 1]
    wanted = [[v.options.index(o) for v, o in zip(attributes, cell, strict=True)] for cell in look.options]
    assert (look.steered == (shown != np.array(wanted))).all()
    assert look.steered.any(1).sum() < 4
    for image in range(4):
        pushed = look.steered[image]
        if not pushed.any():
            assert torch.equal(made[image], plain[image])
            continue
        alphas = [2.0 if each else 0.0 for each in pushed]
        with icm_pipeline.steer(pipe, list(attributes), option=look.options[image], alpha=alphas, **how):
            assert close(made[image], run(pipe)[image])
        assert not close(made[image], plain[image])
    assert torch.equal(run(pipe), plain)


def test_one_cell_for_all_pushes_every_image_along_what_it_lacks(pipe: Any, attributes: Vectors) -> None:
    everyone = {**dict.fromkeys(CELLS, 0.0), ("man", "young"): 1.0}
    with icm_pipeline.steer(pipe, list(attributes), shares=everyone, look=4) as looks:
        run(pipe)
    assert looks[0].options == (("man", "young"),) * 4
    assert looks[0].steered.sum(0).tolist() == [int((looks[0].probabilities[0].argmax(1) == 0).sum()), 0]


def test_what_a_prompt_names_is_left_alone_and_the_rest_gets_its_own_shares(pipe: Any, attributes: Vectors) -> None:
    gender, age = attributes
    told = replace(gender, words={"woman": ["face"]})
    balance = Balance({**dict.fromkeys(CELLS, 0.0), ("man", "old"): 1.0})
    with icm_pipeline.steer(pipe, [told, age], shares=balance, look=2) as looks:
        run(pipe)
    assert looks[0].options == ((None, "old"), (None, "old"), ("man", "old"), ("man", "old"))
    assert not looks[0].steered[:2, 0].any()
    assert looks[0].steered[:, 1].all()
    assert balance.counts == {**dict.fromkeys(CELLS, 0), ("man", "old"): 2}
    both = [replace(told, words={"woman": ["face", "dog"]}), replace(age, words={"old": ["face", "dog"]})]
    plain = run(pipe)
    with icm_pipeline.steer(pipe, both, shares=QUARTERS, look=2) as looks:
        assert torch.equal(run(pipe), plain)
    assert looks[0].options == ((None, None),) * 4


def test_a_balance_of_cells_counts_over_calls_and_is_saved(pipe: Any, attributes: Vectors, tmp_path: Path) -> None:
    balance = Balance(dict(reversed(QUARTERS.items())))
    with icm_pipeline.steer(pipe, list(attributes), shares=balance, look=2) as looks:
        for seed in range(8):
            pipe("a face", num_inference_steps=NUM_STEPS, output_type="latent",
                 generator=torch.Generator().manual_seed(seed))  # fmt: skip
            balance.save(tmp_path / "balance.json")
    assert balance.counts == dict.fromkeys(CELLS, 2)
    assert [look.options[0] for look in looks].count(("man", "old")) == 2
    again = Balance.read(tmp_path / "balance.json")
    assert (again.shares, again.counts) == (balance.shares, balance.counts)


def test_auto_looks_until_every_attribute_has_a_reader_that_is_good_enough(pipe: Any, attributes: Vectors) -> None:
    gender, age = attributes
    later = replace(age, readers=(replace(age.readers[0], accuracy=0.6), age.readers[1]))
    with icm_pipeline.steer(pipe, [gender, later], shares=QUARTERS) as looks:
        run(pipe)
    assert looks[0].readers == (gender.readers[1], later.readers[1])
    early = replace(gender, readers=(gender.readers[0], replace(gender.readers[1], accuracy=0.6)))
    refused = icm_pipeline.steer(pipe, [early, later], shares=QUARTERS)
    with pytest.raises(ValueError, match="read after 4 steps, as another asks, and gender has no reader"), refused:
        run(pipe)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"option": "man"}, "'man' is no option of each of gender, age"),
        ({"option": ("man",)}, "is no option of each of gender, age"),
        ({"option": ("old", "man")}, "no option 'old'; theirs are woman, man"),
        ({"option": [("man", "old"), "man"]}, "'man' is no option of each"),
        ({"option": ("man", "old"), "look": 2}, "Give option="),
        ({"option": ("man", "old"), "layers": [MID]}, r"give each its own, as \[gender\.of_layers"),
        ({"option": ("man", "old"), "alpha": [1.0, 2.0, 3.0]}, "3 alphas were given for 2 attributes"),
        ({"shares": dict(list(QUARTERS.items())[:3])}, r"missing: \('man', 'old'\)"),
        ({"shares": {**QUARTERS, ("old", "man"): 0.0}}, r"unknown: \('old', 'man'\)"),
        ({"shares": {"woman": 0.5, "man": 0.5}}, r"missing: .*unknown: 'woman', 'man'"),
        ({"shares": Balance({"woman": 0.5, "man": 0.5})}, "unknown: 'woman', 'man'"),
        ({"shares": [0.25] * 4}, "say which option each is of"),
        ({"shares": 0.25}, "say which option each is of"),
        ({"shares": dict.fromkeys(CELLS, 0.3)}, r"add up to 1\.2"),
        ({"shares": QUARTERS, "look": 0}, "gender: look=0: give a number of steps"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    pipe: Any, attributes: Vectors, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message), icm_pipeline.steer(pipe, list(attributes), **wrong):
        pytest.fail("the context must not be entered")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda gender, age: [gender], "vectors: 1 in a list: give two or more"),
        (lambda gender, age: [], "vectors: 0 in a list"),
        (lambda gender, age: [gender, replace(age, model="flux")], "different models, flux, sd"),
        (lambda gender, age: [gender, gender], "Two attributes have an option 'man' and 'woman'"),
        (lambda gender, age: [gender, replace(age, options=("man", "old"))], "have an option 'man': give each"),
        (lambda gender, age: [gender, replace(age, readers=())], "age: The vectors hold no readers"),
        (lambda gender, age: [gender, replace(age, tuned={"old": Tuned(1.0)})], "age: No alpha was searched"),
        (lambda gender, age: [gender, replace(in_one_layer((gender, age))[1], directions=gender.directions)],
         "gender and age are all but the same"),
    ],
)  # fmt: skip
def test_vectors_that_cannot_go_together_say_so(
    pipe: Any, attributes: Vectors, change: Callable[..., list[SteeringVectors]], message: str
) -> None:
    refused = icm_pipeline.steer(pipe, change(*attributes), shares=QUARTERS, look=2)
    with pytest.raises(ValueError, match=message), refused:
        pytest.fail("the context must not be entered")


def test_a_reader_that_is_not_good_enough_is_named_by_its_attribute(pipe: Any, attributes: Vectors) -> None:
    gender, age = attributes
    poor = replace(age, readers=tuple(replace(each, accuracy=0.6) for each in age.readers))
    refused = icm_pipeline.steer(pipe, [gender, poor], shares=QUARTERS)
    with pytest.raises(ValueError, match=r"age: look=auto: no reader foretells 90%"), refused:
        pytest.fail("the context must not be entered")


def test_a_look_beyond_the_run_is_refused_when_it_begins(pipe: Any, attributes: Vectors) -> None:
    with (
        pytest.raises(ValueError, match=f"gender: look={NUM_STEPS + 1}: give a number of steps"),
        icm_pipeline.steer(pipe, list(attributes), shares=QUARTERS, look=NUM_STEPS + 1),
    ):
        run(pipe)


def test_vectors_from_files_do_as_well(pipe: Any, attributes: Vectors, tmp_path: Path) -> None:
    paths = [tmp_path / f"{each.attribute}.safetensors" for each in attributes]
    for each, path in zip(attributes, paths, strict=True):
        each.save(path)
    with icm_pipeline.steer(pipe, list(attributes), shares=QUARTERS, look=2):
        expected = run(pipe)
    with icm_pipeline.steer(pipe, paths, shares=QUARTERS, look=2):
        assert torch.equal(run(pipe), expected)
