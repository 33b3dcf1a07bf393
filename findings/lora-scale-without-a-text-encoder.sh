#!/bin/sh
# A Stable Diffusion pipeline without a text encoder, called with embeddings, makes images with a LoRA but not at a LoRA scale:
# cross_attention_kwargs={"scale": 0.5} raises AttributeError, as the absent text encoder's LoRA is to be scaled too. Stable
# Diffusion XL without text encoders takes the scale.
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

SHAPE = dict(
    sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, cross_attention_dim=16,
    attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
)


def parts(**shape):
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(**SHAPE, **shape)
    unet.add_adapter(peft.LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False), "style")
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2)
    scheduler = diffusers.EulerDiscreteScheduler(steps_offset=1)
    return dict(unet=unet, vae=vae, scheduler=scheduler, text_encoder=None, tokenizer=None)


sd = diffusers.StableDiffusionPipeline(
    **parts(), safety_checker=None, feature_extractor=None, requires_safety_checker=False)
sdxl = diffusers.StableDiffusionXLPipeline(
    **parts(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8),
    text_encoder_2=None, tokenizer_2=None)
text, pooled = torch.randn(1, 3, 16), torch.randn(1, 16)
EMBEDDINGS = {
    sd: dict(prompt_embeds=text, negative_prompt_embeds=-text),
    sdxl: dict(prompt_embeds=text, negative_prompt_embeds=-text, pooled_prompt_embeds=pooled,
               negative_pooled_prompt_embeds=-pooled),
}


def made(pipe, scale=None):
    pipe.set_progress_bar_config(disable=True)
    options = {} if scale is None else {"cross_attention_kwargs": {"scale": scale}}
    try:
        return pipe(
            **EMBEDDINGS[pipe], height=16, width=16, num_inference_steps=2, output_type="latent",
            latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), **options,
        ).images
    except AttributeError as error:
        return f"AttributeError: {error}"


def told(images):
    return images if isinstance(images, str) else f"latents of {tuple(images.shape)}"


print(f"diffusers {diffusers.__version__}, peft {peft.__version__}, torch {torch.__version__}")
found = {(pipe, scale): made(pipe, scale) for pipe in (sd, sdxl) for scale in (None, 1.0, 0.5)}
for (pipe, scale), images in found.items():
    print(f"{type(pipe).__name__}, {'no scale' if scale is None else f'scale {scale}'}: {told(images)}")
sd.set_adapters("style", 0.5)
weighted = made(sd)
print(f"StableDiffusionPipeline, set_adapters at 0.5 and no scale: {told(weighted)}")
works = [told(images).startswith("latents") for images in found.values()]
as_described = (
    works == [True, True, False, True, True, True] and "'NoneType'" in found[sd, 0.5] and told(weighted).startswith("latents")
    and not torch.allclose(found[sdxl, 0.5], found[sdxl, 1.0], atol=1e-3)
    and not torch.allclose(weighted, found[sd, 1.0], atol=1e-3)
)
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
