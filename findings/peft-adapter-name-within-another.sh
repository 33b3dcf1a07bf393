#!/bin/sh
# A second LoRA whose adapter's name is the end of the first one's is said to lack keys, which are the first one's; it is whole.
# Needs python3 (3.11 or later) and a package index; installs into a temporary folder, which it removes.
# Exit 0: as described. Exit 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 diffusers==0.42.1 transformers==5.24.0 peft==0.21.2 accelerate==1.15.0
cat > "$folder/check.py" <<'PYTHON'
import io
import logging
import sys

import diffusers
import peft
import torch

def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, cross_attention_dim=16,
        attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


@torch.no_grad()
def predict(model):
    torch.manual_seed(1)
    return model(torch.randn(1, 4, 8, 8), 5, torch.randn(1, 3, 16)).sample


LAYERS = [f"{block}.attentions.0.transformer_blocks.0.attn1" for block in ("mid_block", "down_blocks.1")]


def lora(scale):
    weights = {}
    for layer in LAYERS:
        name = f"unet.{layer}.to_out.0"
        weights[f"{name}.lora_A.weight"] = torch.zeros(1, 64)
        weights[f"{name}.lora_B.weight"] = torch.zeros(64, 1)
        weights[f"{name}.lora_B.bias"] = torch.full((64,), scale)
    return weights


heard = io.StringIO()
logging.getLogger("diffusers").handlers.clear()
diffusers.utils.logging.add_handler(logging.StreamHandler(heard))


def warned(names):
    model = unet()
    told = {}
    for name in names:
        heard.seek(0), heard.truncate()
        model.load_lora_adapter(lora(3.0 if name == names[-1] else 1.0), prefix="unet", adapter_name=name)
        told[name] = heard.getvalue().strip()
    model.set_adapters(names[-1])
    return told[names[-1]], predict(model)


alone, expected = warned(["2"])
apart, _ = warned(["style", "2"])
within, found = warned(["style_2", "2"])
print(f"diffusers {diffusers.__version__}, peft {peft.__version__}, torch {torch.__version__}")
print("adapter 2 alone:", alone or "no warning")
print("adapter 2 after style:", apart or "no warning")
print("adapter 2 after style_2:", within)
print("adapter 2 after style_2 predicts what it does alone:", torch.equal(found, expected))
as_described = not alone and not apart and "missing keys" in within and ".style_2." in within
sys.exit(0 if as_described and torch.equal(found, expected) else 1)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
