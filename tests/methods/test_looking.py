"""steer with shares: who is steered is as few as can be, the others are the plain pictures, and what is refused."""

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
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.methods.readers import Reader
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.tuning import Tuned
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.looking import NUM_IMAGES, make

STEERED = "mid_block.attentions.0.transformer_blocks.0.attn1"
READ = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
NUM_STEPS = 6
HALVES = {"woman": 0.5, "man": 0.5}


@pytest.fixture(scope="module")
def vectors(pipe: Any) -> SteeringVectors:
    """Return random directions, and readers at steps 1 and 3 that take three of four images for women."""
    with icm_pipeline.record(pipe, layers=[STEERED, READ]) as seen:
        run(pipe)
    (recording,), draw = seen.recordings, torch.Generator().manual_seed(0)
    drawn = torch.randn(NUM_STEPS, 2, recording.activations[STEERED].shape[-1], generator=draw)
    return SteeringVectors(
        directions={STEERED: torch.nn.functional.normalize(drawn, dim=-1)},
        mean_norms={STEERED: recording.activations[STEERED].norm(dim=-1).mean(0)},
        steps=tuple(recording.steps), noise_levels=tuple(recording.noise_levels), options=("woman", "man"),
        model="sd", attribute="gender", strength=Strength(2.0, "relative", 0, None, NUM_STEPS),
        readers=tuple(
            reader(recording.activations[READ][:, step], step, recording.noise_levels[step], accuracy)
            for step, accuracy in ((1, 0.6), (3, 0.95))
        ),
    )  # fmt: skip


def reader(seen: Tensor, step: int, noise_level: float, accuracy: float) -> Reader:
    """Return a reader that takes the image furthest along a random direction for a man, the others for women."""
    direction = torch.randn(seen.shape[1], generator=torch.Generator().manual_seed(step))
    along = seen @ direction
    order = along.sort().values
    scale = 4 / (order[3] - order[2])
    weights = torch.stack([-direction, direction]) * scale
    bias = torch.stack([order[2:].mean(), -order[2:].mean()]) * scale
    return Reader(step, noise_level, {READ: weights}, bias, accuracy)


def run(pipe: Any, **more: Any) -> Tensor:
    return make(pipe, num_steps=NUM_STEPS, **more)


def alone(pipe: Any, seed: int) -> Tensor:
    """Return the latents of one image."""
    made: Tensor = pipe(
        "a face", num_inference_steps=NUM_STEPS, output_type="latent", generator=torch.Generator().manual_seed(seed)
    ).images
    return made


@pytest.mark.parametrize("look", [2, 4])
@pytest.mark.parametrize("window", [(0, None), (1, 4)])
@pytest.mark.parametrize("norm_preserving", [False, True])
def test_as_few_as_shares_ask_for_are_steered_and_the_others_are_the_plain_pictures(
    pipe: Any, vectors: SteeringVectors, look: int, window: tuple[int, int | None], norm_preserving: bool
) -> None:
    plain, how = run(pipe), {"window": window, "norm_preserving": norm_preserving}
    with icm_pipeline.steer(pipe, vectors, option="man", **how):
        men = run(pipe)
    with icm_pipeline.steer(pipe, vectors, shares=HALVES, look=look, **how) as looks:
        made = run(pipe)
    (found,) = looks
    assert found.reader.step == look - 1
    assert sorted(found.options) == ["man", "man", "woman", "woman"]
    assert (
        found.steered.tolist() == ((found.probabilities.argmax(1) == 0) & (np.array(found.options) == "man")).tolist()
    )
    assert found.steered.sum() == 1
    assert torch.equal(made[~found.steered], plain[~found.steered])
    torch.testing.assert_close(made[found.steered], men[found.steered], rtol=0, atol=1e-5 * float(men.abs().max()))
    assert not torch.allclose(made[found.steered], plain[found.steered])
    assert torch.equal(run(pipe), plain)


