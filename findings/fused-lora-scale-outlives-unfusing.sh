#!/bin/sh
# The lora_scale given to fuse_lora outlives unfuse_lora: after fusing at 0.5 and unfusing, the LoRA acts at 0.5 by itself, fused
# at 0.5 once more at 0.25; after fusing at 0 it does nothing, until set_adapters gives its weight anew.
# Needs python3 (3.11 or later) and a package index; installs into a temporary folder, which it removes.
# Exit 0: as described. Exit 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 diffusers==0.42.1 transformers==5.24.0 peft==0.21.2 accelerate==1.15.0
cat > "$folder/check.py" <<'PYTHON'
import sys

import diffusers
import peft
import torch


def unet():
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, cross_attention_dim=16,
        attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    model.add_adapter(peft.LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False), "style")
    return model


@torch.no_grad()
def predict(model):
    torch.manual_seed(1)
    return model(torch.randn(1, 4, 8, 8), 5, torch.randn(1, 3, 16)).sample


def weighted(weight):
    model = unet()
    model.set_adapters("style", weight)
    return predict(model)


references = {weight: weighted(weight) for weight in (0.0, 0.25, 0.5, 1.0)}


def strength(model):
    prediction = predict(model)
    return [weight for weight, other in references.items() if torch.allclose(prediction, other, atol=1e-5)]


def steps(scale):
    model = unet()
    strengths = [strength(model)]
    for _ in range(2):
        model.fuse_lora(lora_scale=scale)
        strengths.append(strength(model))
        model.unfuse_lora()
        strengths.append(strength(model))
    model.set_adapters("style", 1.0)
    return [*strengths, strength(model)]


print(f"diffusers {diffusers.__version__}, peft {peft.__version__}, torch {torch.__version__}")
found = {scale: steps(scale) for scale in (1.0, 0.5, 0.0)}
names = ("as loaded", "fused", "unfused", "fused", "unfused", "set_adapters to 1")
for scale, strengths in found.items():
    told = [f"{name} {' or '.join(map(str, those))}" for name, those in zip(names, strengths, strict=True)]
    print(f"fuse_lora(lora_scale={scale}), at which strength the LoRA acts: {', '.join(told)}")
as_described = found == {
    1.0: [[1.0]] * 6, 0.5: [[1.0], [0.5], [0.5], [0.25], [0.25], [1.0]], 0.0: [[1.0], [0.0], [0.0], [0.0], [0.0], [1.0]],
}
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
