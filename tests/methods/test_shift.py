"""The shift: alpha times each image's own direction, on the conditional rows, in the asked steps, and nothing else."""

import math
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from icm_pipeline.backbones.base import Backbone, Call, Site
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks import hooked as hooking
from icm_pipeline.hooks.clock import StepClock, noise_levels
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1"
SITE = Site(LAYER, "self_attention")
WIDTH = 64
NUM_OPTIONS = 3
LEVELS = tuple(math.sin(math.pi / 2 * (1 - step / 41)) for step in range(41))  # evenly spread as angles


@pytest.fixture(scope="module")
def vectors() -> SteeringVectors:
    """Return random unit directions for four steps and three options of one layer."""
    drawn = torch.randn(4, NUM_OPTIONS, WIDTH, generator=torch.Generator().manual_seed(0))
    return SteeringVectors(
        directions={LAYER: torch.nn.functional.normalize(drawn, dim=-1)},
        mean_norms={LAYER: torch.tensor([1.0, 2.0, 4.0, 8.0])},
        steps=(0, 1, 2, 3),
        noise_levels=LEVELS[:4],
        options=("a", "b", "c"),
        model="random",
        attribute="letter",
    )


def tokens_of(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, 16, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)


def at(step: int) -> StepClock:
    clock = StepClock()
    clock.start(LEVELS)
    clock.stand_at(step)
    return clock


def moved_by(shift: Shift, tokens: Tensor, step: int) -> Tensor:
    moved = shift(tokens, SITE, at(step))
    return torch.zeros_like(tokens) if moved is None else moved - tokens


class Operations(TorchDispatchMode):
    """The names of the operations that run inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


def outputs_of(backbone: Backbone, jobs: list[Job], shift: Shift) -> tuple[list[Tensor], list[Tensor]]:
    """Return the layer's outputs before and after the shift, one per step, whole batches."""
    before: list[Tensor] = []
    after: list[Tensor] = []
    module = backbone.denoiser.get_submodule(LAYER)
    first = module.register_forward_hook(lambda module, args, output: before.append(output.clone()))
    try:
        with hooked(backbone, [LAYER], shift, len(jobs)):
            last = module.register_forward_hook(lambda module, args, output: after.append(output.clone()))
            denoise(backbone, jobs)
            last.remove()
    finally:
        first.remove()
    return before, after


def test_alpha_zero_changes_nothing_bitwise(backbone: Backbone, jobs: list[Job], vectors: SteeringVectors) -> None:
    plain = denoise(backbone, jobs)
    with hooked(backbone, [LAYER], Shift(vectors, [0, 1, 2, 0], Strength(0.0)), len(jobs)):
        assert torch.equal(denoise(backbone, jobs), plain)


def test_another_alpha_changes_the_latents(backbone: Backbone, jobs: list[Job], vectors: SteeringVectors) -> None:
    plain = denoise(backbone, jobs)
    with hooked(backbone, [LAYER], Shift(vectors, [0, 1, 2, 0], Strength(1.0)), len(jobs)):
        assert not torch.equal(denoise(backbone, jobs), plain)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_a_shift_touches_exactly_the_conditional_rows_by_alpha_times_the_direction(
    backbone: Backbone, jobs: list[Job], vectors: SteeringVectors, guidance_scale: float
) -> None:
    assert backbone.sampling is not None
    chosen = replace(backbone, sampling=replace(backbone.sampling, guidance_scale=guidance_scale))
    options, levels = [2, 0, 1, 2], noise_levels(backbone.pipe.scheduler)
    before, after = outputs_of(
        chosen, jobs, Shift(replace(vectors, noise_levels=tuple(levels)), options, Strength(1.5))
    )
    half = len(jobs) if guidance_scale > 1 else 0
    for step, (old, new) in enumerate(zip(before, after, strict=True)):
        expected = 1.5 * vectors.directions[LAYER][step, options]
        assert torch.equal(new[:half], old[:half])
        assert torch.equal(new[half:], old[half:] + expected[:, None, :])