def test_auto_takes_the_first_reader_that_is_good_enough_in_any_number_of_steps(
    pipe: Any, vectors: SteeringVectors
) -> None:
    for num_steps, until in ((NUM_STEPS, 4), (2 * NUM_STEPS, 8)):
        seen: list[tuple[int, int]] = []

        def note(tokens: Tensor, site: Any, clock: StepClock) -> None:
            seen.append((clock.step, len(tokens)))  # noqa: B023

        backbone = icm_pipeline.attach(pipe)
        with icm_pipeline.steer(pipe, vectors, shares=HALVES) as looks, hooked(backbone, [READ], note):
            make(pipe, num_steps=num_steps)
        assert looks[0].reader is vectors.readers[1]
        assert [step for step, _ in seen].index(0, 1) == until
        assert [shown for _, shown in seen] == [4] * until + [1] * until + [4] * (num_steps - until)


def test_auto_looks_at_least_at_the_first_steered_step(pipe: Any, vectors: SteeringVectors) -> None:
    good_early = replace(vectors, readers=(replace(vectors.readers[0], accuracy=1.0), vectors.readers[1]))
    with icm_pipeline.steer(pipe, good_early, shares=HALVES, window=(3, None)) as looks:
        run(pipe)
    assert looks[0].reader is vectors.readers[1]


def test_auto_says_so_where_no_good_reader_reads_the_window(pipe: Any, vectors: SteeringVectors) -> None:
    good_early = [replace(reader, accuracy=1.6 - reader.accuracy) for reader in vectors.readers]
    for used, first in ((vectors, 4), (replace(vectors, readers=tuple(good_early)), 3)):
        refused = icm_pipeline.steer(pipe, used, shares=HALVES, window=(first, None))
        with pytest.raises(ValueError, match=rf"look=auto: steering begins at step {first} of this run's 6"), refused:
            run(pipe)


def test_a_dictionary_of_shares_is_for_each_call_and_a_balance_for_all(pipe: Any, vectors: SteeringVectors) -> None:
    plain = [alone(pipe, seed) for seed in range(6)]
    with icm_pipeline.steer(pipe, vectors, shares=HALVES, look=2) as looks:
        made = [alone(pipe, seed) for seed in range(6)]
    assert all(map(torch.equal, made, plain))
    assert not any(look.steered.any() for look in looks)
    balance = Balance(HALVES)
    with icm_pipeline.steer(pipe, vectors, shares=balance, look=2) as looks:
        made = [alone(pipe, seed) for seed in range(6)]
    assert balance.counts == {"woman": 3, "man": 3}
    steered = [bool(look.steered[0]) for look in looks]
    assert any(steered) and not all(steered)
    assert [torch.equal(new, old) for new, old in zip(made, plain, strict=True)] == [not each for each in steered]


def test_a_balance_and_the_looks_count_only_runs_that_end_well(pipe: Any, vectors: SteeringVectors) -> None:
    balance = Balance(HALVES)

    def fail(pipe: Any, index: int, timestep: Any, inputs: Any) -> Any:
        if index == NUM_STEPS:  # after the choice
            raise KeyboardInterrupt
        return inputs

    def interrupt(pipe: Any, index: int, timestep: Any, inputs: Any) -> Any:
        pipe._interrupt = index == NUM_STEPS
        return inputs

    with icm_pipeline.steer(pipe, vectors, shares=balance, look=2) as looks:
        with pytest.raises(KeyboardInterrupt):
            run(pipe, callback_on_step_end=fail)
        run(pipe, callback_on_step_end=interrupt)
        assert not looks
        run(pipe)
        assert len(looks) == 1
    assert sum(balance.counts.values()) == NUM_IMAGES
    with pytest.raises(KeyboardInterrupt), icm_pipeline.steer(pipe, vectors, shares=balance, look=2):
        run(pipe, callback_on_step_end=fail)
    assert sum(balance.counts.values()) == NUM_IMAGES


