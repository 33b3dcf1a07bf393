"""Train the small CLIP judge in open_clip's own format, contrastively on renders and captions.

A short caption is true of many pictures of a batch. The usual loss would call all but one of them wrong, so the targets
here are spread evenly over every picture a caption is true of, and over every caption that is true of a picture.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from icm_pipeline.pretrain.augment import augment
from icm_pipeline.pretrain.autoencoder import to_tensor
from icm_pipeline.pretrain.captions import write_caption
from icm_pipeline.pretrain.dataset import Portraits, caption_rng
from icm_pipeline.pretrain.training import Loss, TrainingPlan, TrainingRun, train

MODEL_NAME = "icm-tiny-clip"
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 5, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 3},
}
CAPTION_STAMP = 1_000_000  # keeps the judge's captions apart from the generator's
UNNAMED_SHARE = 0.05
NAMED_SHARE = {"gender": 0.5, "age": 0.5, "skin_tone": 0.5, "background": 0.5, "glasses": 0.6, "expression": 0.25}


def write_config(folder: Path) -> Path:
    """Write the model config where `open_clip.add_model_config` finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{MODEL_NAME}.json"
    path.write_text(json.dumps(CONFIG, indent=2) + "\n")
    return path


def train_clip(portraits: Portraits, plan: TrainingPlan, run: TrainingRun, start_from: Path | None = None) -> nn.Module:
    """Return the trained open_clip model; `start_from` is a folder with weights to begin with."""
    import open_clip

    open_clip.add_model_config(write_config(run.folder))
    torch.manual_seed(plan.seed)
    model = open_clip.create_model(MODEL_NAME, pretrained=None)
    if start_from:
        shipped = load_file(start_from / f"{MODEL_NAME}.safetensors")
        model.load_state_dict({key: value.float() for key, value in shipped.items()})
    tokenizer = open_clip.get_tokenizer(MODEL_NAME)
    pixels = torch.from_numpy(portraits.pixels)
    stats = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in stats)

    def loss(model: nn.Module, generator: torch.Generator) -> Loss:
        rows = torch.randint(len(pixels), (plan.batch_size,), generator=generator)
        stamp = CAPTION_STAMP + int(torch.randint(2**31, (1,), generator=generator))
        people = [portraits.people[row] for row in rows.tolist()]
        captions = [
            write_caption(person, caption_rng(plan.seed, row, stamp), NAMED_SHARE, UNNAMED_SHARE)
            for person, row in zip(people, rows.tolist(), strict=True)
        ]
        true = (
            torch.tensor([[caption.is_true_of(person) for caption in captions] for person in people])
            .float()
            .to(plan.device)
        )
        images = augment(to_tensor(pixels[rows]), generator)
        images = ((images + 1) / 2 - mean) / std
        tokens = tokenizer([caption.text for caption in captions])
        image_features, text_features, scale = model(images.to(plan.device), tokens.to(plan.device))[:3]
        logits = (scale * image_features @ text_features.T).float()
        by_image = -(true / true.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
        by_text = -(true / true.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
        return (by_image + by_text) / 2, {"scale": scale}

    return train("clip", model, loss, plan, run)
