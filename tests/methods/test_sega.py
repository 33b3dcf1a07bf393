"""method=sega: guidance is the paper's on small tensors, and on pipelines what their own arithmetic makes of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.methods import sega, wordings
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.sega import METHOD, TEXTS, edit_guidance, with_momentum
from tests.helpers.models import load
from tests.helpers.pipelines import build
from tests.helpers.results import as_artifact
from tests.helpers.running import Run, pixels

PLAIN = {"scale": 2.0, "threshold": 0.0, "warmup": 0, "momentum": 0.0, "beta": 0.6}


def test_guidance_is_what_reaches_its_channels_quantile_towards_one_option_and_away_from_the_others() -> None:
    towards = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    signs = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]])
    found = edit_guidance(towards, signs, 4.0, 0.75)
    expected = torch.zeros(3, 2, 4, 4)
    for option in range(2):
        for image in range(3):
            for channel in range(2):
                own = 4 * signs[option, image] * towards[option, image, channel]
                least = own.abs().flatten().quantile(0.75)
                expected[image, channel] += own.where(own.abs() >= least, torch.zeros(()))
    torch.testing.assert_close(found, expected)
    one = edit_guidance(towards[:1], signs[:1], 1.0, 0.75)
    assert (one != 0).flatten(2).sum(2).tolist() == [[4, 4]] * 3  # a quarter of 16 places


@pytest.mark.parametrize("most", [1, 16, 40])
def test_guidance_is_the_same_however_many_numbers_go_into_a_quantile_at_once(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    towards = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    signs = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]])
    at_once = edit_guidance(towards, signs, 4.0, 0.75)
    monkeypatch.setattr(sega, "MOST_AT_ONCE", most)
    quantile, sizes = torch.quantile, list[int]()

    def counted(values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        sizes.append(values.numel())
        return quantile(values, *args, **kwargs)

    monkeypatch.setattr(torch, "quantile", counted)
    assert torch.equal(edit_guidance(towards, signs, 4.0, 0.75), at_once)
    assert max(sizes) <= max(most, 16)  # a channel's places are never parted
    assert sum(sizes) == towards.numel()


def test_momentum_grows_from_what_it_was_added_to() -> None:
    guided, momentum = with_momentum(torch.tensor(2.0), torch.tensor(0.0), 0.5, 0.6)
    assert (float(guided), float(momentum)) == (2.0, pytest.approx(0.8))
    guided, momentum = with_momentum(torch.tensor(1.0), momentum, 0.5, 0.6)
    assert (float(guided), float(momentum)) == (pytest.approx(1.4), pytest.approx(0.6 * 0.8 + 0.4 * 1.4))


def test_what_is_added_goes_on_from_step_to_step_and_grows_before_the_warm_up_ends() -> None:
    rng = torch.Generator().manual_seed(0)
    latents, text, texts = (torch.randn(n, 1, 2, 2, generator=rng) for n in (4, 4, 3))

    def predict(latents: Tensor, timestep: float, text: Tensor) -> tuple[Tensor]:
        return (latents + timestep * text,)

    params = {"scale": 3.0, "threshold": 0.0, "warmup": 1, "momentum": 0.5, "beta": 0.6}
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # of three options and two images
    clock: Any = SimpleNamespace(call=SimpleNamespace(rows_per_image=2), rows=slice(2, 4), step=0)
    backbone: Any = SimpleNamespace(sampling=SimpleNamespace(guidance_scale=2.0))
    guidance = sega._Guidance(backbone, clock, {"text": texts}, signs, params)
    momentum = torch.zeros(2, 1, 2, 2)
    for step in range(3):
        clock.step, time = step, 1.0 + step
        plain, found = predict(latents, time, text)[0], guidance.forward(predict, latents, time, text=text)[0]
        young, grown, old = (latents[2:] + time * each - plain[:2] for each in texts)
        edit = 3 * torch.stack([(young - grown - old)[0], (grown - young - old)[1]])
        added = edit + 0.5 * momentum
        momentum = 0.6 * momentum + 0.4 * added
        assert torch.equal(found[:2], plain[:2])
        torch.testing.assert_close(found[2:] - plain[2:], (added / 2) * (step >= 1))


@pytest.fixture
def steered(settings_with: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that denoises jobs with the texts of two options, drawn in turn."""

    def made(backbone: Backbone, jobs: list[Job], texts: list[str], **params: Any) -> Tensor:
        monkeypatch.setattr(wordings, "option_prompts", lambda settings: texts)
        settings = settings_with()
        settings.method.params = {**PLAIN, **params}
        option_of = {job.image_id: index % 2 for index, job in enumerate(jobs)}
        assert METHOD.fit is not None
        METHOD.fit.run(backbone, MethodInputs(settings, {}), tmp_path)
        inputs = MethodInputs(settings, {"fit": as_artifact(tmp_path, "", TEXTS)}, option_of=option_of)
        with METHOD.applied(backbone, inputs, jobs):
            return denoise(backbone, jobs)

    return made


