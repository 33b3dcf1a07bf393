#!/bin/sh
# enable_sequential_cpu_offload with the CPU as the device is accepted, and the next run raises TypeError.
# Needs python3 (3.11 or later) and a package index; installs into a temporary folder, which it removes.
# Exit 0: as described. Exit 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 diffusers==0.42.1 transformers==5.24.0 accelerate==1.15.0
cat > "$folder/check.py" <<'PYTHON'
import sys

import accelerate
import diffusers
import torch

torch.manual_seed(0)
denoiser = diffusers.UNet2DModel(
    sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 64), norm_num_groups=8, layers_per_block=1,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)  # fmt: skip
pipe = diffusers.DDPMPipeline(denoiser, diffusers.DDPMScheduler())
pipe.set_progress_bar_config(disable=True)


def tried(step):
    try:
        return step()
    except TypeError as error:
        return f"TypeError: {str(error).splitlines()[0]}"


def run():
    return f"an image of {pipe(num_inference_steps=1, output_type='np').images.shape}"


print(f"diffusers {diffusers.__version__}, accelerate {accelerate.__version__}, torch {torch.__version__}")
found = [tried(run), tried(lambda: pipe.enable_sequential_cpu_offload(device="cpu")), tried(run)]
for case, what in zip(("before", "offloading to the CPU", "after"), found, strict=True):
    print(f"{case}: {what}")
before, offloaded, after = found
as_described = before.startswith("an image") and offloaded is None and after.startswith("TypeError")
sys.exit(0 if as_described else 1)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
