"""method=fair_finetuning: targets change few images, and gradients reach the weights through sampling."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.families.z_image import Z_IMAGE
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.prompt_embeddings import other_prompts
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.labelers.clip import ClipJudge
from icm_pipeline.methods import fair_finetuning, through_sampling
from icm_pipeline.methods.fair_finetuning import METHOD, _judge, loss_of, targets_of, trained_layers
from icm_pipeline.methods.registry import check_method
from icm_pipeline.methods.through_sampling import SampledRun, adjusted, low_rank, new_factors, run_sampled
from tests.helpers.models import load
from tests.helpers.pipelines import BUILDERS, build
from tests.helpers.running import Run, pixels

FEW = (
    "method=fair_finetuning", "method.params.updates=2", "method.params.images=2", "method.params.steps=2",
    "method.params.learning_rate=0.05",
)  # fmt: skip


def test_the_images_that_are_least_sure_are_given_the_rarer_option_and_those_at_the_boundary_no_target() -> None:
    woman = np.array([0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.6, 0.55, 0.02, 0.01] * 2)
    probabilities = np.stack([woman, 1 - woman], 1)
    targets, is_sure = targets_of(probabilities, [0.5, 0.5], np.random.default_rng(0))
    shown = probabilities.argmax(1)
    changed = targets != shown
    assert 4 <= changed.sum() <= 8
    assert changed[woman < 0.7].sum() == 4  # both kinds of doubtful women come first
    assert is_sure[woman < 0.1].all() and is_sure[woman == 0.99].all()
    assert not is_sure.all()
    fair, _ = targets_of(probabilities, [0.8, 0.2], np.random.default_rng(0))
    assert (fair != shown).sum() <= 2


def test_the_loss_is_the_cross_entropy_of_sure_targets_and_the_distance_from_the_original() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, generator=rng)
    now, before = (torch.nn.functional.normalize(torch.randn(4, 5, generator=rng), dim=1) for _ in range(2))
    targets, shown = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, 1])
    is_sure = torch.tensor([True, True, False, False])
    total = 0.0
    for image, weight in enumerate((1.0, 0.2, 1.0, 1.0)):  # the last has no target, so it does not flip
        if is_sure[image]:
            total -= float(logits[image].log_softmax(0)[targets[image]])
        total += 8.0 * weight * (1 - float(now[image] @ before[image]))
    assert float(loss_of(logits, now, before, targets, is_sure, shown, 8.0)) == pytest.approx(total / 4, rel=1e-5)


def test_an_update_asks_for_what_its_images_lack_and_compares_them_with_the_unchanged_ones_of_the_same_seeds(
    settings_with: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a judge that reads the first two colours, and changed weights that turn the first three images."""
    made, judge, steps = list[list[Job]](), Mock(), list[list[int]]()
    settings = settings_with("method.name=fair_finetuning")
    settings.method.params = {"images": 8, "steps": 2, "similarity": 8.0}
    backbone: Any = SimpleNamespace(sampling=SimpleNamespace(height=1, width=1), pipe=None, family=Mock())
    backbone.family.to_pixels = lambda pipe, latents, height, width: latents
    judge.embed_pixels = lambda pixels: torch.nn.functional.normalize(pixels.flatten(1), dim=1)
    judge.logits = lambda embedded, options: 9 * embedded[:, :2]

    def latents_of(seed: int, place: int, scale: float) -> Tensor:
        noise = torch.rand(3, 1, 1, generator=torch.Generator().manual_seed(seed)) / 5
        shown = 1 if scale and place < 3 else 0
        noise[shown] += 0.3 + 0.05 * place
        return noise + 0.1 * scale

    def run_sampled(backbone: Any, jobs: list[Job]) -> SampledRun:
        made.append(jobs)
        latents = torch.stack([latents_of(job.seed, i, objective.scale) for i, job in enumerate(jobs)])
        return SampledRun(latents, [latents] * 5, [])

    def adjusted(run: SampledRun, loss: Tensor, chosen: list[int]) -> Tensor:
        steps.append(chosen)
        return 3 * loss

    monkeypatch.setattr(through_sampling, "run_sampled", run_sampled)
    monkeypatch.setattr(through_sampling, "adjusted", adjusted)
    objective = fair_finetuning._Objective(backbone, settings, judge, ["a nurse"])
    found = float(objective(4, torch.Generator().manual_seed(0)))
    assert made[0] == made[1] and {job.prompt for job in made[0]} == {"a nurse"}
    now, before = (
        torch.stack([judge.embed_pixels(latents_of(job.seed, i, scale)[None])[0] for i, job in enumerate(made[0])])
        for scale in (1.0, 0.0)
    )
    probabilities = (9 * now[:, :2]).softmax(1).double()
    targets, is_sure = targets_of(probabilities.numpy(), [0.5, 0.5], np.random.default_rng([settings.seed, 4]))
    shown = before[:, :2].argmax(1)
    assert (probabilities.argmax(1).tolist(), shown.tolist()) == ([1, 1, 1, 0, 0, 0, 0, 0], [0] * 8)
    assert targets[:3].tolist() == [1, 1, 1] and is_sure.any()  # they show what is lacking
    total = 0.0
    for image, (target, sure) in enumerate(zip(targets.tolist(), is_sure.tolist(), strict=True)):
        if sure:
            total -= float((9 * now[image, :2]).log_softmax(0)[target])
        is_changed = sure and target != shown[image]
        total += 8 * (0.2 if is_changed else 1.0) * (1 - float(now[image] @ before[image]))
    assert found == pytest.approx(total / 8, rel=1e-4)
    assert len(set(steps[0])) == 2 and steps[0] == sorted(steps[0])
    objective(5, torch.Generator().manual_seed(0))
    assert not {job.seed for job in made[0]} & {job.seed for job in made[2]}


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "z_image"])
def test_a_run_with_gradients_is_the_pipelines_own_and_they_reach_the_text_encoders(name: str, tmp_path: Path) -> None:
    build(name).save_pretrained(tmp_path)
    backbone = load(tmp_path, {"sana": 32}.get(name, 16), num_steps=3)
    jobs = [Job("0", "a face", 0, 5), Job("1", "a nurse", 1, 6)]
    layers = trained_layers(backbone, "text_encoder")
    factors = new_factors(layers, 2, 0)
    with low_rank(layers, factors, lambda: 1.0):
        run = run_sampled(backbone, jobs)
        torch.testing.assert_close(run.latents.detach(), denoise(backbone, jobs), atol=1e-5, rtol=1e-4)
        adjusted(run, run.latents.float().square().sum(), [0, 2]).backward()
    grown = [factor.grad for key, factor in factors.items() if key.endswith("/up")]
    assert any(each is not None and each.abs().max() > 0 for each in grown)


