"""Overlapping directions: how much is reported, and what becomes of them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from icm_pipeline import SteeringVectors, overlaps
from icm_pipeline.methods.orthogonal import orthogonal

SHARED, ALONE, WIDTH, STEPS = "shared", "alone", 12, 3


def drawn(seed: int, *shape: int) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=-1)


def made(attribute: str, directions: dict[str, Tensor]) -> SteeringVectors:
    num_steps, num_options, _ = next(iter(directions.values())).shape
    return SteeringVectors(
        directions=directions,
        mean_norms={layer: torch.ones(num_steps) for layer in directions},
        steps=tuple(range(num_steps)), noise_levels=tuple(0.9 - 0.1 * step for step in range(num_steps)),
        options=tuple(f"{attribute} {option}" for option in range(num_options)), model="planted", attribute=attribute,
    )  # fmt: skip


def pair(attribute: str, along: Tensor) -> SteeringVectors:
    """Return vectors of two opposite options, [steps, d]."""
    return made(attribute, {SHARED: torch.stack([along, -along], dim=1)})


def at_angle(cosine: float) -> tuple[SteeringVectors, SteeringVectors]:
    first, second = torch.eye(WIDTH)[0], torch.eye(WIDTH)[1]
    other = cosine * first + (1 - cosine**2) ** 0.5 * second
    return pair("gender", first.expand(STEPS, -1)), pair("age", other.expand(STEPS, -1))


def four(attribute: str, seed: int) -> SteeringVectors:
    """Return vectors of four options that span three dimensions, as a probe's do."""
    values = torch.randn(STEPS, 4, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = torch.nn.functional.normalize(values - values.mean(1, keepdim=True), dim=-1)
    return made(attribute, {SHARED: values.float(), ALONE + attribute: drawn(seed, STEPS, 4, WIDTH)})


@pytest.mark.parametrize("cosine", [0.0, 0.3, -0.6, 0.95])
def test_the_overlap_of_two_pairs_of_options_is_their_cosine(cosine: float) -> None:
    gender, age = at_angle(cosine)
    assert overlaps(gender, age) == {SHARED: pytest.approx(abs(cosine), abs=1e-6)}
    assert overlaps(*orthogonal([gender, age]))[SHARED] == pytest.approx(0, abs=1e-6)


def test_the_overlap_is_a_mean_over_steps_and_only_of_layers_that_several_have() -> None:
    first = torch.eye(WIDTH)[0].expand(STEPS, -1)
    gender = pair("gender", first)
    age = pair("age", torch.stack([torch.eye(WIDTH)[step] for step in range(STEPS)]))  # alike at step 0 alone
    assert overlaps(gender, age) == {SHARED: pytest.approx(1 / STEPS, abs=1e-6)}
    assert overlaps(gender, made("age", {ALONE: drawn(0, STEPS, 2, WIDTH)})) == {}


def test_of_two_directions_each_turns_by_half_of_what_is_missing() -> None:
    gender, age = at_angle(0.6)
    turned = orthogonal([gender, age])
    cosines = [
        (old.directions[SHARED] * new.directions[SHARED]).sum(-1)
        for old, new in zip((gender, age), turned, strict=True)
    ]
    assert torch.allclose(cosines[0], cosines[1], atol=1e-6)
    half = (torch.pi / 2 - torch.acos(torch.tensor(0.6))) / 2
    assert torch.allclose(cosines[0], half.cos(), atol=1e-6)


def test_all_options_of_all_attributes_are_orthogonal_of_unit_length_and_keep_their_angles() -> None:
    vectors = [four("a", 1), four("b", 2), pair("c", drawn(3, STEPS, WIDTH))]
    turned = orthogonal(vectors)
    for place, (old, new) in enumerate(zip(vectors, turned, strict=True)):
        before, after = old.directions[SHARED], new.directions[SHARED]
        assert after.dtype == torch.float32
        assert torch.allclose(after.norm(dim=-1), torch.ones(after.shape[:2]), atol=1e-6)
        assert torch.allclose(after @ after.mT, before @ before.mT, atol=1e-5)
        assert not torch.allclose(after, before, atol=0.01)
        for other in turned[place + 1 :]:
            assert (after @ other.directions[SHARED].mT).abs().max() < 1e-6


def test_the_order_of_the_attributes_makes_no_difference() -> None:
    vectors = [four("a", 1), four("b", 2), pair("c", drawn(3, STEPS, WIDTH))]
    turned, other_way = orthogonal(vectors), orthogonal(vectors[::-1])[::-1]
    for one, other in zip(turned, other_way, strict=True):
        assert torch.allclose(one.directions[SHARED], other.directions[SHARED], atol=1e-6)
    assert overlaps(*vectors) == pytest.approx(overlaps(*vectors[::-1]))


def test_what_one_attribute_has_alone_stays_as_it_is() -> None:
    vectors = [four("a", 1), four("b", 2)]
    for old, new in zip(vectors, orthogonal(vectors), strict=True):
        alone = ALONE + old.attribute
        assert torch.equal(new.directions[alone], old.directions[alone])
        assert replace(new, directions=old.directions) == old


def test_directions_that_are_orthogonal_already_are_not_moved() -> None:
    vectors = at_angle(0.0)
    for old, new in zip(vectors, orthogonal(vectors), strict=True):
        assert torch.allclose(new.directions[SHARED], old.directions[SHARED], atol=1e-6)


def test_directions_that_are_all_but_the_same_are_refused_with_the_layer() -> None:
    with pytest.raises(
        ValueError, match=r"In shared the directions of gender and age .* \(overlap 1\.000\).*of_layers"
    ):
        orthogonal(at_angle(0.9999))
    orthogonal(at_angle(0.99))


def test_vectors_of_other_steps_or_widths_are_refused_where_they_meet() -> None:
    gender, age = at_angle(0.5)
    moved = replace(age, noise_levels=tuple(level - 0.05 for level in age.noise_levels))
    fewer = made("age", {SHARED: drawn(0, STEPS - 1, 2, WIDTH)})
    wider = made("age", {SHARED: drawn(0, STEPS, 2, WIDTH + 1)})
    for other, message in ((moved, "other steps"), (fewer, "other steps"), (wider, "differ in width in shared")):
        with pytest.raises(ValueError, match=message):
            overlaps(gender, other)
        with pytest.raises(ValueError, match=message):
            orthogonal([gender, other])