def test_each_image_of_a_batch_is_steered_as_it_would_be_alone(
    backbone: Backbone, jobs: list[Job], vectors: SteeringVectors
) -> None:
    options, alone = [0, 1, 2, 1], []
    with hooked(backbone, [LAYER], Shift(vectors, options, Strength(2.0)), len(jobs)):
        together = denoise(backbone, jobs)
    for job, option in zip(jobs, options, strict=True):
        with hooked(backbone, [LAYER], Shift(vectors, [option], Strength(2.0)), 1):
            alone.append(denoise(backbone, [job]))
    scale = float(together.abs().max())
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("relative", [False, True])
def test_several_alphas_in_one_batch_give_what_each_gives_in_a_run_of_its_own(
    backbone: Backbone, jobs: list[Job], vectors: SteeringVectors, relative: bool
) -> None:
    alphas, job, apart = [0.0, 1.0, -2.0, 4.0], jobs[0], []
    with hooked(
        backbone, [LAYER], Shift(vectors, 1, Strength(alphas, "relative" if relative else "activation")), len(alphas)
    ):
        together = denoise(backbone, [job] * len(alphas))
    for alpha in alphas:
        with hooked(backbone, [LAYER], Shift(vectors, 1, Strength(alpha, "relative" if relative else "activation")), 1):
            apart.append(denoise(backbone, [job]))
    scale = float(together.abs().max())
    torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=1e-5 * scale)
    assert len({float(latents.abs().sum()) for latents in apart}) == len(alphas)


def test_vectors_of_zeros_are_refused_rather_than_steering_nothing(vectors: SteeringVectors) -> None:
    zeros = replace(vectors, directions={LAYER: torch.zeros(4, NUM_OPTIONS, WIDTH)})
    with pytest.raises(ValueError, match=r"directions are 0 in all layers, which steers nothing: .* Fit them to"):
        Shift(zeros, 1, Strength(2.0))
    some = {**zeros.directions, "another": vectors.directions[LAYER]}
    assert moved_by(Shift(replace(vectors, directions=some), 1, Strength(2.0)), tokens_of(2), 1).eq(0).all()
    assert Shift(zeros, 1, Strength(0.0))(tokens_of(2), SITE, at(1)) is None


def test_an_alpha_for_each_image_must_be_one_for_each(vectors: SteeringVectors) -> None:
    with pytest.raises(ValueError, match=r"2 alphas were given for 3 image"):
        Shift(vectors, 0, Strength([1.0, 2.0]))(tokens_of(3), SITE, at(0))


def test_images_of_different_options_move_differently(vectors: SteeringVectors) -> None:
    moved = moved_by(Shift(vectors, [0, 1], Strength(1.0)), tokens_of(1).expand(2, -1, -1), 0)
    assert (moved[0] - moved[1]).norm(dim=-1).min() > 0.1


@pytest.mark.parametrize("alpha", [1.0, -1.0, 15.0])
def test_every_token_moves_by_the_length_of_alpha(vectors: SteeringVectors, alpha: float) -> None:
    moved = moved_by(Shift(vectors, [1, 2], Strength(alpha)), tokens_of(2), 0)
    torch.testing.assert_close(moved.norm(dim=-1), torch.full((2, 16), abs(alpha)), rtol=1e-4, atol=1e-4)


def test_the_sign_of_alpha_picks_the_side(vectors: SteeringVectors) -> None:
    direction = vectors.directions[LAYER][0, 1]
    for alpha in (1.0, -1.0):
        moved = moved_by(Shift(vectors, [1], Strength(alpha)), tokens_of(1), 0)
        torch.testing.assert_close(moved @ direction, torch.full((1, 16), alpha), rtol=1e-4, atol=1e-4)


def test_the_tokens_given_are_not_written_to(vectors: SteeringVectors) -> None:
    tokens = tokens_of(2)
    for norm_preserving in (False, True):
        Shift(vectors, [0, 1], Strength(3.0, norm_preserving=norm_preserving))(tokens, SITE, at(0))
    assert torch.equal(tokens, tokens_of(2))


def test_each_step_has_its_own_direction(vectors: SteeringVectors) -> None:
    shift, tokens = Shift(vectors, [0], Strength(1.0)), torch.zeros(1, 2, WIDTH)
    for step in range(4):
        assert torch.equal(moved_by(shift, tokens, step)[0, 0], vectors.directions[LAYER][step, 0])


