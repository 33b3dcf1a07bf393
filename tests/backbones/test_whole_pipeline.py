"""stage=all on a local folder of every family: probe dataset, activations, probes, selection, steering, evaluation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.vectors import load_vectors
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.tracking.base import NoTracker
from icm_pipeline.zoo.paths import ZOO
from tests.helpers.pipelines import BUILDERS, build

SIZES = {"sana": 32, "flux": 16, "z_image": 16}
WORDS = [
    "model=local", "world=portraits", "model.num_steps=3", "model.guidance_scale=3", "compute.batch_size=16",
    "generate.images_per_prompt=1", "attribute.probe_subjects=[person]",
    "evaluate.images_per_prompt=2", "evaluate.bootstrap=10", "layers.k=1", "probe.min_per_option=2",
    "method.last_step=null",
    f"evaluate.clip.path={ZOO / 'tiny-clip'}",
]  # fmt: skip


class ParityLabeler:
    """Labels what random weights draw by a property that splits it evenly; no judge of people could."""

    def label(self, images: Any, attributes: dict[str, dict[str, list[str]]]) -> dict[str, NDArray[np.float64]]:
        sums = np.array([int(np.asarray(image, np.int64).sum()) for image in images])
        return {name: np.eye(len(options))[sums % len(options)] for name, options in attributes.items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "flux" else pytest.mark.slow) for name in BUILDERS]
)
def test_the_whole_pipeline_runs_on_a_folder_of_any_family(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose_settings: Callable[..., Settings]
) -> None:
    folder, size = tmp_path / "model", SIZES.get(name, 16)
    build(name).save_pretrained(folder)
    for place in ("stages.label", "evaluation.judging"):
        monkeypatch.setattr(f"icm_pipeline.{place}.load_labeler", lambda *args: ParityLabeler())
    words = [*WORDS, f"model.path={folder}", f"model.height={size}", f"model.width={size}"]
    settings = compose_settings(*words, f"paths.outputs={tmp_path / 'outputs'}")
    pipeline = Pipeline(settings, words, NoTracker())
    report = pipeline.run("all")
    assert (report.folder / "heat_map.png").exists()
    evaluated, steered = pipeline.find("evaluate"), pipeline.find("steer")
    assert evaluated is not None
    assert steered is not None
    metrics = json.loads(evaluated.path("metrics.json").read_text())
    assert 0 <= metrics["fd"]["mean"] <= 1
    vectors = load_vectors(steered.path("vectors.safetensors"))
    assert len(vectors.layers) == 1
    assert len(vectors.noise_levels) == 3
