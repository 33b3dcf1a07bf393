"""A CLIP with random weights, as safetensors and in OpenAI's own format."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.judges import CLIP_NAME


@pytest.fixture(scope="package")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a CLIP with random weights: `<name>.json` and `<name>.safetensors`."""
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / f"{CLIP_NAME}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{CLIP_NAME}.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(CLIP_NAME)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / f"{CLIP_NAME}.safetensors"
    )
    return folder


@pytest.fixture(scope="package")
def openais_clip(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip

    model = open_clip.create_model(CLIP_NAME, pretrained=str(clip_folder / f"{CLIP_NAME}.safetensors")).eval()
    model.register_buffer("input_resolution", torch.tensor(32))  # OpenAI stored sizes beside the weights
    object.__setattr__(model, "attn_mask", model._buffers.pop("attn_mask"))  # OpenAI did not store it
    example = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.long))
    path = tmp_path_factory.mktemp("openai") / "ours.pt"
    torch.jit.trace(model, example, check_trace=False).save(path)
    return path