@pytest.mark.parametrize("name", ["sd", "sdxl", "sana", "pixart"])
def test_guidance_towards_the_images_own_prompt_and_away_from_the_negative_one_is_so_much_more_guidance(
    name: str, tmp_path_factory: pytest.TempPathFactory, steered: Any
) -> None:
    folder = tmp_path_factory.mktemp(name)
    build(name).save_pretrained(folder)
    loaded = load(folder, 32 if name == "sana" else 16, num_steps=3)
    assert loaded.sampling is not None
    options = {**loaded.sampling.options, "negative_prompt": "dog"}
    backbone = replace(loaded, sampling=replace(loaded.sampling, options=options))
    more = replace(backbone, sampling=replace(backbone.sampling, guidance_scale=3.0 + 2.0))
    jobs = [Job("0", "a face", 0, 5), Job("1", "a nurse", 1, 6)]
    found = steered(backbone, jobs[:1], ["a face", "dog"])
    expected = denoise(more, jobs[:1])
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    assert not torch.allclose(found, denoise(backbone, jobs[:1]), atol=1e-2)
    both = steered(backbone, jobs, ["a face", "dog"])  # an image does not depend on its batch
    torch.testing.assert_close(both[:1], found, atol=2e-4, rtol=2e-4)
    away = steered(backbone, jobs, ["dog", "a nurse"])
    torch.testing.assert_close(away[1:], denoise(more, jobs[1:]), atol=2e-4, rtol=2e-4)


def test_nothing_is_added_before_the_warm_up_ends(backbone: Backbone, jobs: list[Job], steered: Any) -> None:
    plain = denoise(backbone, jobs)
    assert torch.equal(steered(backbone, jobs, ["a face", "dog"], warmup=4, momentum=0.5), plain)
    late = steered(backbone, jobs, ["a face", "dog"], warmup=3)
    early = steered(backbone, jobs, ["a face", "dog"], warmup=1)
    assert 0 < (late - plain).abs().mean() < (early - plain).abs().mean()
    assert torch.equal(denoise(backbone, jobs), plain)  # the forward is the denoiser's own again


def test_a_model_without_guidance_or_with_another_layout_is_refused(
    backbone: Backbone, jobs: list[Job], steered: Any
) -> None:
    assert backbone.sampling is not None
    unguided = replace(backbone, sampling=replace(backbone.sampling, guidance_scale=1.0))
    with pytest.raises(ConfigError, match=r"raise model.guidance_scale"):
        steered(unguided, jobs, ["a face", "dog"])
    assert "not one call of the denoiser" in METHOD.why_not(FLUX)
    assert METHOD.why_not(backbone.family) == ""


def test_it_runs_through_the_stages_and_a_strength_needs_no_new_fit(run: Run) -> None:
    words = ("method=sega", "method.params.warmup=1")
    ways = [run("steer", *words, f"method.params.scale={scale}") for scale in (1, 4)]
    plain = pixels(run("originals"))
    assert len({str(sorted(pixels(each).items())) for each in ways} - {str(sorted(plain.items()))}) == 2
    assert run("fit", *words, "method.params.scale=1") == run("fit", *words)