def test_a_step_that_was_not_recorded_takes_the_nearest(vectors: SteeringVectors) -> None:
    sparse = replace(vectors, steps=(0, 4, 8, 12), noise_levels=LEVELS[0:13:4])
    shift, tokens = Shift(sparse, [0], Strength(1.0)), torch.zeros(1, 2, WIDTH)
    nearest = {0: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 1, 7: 2, 12: 3, 40: 3}
    for step, slot in nearest.items():
        assert torch.equal(moved_by(shift, tokens, step)[0, 0], sparse.directions[LAYER][slot, 0])


@pytest.mark.parametrize(
    ("first_step", "last_step", "steered"),
    [(0, None, [0, 1, 2, 3]), (2, None, [2, 3]), (0, 1, [0, 1]), (1, 2, [1, 2]), (3, 3, [3]), (4, None, [])],
)
def test_only_steps_of_the_window_are_steered(
    vectors: SteeringVectors, first_step: int, last_step: int | None, steered: list[int]
) -> None:
    shift = Shift(vectors, [0], Strength(1.0, first_step=first_step, last_step=last_step))
    assert [step for step in range(4) if shift(tokens_of(1), SITE, at(step)) is not None] == steered


def test_steps_before_the_window_are_bitwise_those_of_no_steering(
    backbone: Backbone, jobs: list[Job], vectors: SteeringVectors
) -> None:
    plain, _ = outputs_of(backbone, jobs, Shift(vectors, [0] * 4, Strength(0.0)))
    before, after = outputs_of(backbone, jobs, Shift(vectors, [0] * 4, Strength(1.0, first_step=2)))
    assert all(torch.equal(a, b) for a, b in zip(after[:2], plain[:2], strict=True))
    assert not torch.equal(after[2], before[2])


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_relative_alpha_is_a_multiple_of_the_layers_mean_activation_length(
    vectors: SteeringVectors, step: int
) -> None:
    tokens = torch.zeros(1, 2, WIDTH)
    relative = moved_by(Shift(vectors, [0], Strength(0.5, "relative")), tokens, step)
    mean_norm = float(vectors.mean_norms[LAYER][step])
    torch.testing.assert_close(relative, moved_by(Shift(vectors, [0], Strength(0.5 * mean_norm)), tokens, step))


def test_an_absolute_alpha_does_not_know_the_mean_activation_length(vectors: SteeringVectors) -> None:
    longer = replace(vectors, mean_norms={LAYER: 10 * vectors.mean_norms[LAYER]})
    moved = [moved_by(Shift(v, [0], Strength(0.5)), tokens_of(1), 1) for v in (vectors, longer)]
    assert torch.equal(*moved)


def test_norm_preserving_gives_every_token_its_length_back(vectors: SteeringVectors) -> None:
    tokens = tokens_of(2)
    moved = Shift(vectors, [0, 1], Strength(5.0, norm_preserving=True))(tokens, SITE, at(0))
    assert moved is not None
    torch.testing.assert_close(moved.norm(dim=-1), tokens.norm(dim=-1))


def test_norm_preserving_still_turns_tokens_towards_the_direction(vectors: SteeringVectors) -> None:
    tokens, direction = tokens_of(1), vectors.directions[LAYER][0, 0]
    moved = Shift(vectors, [0], Strength(5.0, norm_preserving=True))(tokens, SITE, at(0))
    assert moved is not None
    assert ((moved - tokens) @ direction > 0.1).all()


def test_without_norm_preserving_lengths_change(vectors: SteeringVectors) -> None:
    moved = Shift(vectors, [0], Strength(5.0))(tokens_of(1), SITE, at(0))
    assert moved is not None
    assert not torch.allclose(moved.norm(dim=-1), tokens_of(1).norm(dim=-1), rtol=0.01)


def test_norm_preserving_keeps_a_token_of_zeros(vectors: SteeringVectors) -> None:
    moved = Shift(vectors, [0], Strength(5.0, norm_preserving=True))(torch.zeros(1, 2, WIDTH), SITE, at(0))
    assert moved is not None
    assert torch.equal(moved, torch.zeros(1, 2, WIDTH))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm_preserving", [False, True])
