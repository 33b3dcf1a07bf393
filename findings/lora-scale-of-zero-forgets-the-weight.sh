#!/bin/sh
# A call with a LoRA scale of 0 forgets the weight that set_adapters gave: before it the LoRA acts at 0.5, in it not at all, and
# from then on at 1. A call with any other scale leaves the weight as it was.
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
def predict(model, **options):
    torch.manual_seed(1)
    return model(torch.randn(1, 4, 8, 8), 5, torch.randn(1, 3, 16), **options).sample


def weighted(weight):
    model = unet()
    model.set_adapters("style", weight)
    return model


references = {f"as with weight {weight}": predict(weighted(weight)) for weight in (0.0, 0.25, 0.5, 1.0)}


def like(prediction):
    return [name for name, other in references.items() if torch.allclose(prediction, other, atol=1e-5)]


def in_turn(scale):
    model = weighted(0.5)
    return [like(predict(model)), like(predict(model, cross_attention_kwargs={"scale": scale})), like(predict(model))]


print(f"diffusers {diffusers.__version__}, peft {peft.__version__}, torch {torch.__version__}")
found = {scale: in_turn(scale) for scale in (0.5, 0.0)}
for scale, turns in found.items():
    before, during, after = (" and ".join(names) or "as with none of them" for names in turns)
    print(f"weight 0.5: {before}; a call of scale {scale}: {during}; the next call, of no scale: {after}")
HALF, NONE, FULL = ["as with weight 0.5"], ["as with weight 0.0"], ["as with weight 1.0"]
as_described = found == {0.5: [HALF, ["as with weight 0.25"], HALF], 0.0: [HALF, NONE, FULL]}
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
