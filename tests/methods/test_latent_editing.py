"""method=latent_editing: planted means are found, and an asymmetric edit is Asyrp's step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.latent_editing import METHOD, no_bottleneck
from icm_pipeline.methods.learnt import FILE, Learnt, directions_and_norm
from icm_pipeline.store.artifacts import Artifact
from tests.helpers.results import as_artifact
from tests.helpers.running import Run, pixels

LEVELS = [0.998, 0.961, 0.694, 0.015]  # of DDIM's four steps


def test_a_planted_shift_is_found_at_its_step_and_points_from_the_mean_over_options() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = np.arange(400) % 4 - 1  # of three options, and of none
    maps, planted = torch.randn(400, 2, 6, generator=rng) / 10, torch.eye(6)[:3]
    maps[:, 1] += torch.cat([torch.zeros(1, 6), 2 * planted])[labels + 1]
    maps[labels < 0] = 100.0
    found = directions_and_norm(maps, labels)
    expected = torch.nn.functional.normalize(planted - planted.mean(0), dim=-1)
    torch.testing.assert_close(found["direction"][1], expected, atol=0.03, rtol=0)
    assert (found["direction"][0] * expected).sum(-1).abs().max() < 0.9  # nothing was planted there
    assert torch.allclose(found["norm"], torch.linalg.vector_norm(maps, dim=2).mean(0))


def steered(backbone: Backbone, jobs: list[Job], folder: Path, asymmetric: bool, settings_with: object) -> Tensor:
    settings = settings_with("alpha=0.5", "method.alpha_unit=relative")  # type: ignore[operator]
    settings.method.params = {"asymmetric": asymmetric}
    inputs = MethodInputs(
        settings, {"fit": learnt(folder)}, option_of={job.image_id: i % 2 for i, job in enumerate(jobs)}
    )
    with METHOD.applied(backbone, inputs, jobs):
        return denoise(backbone, jobs)


def learnt(folder: Path) -> Artifact:
    width = 64 * 4 * 4
    direction = torch.nn.functional.normalize(
        torch.randn(4, 2, width, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    Learnt({"mid_block": {"direction": direction, "norm": torch.full((4,), 8.0)}}, LEVELS).save(folder)
    return as_artifact(folder, "", FILE)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_the_asymmetric_edit_is_asyrps_step(
    backbone: Backbone, jobs: list[Job], tmp_path: Path, settings_with: object, predicts: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    own = backbone.pipe.scheduler
    monkeypatch.setattr(backbone.pipe, "scheduler", type(own).from_config(own.config, prediction_type=predicts))
    latents, scheduler, guidance = steered(backbone, jobs, tmp_path, True, settings_with), backbone.pipe.scheduler, 3.0
    found = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(job.seed)) for job in jobs])
    encoded = backbone.pipe.encode_prompt([job.prompt for job in jobs], "cpu", 1, True, None)
    text = torch.cat([encoded[1], encoded[0]])
    direction = torch.nn.functional.normalize(
        torch.randn(4, 2, 1024, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    scheduler.set_timesteps(4)

    def guided(latents: Tensor, t: Tensor) -> Tensor:
        both: tuple[Tensor, Tensor] = backbone.denoiser(torch.cat([latents, latents]), t, text)[0].chunk(2)
        return both[0] + guidance * (both[1] - both[0])

    with torch.no_grad():
        for place, t in enumerate(scheduler.timesteps):
            shift = 4.0 * direction[place][[0, 1, 0, 1]].view(4, 16, 64).mT.reshape(4, 64, 4, 4)

            def shifted(module: object, args: object, output: Tensor, shift: Tensor = shift) -> Tensor:
                return torch.cat([output[:4], output[4:] + shift])

            plain = guided(found, t)
            handle = backbone.denoiser.mid_block.register_forward_hook(shifted)
            edited = guided(found, t)
            handle.remove()
            abar, before = scheduler.alphas_cumprod[t], t - 250
            after = scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod
            if predicts == "v_prediction":
                plain, edited = (abar**0.5 * each + (1 - abar) ** 0.5 * found for each in (plain, edited))
            clean = (found - (1 - abar) ** 0.5 * edited) / abar**0.5
            found = after**0.5 * clean + (1 - after) ** 0.5 * plain
    torch.testing.assert_close(latents, found, atol=1e-4, rtol=1e-4)
    symmetric = steered(backbone, jobs, tmp_path, False, settings_with)
    assert not torch.allclose(symmetric, latents, atol=1e-2)
    assert not torch.allclose(symmetric, denoise(backbone, jobs), atol=1e-2)


def test_it_is_fitted_to_whole_maps_and_runs_through_the_stages(run: Run, backbone: Backbone) -> None:
    assert pixels(run("steer", "method=latent_editing", "alpha=0.5")) != pixels(run("originals"))
    maps = json.loads((run("maps", "method=latent_editing") / "recording.json").read_text())
    assert maps["kinds"] == {"mid_block": "bottleneck"}
    assert no_bottleneck(backbone.family) == ""


def test_an_asymmetric_edit_leaves_steps_that_the_originals_lend_alone(run: Run) -> None:
    words = ("method=latent_editing", "method.first_step=2")
    symmetric = pixels(run("steer", *words, "alpha=0.5"))  # leaves the first steps for others
    asymmetric = pixels(run("steer", *words, "alpha=0.5", "method.params.asymmetric=true"))
    assert len({str(sorted(each.items())) for each in (symmetric, asymmetric, pixels(run("originals")))}) == 3


def test_an_asymmetric_edit_needs_ddim(
    backbone: Backbone, jobs: list[Job], tmp_path: Path, settings_with: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import EulerDiscreteScheduler

    other = EulerDiscreteScheduler.from_config(backbone.pipe.scheduler.config)
    monkeypatch.setattr(backbone.pipe, "scheduler", other)
    with pytest.raises(ConfigError, match=r"asymmetric=true needs DDIM, .* found EulerDiscreteScheduler and epsilon"):
        steered(backbone, jobs, tmp_path, True, settings_with)