def test_the_tokens_keep_their_precision(vectors: SteeringVectors, dtype: torch.dtype, norm_preserving: bool) -> None:
    moved = Shift(vectors, [0], Strength(1.0, norm_preserving=norm_preserving))(tokens_of(1, dtype), SITE, at(0))
    assert moved is not None
    assert moved.dtype == dtype
    assert torch.isfinite(moved).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("relative", [False, True])
def test_the_shift_is_rounded_once_to_the_tokens_precision(
    vectors: SteeringVectors, dtype: torch.dtype, relative: bool
) -> None:
    options, tokens = [2, 0, 1], tokens_of(3, dtype)
    shift = Shift(vectors, options, Strength(0.3, "relative" if relative else "activation"))
    for step in range(4):
        length = 0.3 * float(vectors.mean_norms[LAYER][step]) if relative else 0.3
        expected = (length * vectors.directions[LAYER][step, options]).to(dtype)
        moved = shift(tokens, SITE, at(step))
        assert moved is not None
        assert torch.equal(moved, tokens + expected[:, None, :])


def test_a_layers_vectors_are_brought_to_the_tokens_once_and_only_added_afterwards(vectors: SteeringVectors) -> None:
    shift, tokens = Shift(vectors, [0, 1], Strength(1.0, "relative")), tokens_of(2, torch.float16)
    seen: list[list[str]] = []
    for step in range(4):
        with Operations() as operations:
            shift(tokens, SITE, at(step))
        seen.append(operations.names)
    assert "_to_copy" in seen[0]
    assert seen[1:] == 3 * [["add"]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm_preserving", [False, True])
def test_writing_into_tokens_gives_what_a_call_gives_to_the_bit(
    vectors: SteeringVectors, dtype: torch.dtype, norm_preserving: bool
) -> None:
    shift = Shift(vectors, [2, 0], Strength(0.3, "relative", first_step=1, norm_preserving=norm_preserving))
    for step in range(4):
        tokens = tokens_of(2, dtype)
        moved = shift(tokens, SITE, at(step))
        shift.write_into(tokens, SITE, at(step))
        assert torch.equal(tokens, tokens_of(2, dtype) if moved is None else moved)


def in_call(step: int, num_images: int, rows: slice, num_rows: int) -> StepClock:
    clock = at(step)
    clock.begin_call(Call(num_rows, num_images, index=0), rows)
    return clock


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 4), slice(2, None), slice(4, 6)])
@pytest.mark.parametrize("options", [1, [2, 0]])
def test_all_rows_are_shifted_as_the_conditional_ones_and_no_other_number_changes(
    vectors: SteeringVectors, dtype: torch.dtype, rows: slice, options: int | list[int]
) -> None:
    shift, num_rows = Shift(vectors, options, Strength(0.3, "relative", first_step=1)), max(4, rows.stop or 0)
    assert shift.of_all_rows is not None
    tokens = tokens_of(num_rows, dtype)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, torch.finfo(dtype).tiny / 2])
    tokens[:, 0, : len(special)] = special.to(dtype)
    for step in range(4):
        moved = shift.of_all_rows(tokens, SITE, in_call(step, 2, rows, num_rows))
        expected, one_half = tokens.clone(), shift(tokens[rows], SITE, at(step))
        if one_half is None:
            assert moved is None
            continue
        assert moved is not None
        expected[rows] = one_half
        bits = {2: torch.int16, 4: torch.int32}[dtype.itemsize]
        finite = ~expected.isnan()
        assert torch.equal(moved.isnan(), ~finite)
        assert torch.equal(moved.view(bits)[finite], expected.view(bits)[finite])
    assert step == 3


def test_all_rows_are_shifted_in_one_operation(vectors: SteeringVectors) -> None:
    shift = Shift(vectors, [0, 1], Strength(1.0, "relative"))
    assert shift.of_all_rows is not None
    for step in range(3):
        clock = in_call(step, 2, slice(2, 4), 4)
        with Operations() as operations:
            shift.of_all_rows(tokens_of(4), SITE, clock)
    assert [name for name in operations.names if "randn" not in name] == ["add"]


