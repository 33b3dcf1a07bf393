"""method=h_distribution: a batch's shares are moved to the target along their gradient, fair ones left alone."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.h_distribution import METHOD, moved_to
from icm_pipeline.methods.learnt import FILE, Learnt
from icm_pipeline.methods.registry import check_method, method_named
from icm_pipeline.pipeline.keys import Keys
from tests.helpers.planted_fits import probe_data, with_bottleneck
from tests.helpers.results import as_artifact
from tests.helpers.running import Run, pixels

WEIGHTS = torch.tensor([[1.0, 0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0, 0]])
NUMBERS = {"weights": WEIGHTS, "bias": torch.zeros(2), "norm": torch.tensor(2.0)}
EVEN = torch.tensor([0.5, 0.5])


def shares(tokens: Tensor) -> Tensor:
    return (tokens.flatten(1) @ WEIGHTS.mT).softmax(1).mean(0)


def skewed() -> Tensor:
    tokens = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0))
    tokens[:, 0, 0] += 1
    return tokens


def test_shares_come_to_the_target_step_by_step_and_only_along_what_the_classifier_reads() -> None:
    tokens = skewed()
    moved = tokens
    for _ in range(60):
        moved = moved_to(moved, NUMBERS, None, EVEN, 0.3, "relative")
    assert (shares(tokens)[0] - 0.5).abs() > 0.2
    assert (shares(moved)[0] - 0.5).abs() < 0.02
    assert torch.equal(moved.flatten(1)[:, 1:], tokens.flatten(1)[:, 1:])
    towards = torch.tensor([0.2, 0.8])
    for _ in range(60):
        moved = moved_to(moved, NUMBERS, None, towards, 0.3, "relative")
    assert (shares(moved) - towards).abs().max() < 0.02


def test_a_move_is_down_the_gradient_of_the_divergence_and_as_long_as_was_asked() -> None:
    tokens, small = skewed(), 1e-3

    def divergence(changed: Tensor) -> Tensor:
        found = shares(changed)
        return (found * (found / EVEN).log()).sum()

    move = moved_to(tokens, NUMBERS, None, EVEN, 0.3, "relative") - tokens
    slopes = []
    for image in range(len(tokens)):
        nudged = tokens.clone()
        nudged[image, 0, 0] += small
        slopes.append((divergence(nudged) - divergence(tokens)) / small)
    slope = torch.stack(slopes)
    torch.testing.assert_close(move[:, 0, 0] / move[0, 0, 0], slope / slope[0], rtol=0.05, atol=0.02)
    assert (move[:, 0, 0] * slope <= 0).all()
    left = (shares(tokens) - EVEN).abs().sum() / 2
    torch.testing.assert_close(move.flatten(1).norm(dim=1).mean(), 0.3 * 2.0 * left)
    absolute = moved_to(tokens, NUMBERS, None, EVEN, 0.3, "activation") - tokens
    torch.testing.assert_close(absolute * 2.0, move)


def test_a_fair_batch_is_left_alone_and_an_image_depends_on_its_batch() -> None:
    tokens = skewed()
    fair = torch.cat([tokens, tokens * torch.tensor([-1.0, 1.0])])
    torch.testing.assert_close(moved_to(fair, NUMBERS, None, EVEN, 0.3, "relative"), fair, atol=1e-3, rtol=0)
    whole, half = (moved_to(rows, NUMBERS, None, EVEN, 0.3, "relative")[:4] for rows in (tokens, tokens[:4]))
    assert not torch.allclose(whole, half)


def test_classifiers_fitted_to_planted_maps_tell_the_options_and_moving_to_one_is_moving_along_its_direction(
    tmp_path: Path, settings_with: Callable[..., Settings]
) -> None:
    labels, signs = np.arange(80) % 2, torch.tensor([1.0, -1.0]).repeat(40)
    maps = torch.randn(80, 2, 6, generator=torch.Generator().manual_seed(0))
    for step in range(2):  # along another direction at each
        maps[:, step, step] += 2 + 4 * signs
    settings = settings_with("method.name=h_distribution", "probe.group_by_prompt=false")
    inputs = MethodInputs(settings, {}, probe_data=probe_data(maps, labels))
    assert METHOD.fit is not None and METHOD.fit.run(with_bottleneck(), inputs, tmp_path) == 80
    found = load_file(tmp_path / FILE)
    for step in range(2):
        own = {name.removesuffix("/mid"): values[step] for name, values in found.items()}
        told = (maps[:, step] @ own["weights"].mT + own["bias"]).argmax(1)
        assert (told == torch.from_numpy(labels)).float().mean() > 0.95
        torch.testing.assert_close(own["norm"], maps[:, step].norm(dim=1).mean())
        moved = moved_to(maps[:, step, None], own, None, torch.tensor([0.9, 0.1]), 0.5, "relative")[:, 0]
        towards = (moved - maps[:, step]).mean(0)
        assert towards[step] == towards.abs().max()


def test_it_runs_through_the_stages_a_prompt_a_batch_and_draws_nothing(run: Run) -> None:
    words = ("generate.images_per_prompt=6", "method=h_distribution", "alpha=0.5")
    folder = run("steer", *words)
    assert pixels(folder) != pixels(run("originals"))
    with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
        assert {row["option"] for row in csv.DictReader(file)} == {""}


def test_both_halves_of_guidance_are_read_and_moved_as_one_batch_where_that_is_asked(
    backbone: Backbone, jobs: list[Job], tmp_path: Path, settings_with: Callable[..., Settings]
) -> None:
    seen = list[Tensor]()

    def note(module: object, args: object, output: Tensor) -> None:
        seen.append(output.detach().flatten(2).mT.float())

    def first_maps(rows: str) -> tuple[Tensor, Tensor]:
        """Return what the middle block gives at the first step, and what becomes of it."""
        inputs = MethodInputs(
            settings_with("method.name=h_distribution", f"method.params.rows={rows}", "alpha=0.5"), {"fit": fit}
        )
        seen.clear()
        before = backbone.denoiser.mid_block.register_forward_hook(note)
        with METHOD.applied(backbone, inputs, jobs):
            after = backbone.denoiser.mid_block.register_forward_hook(note)
            denoise(backbone, jobs)
        before.remove()
        after.remove()
        return seen[0], seen[1]

    numbers = {"weights": torch.randn(1, 2, 16 * 64) / 50, "bias": torch.zeros(1, 2), "norm": torch.tensor([2.0])}
    Learnt({"mid_block": numbers}, [1.0]).save(tmp_path)
    fit, target = as_artifact(tmp_path, "", FILE), torch.tensor([0.5, 0.5])
    own = {name: values[0] for name, values in numbers.items()}
    plain, moved = first_maps("both")
    assert len(plain) == 2 * len(jobs)
    torch.testing.assert_close(moved, moved_to(plain, own, None, target, 0.5, "relative"), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(moved[:4], plain[:4])
    plain, moved = first_maps("conditional")
    assert torch.equal(moved[:4], plain[:4])
    expected = moved_to(plain[4:], own, None, target, 0.5, "relative")
    torch.testing.assert_close(moved[4:], expected, atol=1e-4, rtol=1e-4)


def test_rows_are_part_of_the_key_only_where_they_are_not_the_conditional_ones(
    settings_with: Callable[..., Settings],
) -> None:
    name = ("method.name=h_distribution", "method.assignment=quota")
    before, told, both = (
        Keys(settings_with(*name, *words)).key("steer")
        for words in ((), ("method.params.rows=conditional",), ("method.params.rows=both",))
    )
    assert before == told != both
    with pytest.raises(ConfigError, match=r"method\.params\.rows=all is not known; choose from conditional, both"):
        check_method(settings_with(*name, "method.params.rows=all"))


@pytest.mark.parametrize(("group", "num_images", "size"), [(None, 500, 500), (32, 500, 25), (32, 96, 32), (8, 6, 6)])
def test_a_group_is_an_equal_part_of_a_prompts_images(
    settings_with: Callable[..., Settings], group: int | None, num_images: int, size: int
) -> None:
    words = [] if group is None else [f"method.params={{rows: conditional, group: {group}}}"]
    settings = settings_with("method.name=h_distribution", f"evaluate.images_per_prompt={num_images}", *words)
    assert METHOD.batch_size(settings, num_images) == size
    assert not METHOD.draws(settings)
    assert method_named("icm").batch_size(settings, num_images) == settings.compute.batch_size


def test_a_group_that_leaves_batches_of_hardly_any_image_is_refused_beforehand(
    settings_with: Callable[..., Settings],
) -> None:
    words = ("method.name=h_distribution", "evaluate.images_per_prompt=97", "method.params={group: 32}")
    with pytest.raises(ConfigError, match=r"group=32 makes batches of fewer than 4 of evaluate.images_per_prompt=97"):
        check_method(settings_with(*words))
    for group in ("-8", "0", "2.5"):
        with pytest.raises(ConfigError, match=rf"group={group} makes batches of fewer than 4"):
            check_method(settings_with(*words[:2], f"method.params={{group: {group}}}"))


def test_a_group_is_part_of_the_key_only_where_it_is_set(
    settings_with: Callable[..., Settings],
) -> None:
    plain = settings_with("method.name=h_distribution", "method.params={rows: conditional}")
    grouped = settings_with("method.name=h_distribution", "method.params={rows: conditional, group: 2}")
    assert Keys(plain).key("steer") != Keys(grouped).key("steer")
    assert Keys(plain).key("fit") == Keys(grouped).key("fit")
    assert "group" not in str(Keys(plain).content("steer"))
