"""The smallest hooks, and how many a denoiser carries."""

from torch import Tensor

from icm_pipeline.backbones.base import Backbone, Site
from icm_pipeline.hooks.clock import StepClock


def look(tokens: Tensor, site: Site, clock: StepClock) -> None:
    return None


def add_one(tokens: Tensor, site: Site, clock: StepClock) -> Tensor:
    return tokens + 1


def num_hooks(backbone: Backbone) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in backbone.denoiser.modules())
