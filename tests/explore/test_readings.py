"""What probes read is the softmax of their logits, at the step whose noise is nearest."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from icm_pipeline.explore.readings import LayerReading, read_layer


def test_two_options_have_one_logit_and_more_have_each_their_own() -> None:
    seen = torch.tensor([[[1.0, 2.0]]])
    two = LayerReading("a", torch.tensor([[[0.5, 0.25]]]), torch.tensor([[1.0]]), (0.5,))
    three = LayerReading("a", torch.eye(3, 2)[None], torch.zeros(1, 3), (0.5,))
    assert np.allclose(two.probabilities(seen, [0.5])[0, 0], [1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))])
    assert np.allclose(three.probabilities(seen, [0.5])[0, 0], np.exp([1, 2, 0]) / np.exp([1, 2, 0]).sum())


def test_a_step_is_read_by_the_probe_of_the_nearest_noise() -> None:
    reading = LayerReading("a", torch.zeros(2, 1, 1), torch.tensor([[-30.0], [30.0]]), (0.9, 0.1))
    found = reading.probabilities(torch.zeros(1, 3, 1), [0.8, 0.2, 0.05])
    assert np.allclose(found[0, :, 1], [0, 1, 1])


def test_of_a_file_the_best_layer_is_read(tmp_path: Path) -> None:
    content = {f"{part}/{layer}": torch.zeros(1, 1, 1) for part in ("weights", "bias") for layer in "abc"}
    save_file(content, tmp_path / "probes.safetensors")
    assert read_layer(tmp_path / "probes.safetensors", {"a": 0.6, "b": 0.9, "c": 0.7}, [0.5]).layer == "b"
    assert read_layer(tmp_path / "probes.safetensors", {"a": 0.6, "c": 0.7}, [0.5]).layer == "c"  # of those that may be
