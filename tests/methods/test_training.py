"""What trained methods share: the loop, what a denoiser predicts outside of a run, what there is to learn from."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, Sampling
from icm_pipeline.backbones.registry import attach
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, evaluated_subjects
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.methods import examples
from icm_pipeline.methods.denoising import Denoiser, Noisy, seen_run
from icm_pipeline.methods.examples import EditedRuns, make_examples
from icm_pipeline.methods.training import CHECKPOINT, forget, frozen, train
from icm_pipeline.methods.wordings import Wording, wordings_of

SettingsWith = Callable[..., Settings]


def sampled(name: str) -> Backbone:
    """Attach to a pipeline with random weights that is called as a loaded one."""
    from tests.helpers.pipelines import built

    backbone = attach(built(name))
    size = 32 if name == "sana" else 16
    return replace(backbone, sampling=Sampling(4, 3.0, size, size, backbone.family.options))


def fall(update: int, generator: torch.Generator, x: Tensor) -> Tensor:
    return (x - torch.tensor([3.0, -2.0]) + 0.01 * torch.randn(2, generator=generator)).square().sum()


def test_the_loop_finds_the_least_loss_each_parameter_at_its_own_rate(tmp_path: Path) -> None:
    x, still = torch.zeros(2, requires_grad=True), torch.ones(1, requires_grad=True)
    train({"x": x, "still": still}, lambda u, g: fall(u, g, x) + still.square().sum(), 400,
          {"x": 0.05, "still": 0.0}, 0, tmp_path)  # fmt: skip
    torch.testing.assert_close(x.detach(), torch.tensor([3.0, -2.0]), atol=0.02, rtol=0)
    assert still.item() == 1


def test_a_training_that_was_interrupted_comes_to_the_same_result(tmp_path: Path) -> None:
    def trained(folder: Path, stop: int | None = None) -> Tensor:
        folder.mkdir(exist_ok=True)
        x = torch.zeros(2, requires_grad=True)

        def loss(update: int, generator: torch.Generator) -> Tensor:
            if update == stop:
                raise KeyboardInterrupt
            return fall(update, generator, x)

        train({"x": x}, loss, 40, 0.05, 0, folder)
        return x.detach()

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", stop=23)
    assert (tmp_path / "cut" / CHECKPOINT).exists()
    assert torch.equal(trained(tmp_path / "cut"), trained(tmp_path / "whole"))
    forget(tmp_path / "cut")
    assert not (tmp_path / "cut" / CHECKPOINT).exists()


def test_a_loss_that_is_not_finite_ends_the_fit_and_says_what_to_do(tmp_path: Path) -> None:
    x = torch.zeros(1, requires_grad=True)
    with pytest.raises(ConfigError, match=r"loss of the fit is nan at update 2 of 5: set a lower learning rate"):
        train({"x": x}, lambda u, g: x.sum() * (float("nan") if u == 2 else 1), 5, 0.1, 0, tmp_path)


def test_a_long_gradient_moves_no_further_than_a_clipped_one(tmp_path: Path) -> None:
    x = torch.zeros(1, requires_grad=True)
    seen = list[float]()

    def loss(update: int, generator: torch.Generator) -> Tensor:
        seen.append(0.0 if x.grad is None else float(x.grad))
        return 1e6 * x.sum()

    train({"x": x}, loss, 2, 0.1, 0, tmp_path)
    assert seen[1] == pytest.approx(1)


def test_frozen_weights_get_no_gradient_and_have_their_flags_again(backbone: Backbone) -> None:
    weight = next(backbone.denoiser.parameters())
    weight.requires_grad_(True)
    with pytest.raises(RuntimeError, match="midway"), frozen(backbone.denoiser):
        assert not any(each.requires_grad for each in backbone.denoiser.parameters())
        raise RuntimeError("midway")
    assert weight.requires_grad


def test_a_prediction_is_the_unets_of_each_row_at_its_step_under_its_prompt(backbone: Backbone) -> None:
    prompts, pipe = ["a doctor", "dog", ""], backbone.pipe
    denoiser = Denoiser(backbone, prompts)
    pipe.scheduler.set_timesteps(denoiser.num_steps)
    latents, steps = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1])
    asked = ["dog", "a doctor", "dog"]
    with torch.no_grad():
        found = denoiser.predict(Noisy(latents, steps), asked)
        guided = denoiser.guided(Noisy(latents, steps), asked, 3.0)
        text, empty = (pipe.encode_prompt(texts, "cpu", 1, False)[0] for texts in (asked, [""] * 3))
        expected, plain = (backbone.denoiser(latents, pipe.scheduler.timesteps[steps], t)[0] for t in (text, empty))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(guided, plain + 3 * (expected - plain), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sana", "flux"])
def test_every_family_predicts_outside_of_its_run_what_it_predicts_within(name: str) -> None:
    backbone = sampled(name)
    job = Job("000000", "a doctor", 0, 5)
    denoiser = Denoiser(backbone, ["dog", job.prompt])
    within = list[Tensor]()
    handle = backbone.denoiser.register_forward_hook(lambda module, args, output: within.append(output[0][-1:]))
    run, final = seen_run(backbone, [job])
    handle.remove()
    assert torch.equal(final, denoise(backbone, [job]))
    with torch.no_grad():
        for step, expected in enumerate(within):
            found = denoiser.predict(Noisy(run.latents[step], torch.tensor([step])), [job.prompt])
            torch.testing.assert_close(found, expected.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_noised_latents_are_the_schedulers_and_the_target_is_what_they_are_made_of(
    backbone: Backbone, predicts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = backbone.pipe.scheduler
    monkeypatch.setattr(backbone.pipe, "scheduler", type(own).from_config(own.config, prediction_type=predicts))
    scheduler, denoiser = backbone.pipe.scheduler, Denoiser(backbone, ["dog"])
    clean, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = torch.tensor([1, 3])
    t = scheduler.timesteps[steps]
    torch.testing.assert_close(
        denoiser.noised(clean, noise, steps).latents, scheduler.add_noise(clean, noise, t), atol=1e-4, rtol=1e-4
    )
    expected = noise if predicts == "epsilon" else scheduler.get_velocity(clean, noise, t)
    torch.testing.assert_close(denoiser.target(clean, noise, steps), expected, atol=1e-4, rtol=1e-4)


def test_a_flow_goes_straight_from_noise_to_picture() -> None:
    backbone = sampled("flux")
    denoiser, scheduler = Denoiser(backbone, ["dog"]), backbone.pipe.scheduler
    clean, noise = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    sigma = scheduler.sigmas[2]
    found = denoiser.noised(clean, noise, torch.tensor([2]))
    torch.testing.assert_close(found.latents, (1 - sigma) * clean + sigma * noise, atol=1e-4, rtol=1e-4)
    assert torch.equal(denoiser.target(clean, noise, torch.tensor([2])), noise - clean)


def test_a_denoiser_that_is_away_or_compiled_is_refused(backbone: Backbone) -> None:
    layer = backbone.denoiser.conv_in
    own = layer.weight
    layer.weight = torch.nn.Parameter(own.to("meta"))
    try:
        with pytest.raises(ConfigError, match=r"compute\.offload=sequential"):
            Denoiser(backbone, ["dog"])
    finally:
        layer.weight = own


def test_wordings_name_each_option_of_a_subject_that_is_not_evaluated(settings_with: SettingsWith) -> None:
    settings = settings_with("attribute.trial_subjects=[nurse,engineer]", "attribute.probe_subjects=[person]")
    found = wordings_of(settings, keep=["old {}", "male {}"])
    assert "nurse" in evaluated_subjects(settings.attribute)
    assert not any("nurse" in text for each in found for text in (each.neutral, *each.named))
    assert Wording("a face of an engineer", ("a face of a female engineer", "a face of a male engineer")) in found
    assert Wording("a face of an old person", ("a face of an old female person", "a face of an old male person")) in [
        Wording(each.neutral, each.named) for each in found
    ]
    assert len(found) == 2 * 2 * len(settings.attribute.probe_templates)  # `male {}` names an option


def test_there_is_nothing_to_train_on_where_no_option_can_be_named(settings_with: SettingsWith) -> None:
    settings = settings_with()
    settings.attribute.named = {}
    with pytest.raises(ValueError, match=r"Give attribute\.named for every option"):
        wordings_of(settings)


def test_examples_have_each_options_share_and_go_on_where_they_were_interrupted(
    backbone: Backbone, settings_with: SettingsWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_with("compute.batch_size=1")
    made = list[Job]()

    def counted(backbone: Backbone, jobs: list[Job]) -> Tensor:
        if len(made) == 4:
            made.clear()
            raise MemoryError("full")
        made.extend(jobs)
        return denoise(backbone, jobs)

    monkeypatch.setattr(examples, "denoise", counted)
    with pytest.raises(MemoryError):
        make_examples(backbone, settings, [0.75, 0.25], 8, tmp_path)
    found = make_examples(backbone, settings, [0.75, 0.25], 8, tmp_path)
    assert len(made) == 4
    assert found.options.tolist() == [0] * 6 + [1] * 2
    assert "female" in made[0].prompt and " male " in made[-1].prompt
    torch.testing.assert_close(found.latents[4:], denoise(backbone, made), atol=1e-3, rtol=1e-3)
    assert not any("male" in prompt for prompt in found.neutral)


def test_examples_are_drawn_with_what_is_to_be_predicted_of_them(
    backbone: Backbone, settings_with: SettingsWith, tmp_path: Path
) -> None:
    found = make_examples(backbone, settings_with(), [0.5, 0.5], 4, tmp_path)
    denoiser = Denoiser(backbone, found.neutral)
    noisy, prompts, options, target = found.noised(denoiser, 8, torch.Generator().manual_seed(1))
    for row, (prompt, option) in enumerate(zip(prompts, options.tolist(), strict=True)):
        source = next(
            i for i in range(4)
            if torch.allclose(
                denoiser.noised(found.latents[i : i + 1], target[row : row + 1], noisy.steps[row : row + 1]).latents,
                noisy.latents[row : row + 1], atol=1e-4,
            )
        )  # fmt: skip
        assert (found.neutral[source], int(found.options[source])) == (prompt, option)


def test_the_edited_models_runs_are_made_anew_every_few_updates(
    backbone: Backbone, settings_with: SettingsWith
) -> None:
    settings, edits = settings_with(), list[Tensor]()
    settings.method.params = {"batch": 4, "refresh": 2}

    def edited(options: Tensor) -> "nullcontext[None]":
        edits.append(options)
        return nullcontext()

    runs = EditedRuns(backbone, settings, [Wording("a doctor", ("a female doctor", "a male doctor"))], edited)
    drawn = [runs.draw(update, torch.Generator().manual_seed(update)) for update in range(4)]
    assert [each.tolist() for each in edits] == [[0, 1, 0, 1]] * 2
    assert runs.num_images(4) == 8 and runs.num_images(5) == 12
    jobs = [Job("", "a doctor", 0, runs._first + i) for i in range(4)]
    run, _ = seen_run(backbone, jobs)
    noisy, chosen = drawn[1]
    torch.testing.assert_close(noisy.latents, run.latents[noisy.steps, torch.arange(4)])
    assert [wording.neutral for wording in chosen] == ["a doctor"] * 4
    assert not torch.equal(drawn[2][0].latents, drawn[1][0].latents)
