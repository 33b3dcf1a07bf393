#!/bin/sh
# ZImageControlNetInpaintPipeline repeats the picture and the control image for several images of a prompt, or for several prompts,
# but not the mask: one picture, one control image and one mask raise RuntimeError for two images. With the mask given twice it
# makes them.
# Needs python3 (3.11 or later) and a package index; installs into a temporary folder, which it removes.
# Exit 0: as described. Exit 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 diffusers==0.42.1 transformers==5.24.0 pillow
cat > "$folder/check.py" <<'PYTHON'
import sys

import diffusers
import PIL.Image
import torch
import transformers

torch.manual_seed(0)
shape = dict(dim=32, n_refiner_layers=1, n_heads=2, n_kv_heads=2)
pipe = diffusers.ZImageControlNetInpaintPipeline(
    transformer=diffusers.ZImageTransformer2DModel(
        in_channels=4, n_layers=2, cap_feat_dim=16, axes_dims=[8, 4, 4], axes_lens=[64, 16, 16], **shape),
    controlnet=diffusers.ZImageControlNetModel(
        control_layers_places=[0], control_refiner_layers_places=[0], control_in_dim=4 + 1 + 4,
        add_control_noise_refiner="control_noise_refiner", **shape),
    vae=diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, shift_factor=0.0,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2),
    scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), text_encoder=None, tokenizer=None,
)
pipe.set_progress_bar_config(disable=True)
picture, mask = PIL.Image.new("RGB", (32, 32), "gray"), PIL.Image.new("L", (32, 32), 255)
text = torch.randn(5, 16)


def tried(num_prompts, num_images_per_prompt, masks):
    try:
        latents = pipe(
            prompt_embeds=[text] * num_prompts, negative_prompt_embeds=[-text] * num_prompts, image=picture, mask_image=masks,
            control_image=picture, height=32, width=32, num_inference_steps=2, guidance_scale=4.0,
            num_images_per_prompt=num_images_per_prompt, output_type="latent",
        ).images
    except RuntimeError as error:
        return f"RuntimeError: {error}"
    return f"latents of {tuple(latents.shape)}"


print(f"diffusers {diffusers.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
found = {
    "one prompt, one image, one mask": tried(1, 1, mask),
    "one prompt, two images, one mask": tried(1, 2, mask),
    "one prompt, two images, the mask twice": tried(1, 2, [mask, mask]),
    "two prompts, one image each, one mask": tried(2, 1, mask),
    "two prompts, one image each, the mask twice": tried(2, 1, [mask, mask]),
}
for case, what in found.items():
    print(f"{case}: {what}")
one, images, images_masks, prompts, prompts_masks = found.values()
as_described = (
    one.startswith("latents of (1,") and images_masks.startswith("latents of (2,") and prompts_masks.startswith("latents of (2,")
    and "Sizes of tensors must match" in images and "Sizes of tensors must match" in prompts
)
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