def test_an_image_that_fails_after_the_loop_is_not_counted(
    pipe: Any, vectors: SteeringVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError("decoding")

    monkeypatch.setattr(pipe.vae, "decode", full)
    balance = Balance(HALVES)
    with icm_pipeline.steer(pipe, vectors, shares=balance, look=2), pytest.raises(MemoryError):
        pipe("a face", num_inference_steps=NUM_STEPS)
    assert balance.counts == {"woman": 0, "man": 0}


def test_each_prompt_of_a_call_gets_its_shares_where_prompts_are_known(pipe: Any, vectors: SteeringVectors) -> None:
    """Of the two images of one prompt both show a woman, so that one of them changes; of the other's none."""
    with icm_pipeline.steer(pipe, vectors, shares=HALVES, look=2) as looks:
        run(pipe)
        embeds = {"prompt_embeds": torch.randn(2, 4, 32), "negative_prompt_embeds": torch.zeros(2, 4, 32)}
        pipe(**embeds, num_images_per_prompt=2, num_inference_steps=NUM_STEPS, output_type="latent")
    by_prompt, whole = looks
    assert [sorted(by_prompt.options[place : place + 2]) for place in (0, 2)] == [["man", "woman"]] * 2  # type: ignore[type-var]
    assert whole.options.count("man") == whole.options.count("woman") == 2
    shown = whole.probabilities.argmax(1)
    assert whole.steered.sum() == abs(shown.sum() - 2)


def test_images_whose_prompt_names_an_option_are_left_alone_and_not_counted(
    pipe: Any, vectors: SteeringVectors
) -> None:
    told, balance = replace(vectors, words={"woman": ["face"], "man": ["man"]}), Balance({"woman": 0.0, "man": 1.0})
    plain = run(pipe)
    with icm_pipeline.steer(pipe, told, shares=balance, look=2) as looks:
        made = run(pipe)
    assert looks[0].options == (None, None, "man", "man")
    assert not looks[0].steered[:2].any()
    assert torch.equal(made[:2], plain[:2])
    assert balance.counts == {"woman": 0, "man": 2}
    with icm_pipeline.steer(pipe, replace(told, words={"woman": ["face", "dog"]}), shares=HALVES, look=2) as looks:
        assert torch.equal(run(pipe), plain)
    assert looks[0].options == (None,) * 4


def test_the_order_of_shares_is_the_users_own(pipe: Any, vectors: SteeringVectors) -> None:
    turned = Balance({"man": 1.0, "woman": 0.0})
    with icm_pipeline.steer(pipe, vectors, shares=turned, look=2) as looks:
        run(pipe)
    assert looks[0].options == ("man",) * 4
    assert looks[0].steered.sum() == 3
    assert turned.counts == {"man": 4, "woman": 0}


def test_each_image_keeps_an_alpha_of_its_own(pipe: Any, vectors: SteeringVectors) -> None:
    everyone = {"man": 1.0, "woman": 0.0}
    with icm_pipeline.steer(pipe, vectors, option="man", alpha=[0.0, 1.0, 2.0, 3.0]):
        expected = run(pipe)
    with icm_pipeline.steer(pipe, vectors, shares=everyone, look=2, alpha=[0.0, 1.0, 2.0, 3.0]) as looks:
        made = run(pipe)
    chosen = looks[0].steered
    torch.testing.assert_close(made[chosen], expected[chosen], rtol=0, atol=1e-5 * float(expected.abs().max()))
    refused = icm_pipeline.steer(pipe, vectors, shares=HALVES, look=2, alpha=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"2 alphas were given for 4 image\(s\)"), refused:
        run(pipe)


def test_each_option_has_the_alpha_that_was_searched_for_it(pipe: Any, vectors: SteeringVectors) -> None:
    tuned = replace(vectors, tuned={"woman": Tuned(9.0), "man": Tuned(0.5)})
    made = {}
    for name, (used, alpha) in {"searched": (tuned, None), "given": (vectors, 0.5), "usual": (tuned, 2.0)}.items():
        with icm_pipeline.steer(pipe, used, shares=HALVES, look=4, alpha=alpha) as looks:
            made[name] = run(pipe)
    (found,) = looks
    assert found.steered.sum() == 1
    assert torch.equal(made["searched"], made["given"])
    assert not torch.allclose(made["searched"][found.steered], made["usual"][found.steered])


def test_vectors_from_a_file_look_as_well(pipe: Any, vectors: SteeringVectors, tmp_path: Path) -> None:
    vectors.save(tmp_path / "gender.safetensors")
    with icm_pipeline.steer(pipe, vectors, shares=HALVES, look=2):
        expected = run(pipe)
    with icm_pipeline.steer(pipe, tmp_path / "gender.safetensors", shares=HALVES, look=2):
        assert torch.equal(run(pipe), expected)


def test_steering_another_way_around_a_look_stays_as_it_is(pipe: Any, vectors: SteeringVectors) -> None:
    """An outer steer with an option for each image meets calls with some images' rows."""
    other = replace(vectors, directions={READ.replace("attn2", "attn1"): torch.ones(NUM_STEPS, 2, 32) / 32**0.5})
    other = replace(other, mean_norms={layer: torch.ones(NUM_STEPS) for layer in other.directions})
    options = ["woman", "man", "woman", "man"]
    with icm_pipeline.steer(pipe, other, option=options, alpha=[1.0, 2.0, 3.0, 4.0]):
        plain = run(pipe)
        with icm_pipeline.steer(pipe, vectors, option="man"):
            men = run(pipe)
        with icm_pipeline.steer(pipe, vectors, shares=HALVES, look=2) as looks:
            made = run(pipe)
    steered = looks[0].steered
    assert 0 < steered.sum() < 4
    assert torch.equal(made[~steered], plain[~steered])
    torch.testing.assert_close(made[steered], men[steered], rtol=0, atol=1e-5 * float(men.abs().max()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "Give option=, to steer every image, or shares="),
        ({"option": "man", "shares": HALVES}, "Give option=, to steer every image, or shares="),
        ({"option": "man", "look": 3}, "Give option=, to steer every image, or shares="),
        ({"shares": {"woman": 0.5, "man": 0.6}}, r"add up to 1\.1"),
        ({"shares": {"woman": 0.5, "child": 0.5}}, "give one for each of woman, man, and no other"),
        ({"shares": {"woman": 0.5, "man": 0.3, "child": 0.2}}, "give one for each of woman, man"),
        ({"shares": Balance({"a": 0.5, "b": 0.5})}, "shares of a, b: give one for each of woman, man"),
        ({"shares": [0.5, 0.5]}, "say which option each is of"),
        ({"shares": HALVES, "look": 0}, "look=0: give a number of steps"),
        ({"shares": HALVES, "look": 2.5}, r"look=2\.5: give a number of steps"),
        ({"shares": HALVES, "look": "soon"}, "look='soon': give a number of steps"),
        ({"shares": HALVES, "alpha": 2.0, "layers": ["elsewhere"]}, "elsewhere"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    pipe: Any, vectors: SteeringVectors, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message), icm_pipeline.steer(pipe, vectors, **wrong):
        pytest.fail("the context must not be entered")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: replace(v, readers=()), "hold no readers"),
        (lambda v: replace(v, tuned={"man": Tuned(1.0)}), "No alpha was searched for woman; .* man: give alpha="),
        (lambda v: replace(v, readers=v.readers[:1]), r"no reader foretells 90%.* 0\.60 after 2"),
    ],
)
def test_vectors_that_lack_what_is_needed_say_so(
    pipe: Any, vectors: SteeringVectors, change: Callable[[SteeringVectors], SteeringVectors], message: str
) -> None:
    with (
        pytest.raises(ValueError, match=message),
        icm_pipeline.steer(pipe, change(vectors), shares=HALVES, look="auto"),
    ):
        pytest.fail("the context must not be entered")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"look": NUM_STEPS + 1}, rf"look={NUM_STEPS + 1}: give a number of steps from 1 to {NUM_STEPS}"),
        ({"look": 2, "window": (3, None)}, "look=2 ends before steering begins, at step 3"),
        ({"look": 3, "window": (3, None)}, "look at 4 steps or more"),
    ],
)
def test_a_look_beyond_the_run_or_before_the_window_is_refused_when_the_run_begins(
    pipe: Any, vectors: SteeringVectors, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message), icm_pipeline.steer(pipe, vectors, shares=HALVES, **how):
        run(pipe)
    assert "step" not in vars(pipe.scheduler)
