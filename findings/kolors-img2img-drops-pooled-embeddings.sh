#!/bin/sh
# KolorsImg2ImgPipeline cannot be called with embeddings: it demands pooled_prompt_embeds beside prompt_embeds, passes them on to
# no one, and raises in encode_prompt. KolorsPipeline makes an image of the same embeddings.
# Needs python3 (3.11 or later) and a package index; installs into a temporary folder, which it removes.
# Exit 0: as described. Exit 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 diffusers==0.42.1 transformers==5.24.0 sentencepiece==0.2.3 pillow
cat > "$folder/check.py" <<'PYTHON'
import sys

import diffusers
import PIL.Image
import torch

torch.manual_seed(0)
unet = diffusers.UNet2DConditionModel(
    sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=16,
    attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), encoder_hid_dim=16, encoder_hid_dim_type="text_proj",
    addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8,
)
parts = dict(
    vae=diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2),
    text_encoder=None, tokenizer=None, unet=unet, scheduler=diffusers.EulerDiscreteScheduler(),
)
text = {
    "prompt_embeds": torch.randn(1, 5, 16), "pooled_prompt_embeds": torch.randn(1, 16),
    "negative_prompt_embeds": torch.randn(1, 5, 16), "negative_pooled_prompt_embeds": torch.randn(1, 16),
}


def tried(kind, **more):
    pipe = kind(**parts)
    pipe.set_progress_bar_config(disable=True)
    try:
        image = pipe(num_inference_steps=2, height=16, width=16, output_type="np", **text, **more).images
    except Exception as error:
        return f"raises {type(error).__name__}: {str(error).splitlines()[0]}"
    return f"gives images of {image.shape}"


picture = PIL.Image.new("RGB", (16, 16))
found = {
    "KolorsPipeline": tried(diffusers.KolorsPipeline),
    "KolorsImg2ImgPipeline": tried(diffusers.KolorsImg2ImgPipeline, image=picture, strength=1.0),
}
text = {name: value for name, value in text.items() if "pooled" not in name}
found["KolorsImg2ImgPipeline without pooled ones"] = tried(diffusers.KolorsImg2ImgPipeline, image=picture, strength=1.0)
print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
for case, what in found.items():
    print(f"{case}, called with embeddings: {what}")
plain, img2img, without = found.values()
as_described = (
    plain == "gives images of (1, 16, 16, 3)"
    and img2img == "raises AttributeError: 'NoneType' object has no attribute 'shape'"
    and without.startswith("raises ValueError: If `prompt_embeds` are provided, `pooled_prompt_embeds` also have")
)
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
