#!/bin/sh
# PRX cannot make two images with guidance in one call: it gives the denoiser two timesteps for four rows.
# Needs python3 (3.11 or later) and a package index; installs into a temporary folder, which it removes.
# Exit 0: as described. Exit 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 diffusers==0.42.1 transformers==5.24.0 peft==0.21.2
cat > "$folder/check.py" <<'PYTHON'
import sys

import diffusers
import torch
from diffusers.models import PRXTransformer2DModel

torch.manual_seed(0)
denoiser = PRXTransformer2DModel(
    in_channels=4, context_in_dim=16, hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=2, axes_dim=[8, 8]
)
pipe = diffusers.PRXPipeline(
    transformer=denoiser, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), text_encoder=None, tokenizer=None,
    vae=diffusers.AutoencoderKL(latent_channels=4),
)  # fmt: skip
pipe.set_progress_bar_config(disable=True)


def tried(num_prompts, guidance_scale):
    text, mask = torch.randn(num_prompts, 3, 16), torch.ones(num_prompts, 3, dtype=torch.bool)
    try:
        latents = pipe(
            prompt_embeds=text, prompt_attention_mask=mask, negative_prompt_embeds=torch.zeros_like(text),
            negative_prompt_attention_mask=mask, guidance_scale=guidance_scale, num_inference_steps=2, height=16,
            width=16, use_resolution_binning=False, output_type="latent",
        ).images  # fmt: skip
    except RuntimeError as error:
        return f"RuntimeError: {error}"
    return f"latents of {tuple(latents.shape)}"


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
found = [tried(1, 4.0), tried(2, 1.0), tried(2, 4.0)]
for case, what in zip(("1 prompt, guided", "2 prompts, not guided", "2 prompts, guided"), found, strict=True):
    print(f"{case}: {what}")
one, plain, guided = found
as_described = one.startswith("latents of (1") and plain.startswith("latents of (2") and "must match" in guided
sys.exit(0 if as_described else 1)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
