"""What methods are fitted to, with options planted in it, in place of what a model gives."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from icm_pipeline.arrays import Ints
from icm_pipeline.backbones.base import Site
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.hooks.recording import RecordedAt
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.methods.base import Method, MethodInputs, ProbeData
from icm_pipeline.progress import Work

LEVELS = (1.0, 0.5)
KIND = "cross_attention"
LAYERS = ("dull", "telling")  # the tokens of the former are the same whatever a prompt names
TOLD = torch.eye(2, 6)  # the direction to the first option at each step [T, d]; to the second it is the opposite


def with_layers() -> Any:
    """Return what has these layers and runs nothing."""
    return SimpleNamespace(layers=list(LAYERS), site=lambda layer: Site(layer, KIND))


def with_bottleneck() -> Any:
    """Return what has a middle block and runs nothing."""
    return SimpleNamespace(family=SimpleNamespace(bottleneck="mid"), pipe=SimpleNamespace(_execution_device="cpu"))


def probe_data(maps: Tensor, labels: Ints) -> ProbeData:
    """Return the probe dataset of maps [n, T, d] of the middle block."""
    steps = list(range(maps.shape[1]))
    recorded = RecordedAt({"mid": "bottleneck"}, steps, [1 / (1 + step) for step in steps])
    return ProbeData(labels, ["a face"] * len(labels), recorded, lambda layer: Pooled(maps))


def named_in(prompt: str) -> int:
    """Return which option a prompt names, -1 for none."""
    return next((option for option, word in enumerate(("female", "male")) if word in prompt.split()), -1)


def tokens_of(job: Job, layer: str) -> Tensor:
    """Return tokens [T, 3, d]: noise of the seed, and in the second one three times what the prompt names."""
    tokens = 0.1 * torch.randn(len(LEVELS), 3, TOLD.shape[1], generator=torch.Generator().manual_seed(job.seed))
    if layer == "telling":
        tokens[:, 1] += 3 * (0, 1, -1)[named_in(job.prompt) + 1] * TOLD
    return tokens


def fit_to_prompts(method: Method, settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Fit a method to three sets of prompts that give `tokens_of` them in LAYERS; return how many images it made."""

    def recorded(
        backbone: Any, layers: Sequence[str], jobs: Sequence[Job], settings: Any, folder: Any, work: Work,
        seen: Any = None,
    ) -> tuple[dict[str, Tensor], list[float]]:  # fmt: skip
        found = {layer: torch.stack([tokens_of(job, layer) for job in jobs]) for layer in layers}
        if seen is None:
            return {layer: tokens.mean(2) for layer, tokens in found.items()}, list(LEVELS)
        clocks = [SimpleNamespace(noise_level=level) for level in LEVELS]
        told = {
            layer: [
                seen(at, Site(layer, KIND), clock)[:, 0] for at, clock in zip(tokens.unbind(1), clocks, strict=True)
            ]
            for layer, tokens in found.items()
        }
        return {layer: torch.stack(steps, 1) for layer, steps in told.items()}, list(LEVELS)

    monkeypatch.setattr("icm_pipeline.methods.prompt_pairs.recorded", recorded)
    monkeypatch.setattr("icm_pipeline.backbones.text_attention.cross_attentions", lambda backbone: list(LAYERS))
    settings.method.params = {"pairs": 3}
    assert method.fit is not None
    return method.fit.run(with_layers(), MethodInputs(settings, {}), folder)