def test_every_steps_gradient_has_an_equal_share(backbone: Backbone, jobs: list[Job]) -> None:
    """By DDIM's own numbers: of its step the prediction's factor, and what later steps make of it."""
    jobs, scheduler, guidance = jobs[:2], backbone.pipe.scheduler, 3.0
    layers = trained_layers(backbone, "attention")
    factors, goal = new_factors(layers, 2, 0), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with low_rank(layers, factors, lambda: 1.0):
        run = run_sampled(backbone, jobs)
        adjusted(run, (run.latents * goal).sum(), range(4)).backward()
    found = {name: factor.grad.clone() for name, factor in factors.items() if factor.grad is not None}
    text = torch.cat(list(reversed(backbone.pipe.encode_prompt([job.prompt for job in jobs], "cpu", 1, True, None))))
    latents = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(job.seed)) for job in jobs])
    scheduler.set_timesteps(4)
    for factor in factors.values():
        factor.grad = None
    predictions, numbers = list[Tensor](), list[float]()
    with low_rank(layers, factors, lambda: 1.0):
        for t in scheduler.timesteps:
            abar = float(scheduler.alphas_cumprod[t])
            after = float(scheduler.alphas_cumprod[t - 250] if t >= 250 else scheduler.final_alpha_cumprod)
            numbers = [number * (after / abar) ** 0.5 for number in numbers]
            numbers.append((1 - after) ** 0.5 - (after * (1 - abar) / abar) ** 0.5)
            both = backbone.denoiser(torch.cat([latents, latents]), t, text)[0].chunk(2)
            predictions.append(both[0] + guidance * (both[1] - both[0]))
            latents = scheduler.step(predictions[-1].detach(), t, latents).prev_sample
        size = float(np.exp(np.mean(np.log(np.abs(numbers)))))
        signs = [float(np.sign(number)) for number in numbers]
        torch.stack([(size * s * p * goal).sum() for s, p in zip(signs, predictions, strict=True)]).sum().backward()
    for name, gradient in found.items():
        expected = factors[name].grad
        assert expected is not None
        torch.testing.assert_close(gradient, expected, atol=1e-4 * float(expected.abs().max() + 1e-6), rtol=1e-3)
    assert any(gradient.abs().max() > 0 for gradient in found.values())


