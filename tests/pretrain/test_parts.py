"""`stage=pretrain`: a part starts from nothing or from shipped weights, and its card knows which."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from icm_pipeline.config.schema import Settings
from icm_pipeline.pretrain.parts import PretrainPlan, make_diffusion, pretrain
from icm_pipeline.pretrain.quality import check_label_texts
from icm_pipeline.zoo.paths import ZOO

UNET = "tiny/unet/diffusion_pytorch_model.safetensors"


def test_training_on_begins_with_the_shipped_weights_and_remembers_their_history(plan: PretrainPlan) -> None:
    make_diffusion(plan)
    before, after = load_file(ZOO / UNET), load_file(plan.zoo / UNET)
    assert all(torch.allclose(before[name].float(), after[name].float(), atol=1e-3) for name in before)
    assert not [path for path in plan.zoo.rglob("*.json") if "_name_or_path" in path.read_text()]
    shipped = json.loads((ZOO / "tiny" / "training.json").read_text())
    history = json.loads((plan.zoo / "tiny" / "training.json").read_text())
    assert history["autoencoder"] == shipped["autoencoder"]
    assert history["diffusion"][:-1] == shipped["diffusion"]
    assert history["diffusion"][-1]["steps_done"] == 1


@pytest.mark.parametrize("part", ["all", "quality"])
def test_label_texts_that_measuring_will_lack_are_refused_before_anything_is_trained(
    plan_of: Callable[..., PretrainPlan], part: str
) -> None:
    people = {"gender": {"woman": ["a woman"], "man": ["a man"]}, "age": {"young": ["a youth"], "adult": ["an adult"]}}
    plan = plan_of(f"pretrain.part={part}")
    drift = plan.settings.evaluate.drift
    plan.settings.evaluate.drift = {
        name: replace(drift["age"], name=name, options=options) for name, options in people.items()
    }
    with pytest.raises(ValueError, match=r"options of age, skin_tone, background, glasses\. Set evaluate=portraits"):
        pretrain(plan)
    assert not list(plan.folder.iterdir())


def test_the_shipped_portraits_have_all_label_texts(settings_with: Callable[..., Settings]) -> None:
    check_label_texts({other.name: other.options for other in settings_with().evaluate.drift.values()})
