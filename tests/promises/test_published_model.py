"""The command of the specification, `stage=... model=sdxl`: no other setting is needed than where its files lie."""

import json
from pathlib import Path

import pytest
import torch

from icm_pipeline.zoo.paths import ZOO
from tests.helpers.command_line import run_words
from tests.helpers.pipelines import build

FEW = (
    "generate.images_per_prompt=1", "evaluate.images_per_prompt=2", "evaluate.bootstrap=20", "probe.min_per_option=2",
    "model.num_steps=2", "tracker=none",
)  # fmt: skip
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")


@WITHOUT_GPU
def test_a_model_alone_is_refused_without_a_gpu_once_for_all_and_then_tells_what_its_stage_lacks(
    tmp_path: Path,
) -> None:
    refused = run_words(["stage=probe", "model=sdxl"], tmp_path)
    assert refused.stderr.count("cannot be used here") == 1
    assert "compute.device=cuda" in refused.stderr
    assert "Set compute=cpu" in refused.stderr
    told = run_words(["stage=probe", "model=sdxl", "compute=cpu"], tmp_path)
    assert told.returncode == 1
    assert told.stderr.startswith("error: stage=probe needs the artifact of stage=generate")
    assert told.stderr.strip().endswith("python -m icm_pipeline stage=generate model=sdxl compute=cpu")


@pytest.mark.slow
def test_the_whole_method_runs_on_a_folder_of_sdxl_with_a_clip_from_this_disk(tmp_path: Path) -> None:
    build("sdxl").save_pretrained(tmp_path / "sdxl")
    clip = [
        f"{judge}.{word}"
        for judge in ("labeler", "judge", "evaluate.clip")
        for word in (f"path={ZOO / 'tiny-clip'}", "model=icm-tiny-clip")
    ]
    here = [] if torch.cuda.is_available() else ["compute=cpu"]
    result = run_words(["stage=all", "model=sdxl", "model.path=sdxl", *clip, *here, *FEW], tmp_path)
    assert result.returncode == 0, result.stderr
    assert "best 10 self-attention" in result.stdout
    found = {path.parent.parent.name: path for path in tmp_path.glob("outputs/artifacts/*/sdxl-gender-*/manifest.json")}
    assert len(found) == 8
    labelled = json.loads(found["label"].read_text())["settings"]["config"]["attribute.options"]
    assert labelled["woman"] == ["a photo of a woman", "a photo of a female person"]
