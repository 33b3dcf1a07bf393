#!/bin/sh
# A LoRA file in which one of two layers lacks its bias loads with a warning and fails in the run; biases alone raise IndexError.
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


def lora(biased=LAYERS):
    weights = {}
    for layer in LAYERS:
        name = f"unet.{layer}.to_out.0"
        weights[f"{name}.lora_A.weight"] = torch.zeros(1, 64)
        weights[f"{name}.lora_B.weight"] = torch.zeros(64, 1)
        if layer in biased:
            weights[f"{name}.lora_B.bias"] = torch.ones(64)
    return weights


def tried(weights, **options):
    model = unet()
    try:
        model.load_lora_adapter(weights, prefix="unet", adapter_name="shift", **options)
    except Exception as error:
        return f"loading raises {type(error).__name__}: {error}"
    try:
        return f"loads, and moves the prediction by {(predict(model) - predict(unet())).abs().max():.2f}"
    except Exception as error:
        return f"loads, then the run raises {type(error).__name__}: {error}"


one = LAYERS[:1]
found = {
    "both biases": tried(lora()),
    "no bias": tried(lora([])),
    "one bias, low_cpu_mem_usage=True (default with accelerate)": tried(lora(one), low_cpu_mem_usage=True),
    "one bias, low_cpu_mem_usage=False": tried(lora(one), low_cpu_mem_usage=False),
    "biases without lora_A and lora_B": tried({key: value for key, value in lora().items() if key.endswith("bias")}),
}
print(f"diffusers {diffusers.__version__}, peft {peft.__version__}, torch {torch.__version__}")
for case, what in found.items():
    print(f"{case}: {what}")
both, none, low, high, bare = found.values()
as_described = (
    both.startswith("loads, and moves") and none.endswith("by 0.00") and "meta" in low and "RuntimeError" in low
    and high.startswith("loads, and moves") and bare.startswith("loading raises IndexError")
)  # fmt: skip
sys.exit(0 if as_described else 1)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