def test_the_shift_of_all_rows_follows_the_calls_layout_and_batch(vectors: SteeringVectors) -> None:
    shift = Shift(vectors, 2, Strength(1.0))
    assert shift.of_all_rows is not None
    for rows, num_images, num_rows in (
        (slice(0, 2), 2, 4),
        (slice(2, 4), 2, 4),
        (slice(3, 6), 3, 6),
        (slice(0, 1), 1, 1),
    ):
        tokens = tokens_of(num_rows)
        moved = shift.of_all_rows(tokens, SITE, in_call(0, num_images, rows, num_rows))
        assert moved is not None
        changed = (moved != tokens).flatten(1).any(1)
        assert changed.nonzero().flatten().tolist() == list(range(num_rows))[rows]


def test_another_number_of_options_than_of_images_is_refused_for_all_rows_too(vectors: SteeringVectors) -> None:
    shift = Shift(vectors, [0, 1], Strength(1.0))
    assert shift.of_all_rows is not None
    with pytest.raises(ValueError, match=r"2 options were given for 3 image\(s\)"):
        shift.of_all_rows(tokens_of(6), SITE, in_call(0, 3, slice(3, 6), 6))


def test_a_shift_that_keeps_norms_looks_at_conditional_rows_alone(vectors: SteeringVectors) -> None:
    assert Shift(vectors, [0], Strength(1.0, norm_preserving=True)).of_all_rows is None


@pytest.mark.parametrize("options", [1, [2, 0, 1, 1]])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_picture_is_the_same_whichever_way_outputs_are_shifted(
    backbone: Backbone, jobs: list[Job], options: int | list[int], depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs of all rows, in place and copied; depth: contexts around one another."""
    layers = [site.layer for site in backbone.sites if site.kind == "self_attention"]
    generator, directions = torch.Generator().manual_seed(0), dict[str, Tensor]()
    for layer in layers:
        width_of = backbone.denoiser.get_submodule(layer).to_out[0].out_features  # type: ignore[index,union-attr]
        drawn = torch.randn(4, NUM_OPTIONS, width_of, generator=generator)
        directions[layer] = torch.nn.functional.normalize(drawn, dim=-1)
    levels = tuple(noise_levels(backbone.pipe.scheduler)[:4])
    vectors = SteeringVectors(directions, {layer: torch.ones(4) for layer in layers}, (0, 1, 2, 3), levels,
                              ("a", "b", "c"), "random", "letter")  # fmt: skip
    pictures = list[Tensor]()
    for most in (0, 1 << 30):
        monkeypatch.setattr(hooking, "SMALL_ON_CPU", most)
        with ExitStack() as stack:
            for _ in range(depth):
                stack.enter_context(hooked(backbone, layers, Shift(vectors, options, Strength(2.0)), len(jobs)))
            pictures.append(denoise(backbone, jobs))
    assert torch.equal(*pictures)


def test_a_shift_follows_tokens_of_another_precision(vectors: SteeringVectors) -> None:
    shift = Shift(vectors, [0], Strength(1.0))
    for dtype in (torch.float16, torch.float32, torch.float16):
        moved = shift(tokens_of(1, dtype), SITE, at(0))
        assert moved is not None
        assert moved.dtype == dtype


@pytest.mark.parametrize(("dtype", "alpha"), [(torch.float16, 1e6), (torch.float32, 1e39), (torch.float32, math.nan)])
def test_a_shift_that_is_not_finite_is_refused_and_one_that_fits_the_precision_is_not(
    vectors: SteeringVectors, dtype: torch.dtype, alpha: float
) -> None:
    broken = {LAYER: vectors.directions[LAYER] * (math.nan if math.isnan(alpha) else 1.0)}
    shift = Shift(replace(vectors, directions=broken), [0], Strength(1.0 if math.isnan(alpha) else alpha))
    with pytest.raises(ValueError, match=f"NaN or infinite in {str(dtype)[6:]}"):
        shift(tokens_of(1, dtype), SITE, at(0))
    assert Shift(vectors, [0], Strength(1e3))(tokens_of(1, dtype), SITE, at(0)) is not None
