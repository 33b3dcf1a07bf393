"""The siblings: what the teacher predicts holds in the sibling's terms, and what is saved loads and draws."""

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from icm_pipeline.config.choices import SIBLINGS
from icm_pipeline.generation.jobs import make_jobs
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.pretrain.cards import read_training
from icm_pipeline.pretrain.diffusion import NoiseSchedule, build_scheduler
from icm_pipeline.pretrain.parts import PretrainPlan, make_diffusion, pretrain
from icm_pipeline.pretrain.siblings import flow_view
from icm_pipeline.pretrain.students import STUDENTS
from icm_pipeline.zoo.paths import ZOO
from tests.helpers.models import load

OWN_PARTS = {
    "tiny_sdxl": ("unet", "text_encoder_2"),
    "tiny_sana": ("transformer", "vae"),
    "tiny_flux": ("transformer",),
}


def test_a_flow_and_a_diffusion_say_the_same_of_one_picture_and_one_noise() -> None:
    clean, noise = torch.randn(2, 5, 8, 8, 8, dtype=torch.float64)
    a, s = NoiseSchedule(build_scheduler(), "cpu").at(torch.tensor([0, 200, 500, 800, 999]))
    sample, velocity, level = flow_view(a * clean + s * noise, a * noise - s * clean, a, s)
    sigma = level.view(-1, 1, 1, 1)
    torch.testing.assert_close(sample, (1 - sigma) * clean + sigma * noise, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(velocity, noise - clean, atol=1e-5, rtol=1e-5)
    assert level[-1] == 1  # the last step is pure noise


def test_every_sibling_has_an_architecture() -> None:
    assert set(STUDENTS) == set(SIBLINGS)


@pytest.mark.parametrize("name", SIBLINGS)
def test_a_sibling_is_saved_whole_and_draws(name: str, plan_of: Callable[..., PretrainPlan]) -> None:
    plan = plan_of(f"model.name={name}", "pretrain.from_shipped=false")
    make_diffusion(plan)
    folder = plan.zoo / name
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) < 25e6
    options = {} if name == "tiny_sdxl" else {"max_sequence_length": 32}
    model = load(folder, 64, name=name, num_steps=2, guidance_scale=1.5, call=options)
    jobs = make_jobs(["a photo of a doctor"], 2, 0, "evaluation")
    images = [sample.image for sample in decode(model, jobs, denoise(model, jobs))]
    assert [image.size for image in images] == [(64, 64)] * 2
    assert images[0].tobytes() != images[1].tobytes()


@pytest.mark.parametrize("name", [SIBLINGS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in SIBLINGS[1:])])
def test_a_sibling_trained_on_begins_with_its_shipped_weights_and_remembers(
    name: str, plan_of: Callable[..., PretrainPlan]
) -> None:
    plan = plan_of(f"model.name={name}")
    make_diffusion(plan)
    for part in OWN_PARTS[name]:
        (path,) = (ZOO / name / part).glob("*.safetensors")
        before, after = load_file(path), load_file(plan.zoo / path.relative_to(ZOO))
        assert all(torch.allclose(before[key].float(), after[key].float(), atol=1e-3) for key in before), part
    shipped, history = (read_training(zoo / name) for zoo in (ZOO, plan.zoo))
    assert history[name][:-1] == shipped[name]
    assert history[name][-1]["steps_done"] == 1
    assert history.get("deep_compression") == shipped.get("deep_compression")
    assert history["diffusion"] == read_training(ZOO / "tiny")["diffusion"]


def test_only_embedded_models_are_trained(plan_of: Callable[..., PretrainPlan]) -> None:
    with pytest.raises(ValueError, match=r"not sd15\. Set model to one of: tiny, .*, tiny_flux\."):
        pretrain(plan_of("model.name=sd15", "pretrain.part=diffusion"))