def test_layers_have_so_many_times_their_low_rank_change_and_none_at_scale_zero() -> None:
    layer, scale, rng = torch.nn.Linear(6, 5), [3.0], torch.Generator().manual_seed(0)
    factors = {f"a/{part}": torch.randn(*shape, generator=rng) for part, shape in (("up", (5, 2)), ("down", (2, 6)))}
    own, x = layer.weight.detach().clone(), torch.randn(4, 6, generator=rng)
    with torch.no_grad(), low_rank({"a": layer}, factors, lambda: scale[0]):
        changed = own + 3 * factors["a/up"] @ factors["a/down"]
        torch.testing.assert_close(layer(x), x @ changed.mT + layer.bias)
        scale[0] = 0.0
        torch.testing.assert_close(layer(x), x @ own.mT + layer.bias)
    assert torch.equal(layer.weight, own)


def test_weights_and_remembered_prompts_come_back_after_an_exception(backbone: Backbone, jobs: list[Job]) -> None:
    plain = denoise(backbone, jobs)
    layers = trained_layers(backbone, "text_encoder")
    factors = {
        name: torch.randn(factor.shape, generator=torch.Generator().manual_seed(3))
        for name, factor in new_factors(layers, 2, 0).items()
    }
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    found = list[Tensor]()
    with pytest.raises(RuntimeError, match="midway"):  # noqa: SIM117
        with low_rank(layers, factors, lambda: 0.1), other_prompts(backbone.pipe):
            found.append(denoise(backbone, jobs))
            raise RuntimeError("midway")
    assert not torch.allclose(found[0], plain, atol=1e-3)
    assert all(torch.equal(layer.weight, before[name]) for name, layer in layers.items())
    assert torch.equal(denoise(backbone, jobs), plain)


def test_it_runs_through_the_stages_draws_nothing_and_a_strength_needs_no_new_fit(run: Run) -> None:
    folder = run("fit", *FEW)
    assert json.loads((folder / "cost.json").read_text())["images"] == 8
    assert {path.name for path in folder.iterdir()} == {"cost.json", "low_rank.safetensors", "manifest.json"}
    steered = run("steer", *FEW)
    assert pixels(steered) != pixels(run("originals"))
    with (steered / "images.csv").open(newline="", encoding="utf-8") as file:
        assert {row["option"] for row in csv.DictReader(file)} == {""}
    assert run("fit", *FEW, "method.params.scale=0") == folder


def test_its_classifier_is_the_labelers_own_and_must_be_a_clip_of_whole_images(
    compose_settings: Callable[..., Settings],
) -> None:
    from PIL import Image

    settings = compose_settings("labeler.path=embedded:tiny-clip", "method=fair_finetuning")
    judge = _judge(settings)
    assert isinstance(judge, ClipJudge)
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    values = torch.from_numpy(picture).permute(2, 0, 1)[None].float().div(127.5).sub(1).requires_grad_()
    embedded = judge.embed_pixels(values)
    told = judge.label([Image.fromarray(picture)], {"gender": settings.attribute.options})["gender"]
    logits = judge.logits(embedded, settings.attribute.options)
    torch.testing.assert_close(logits.softmax(1).double().detach(), torch.from_numpy(told), atol=1e-4, rtol=1e-3)
    logits[0, 0].backward()
    assert values.grad is not None and values.grad.abs().max() > 0
    settings.labeler.kind, settings.labeler.path = "tiny", "embedded:tiny-classifier"
    with pytest.raises(ConfigError, match=r"labeler's network.*found labeler.kind=tiny"):
        _judge(settings)


def test_lists_of_rows_and_unknown_weights_are_refused(settings_with: Callable[..., Settings]) -> None:
    assert "lists of rows" in METHOD.why_not(Z_IMAGE)
    settings = settings_with("method.name=fair_finetuning")
    settings.method.params = {"where": "everywhere"}
    with pytest.raises(ConfigError, match=r"where=everywhere is not known; choose from text_encoder, attention"):
        check_method(settings)
