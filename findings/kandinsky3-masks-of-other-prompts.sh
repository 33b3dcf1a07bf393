#!/bin/sh
# Kandinsky 3 asked for several images of several prompts gives images the text mask of another prompt: embeddings are repeated
# image by image (1, 1, 2, 2), masks prompt by prompt (1, 2, 1, 2). Where prompts differ in length, the second image of the first
# prompt and the first of the second are other ones than those of the same noise with num_images_per_prompt=1.
# Needs python3 (3.11 or later) and a package index; installs into a temporary folder, which it removes.
# Exit 0: as described. Exit 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 diffusers==0.42.1 transformers==5.24.0
cat > "$folder/check.py" <<'PYTHON'
import string
import sys

import diffusers
import torch
import transformers

torch.manual_seed(0)
pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("\u2581", -2.0)]
pieces += [(letter, -3.0) for letter in string.ascii_lowercase]
tokenizer = transformers.T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=128)
text_encoder = transformers.T5EncoderModel(
    transformers.T5Config(vocab_size=len(pieces), d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)).eval()
unet = diffusers.Kandinsky3UNet(
    in_channels=4, time_embedding_dim=4, groups=2, attention_head_dim=4, layers_per_block=3, block_out_channels=(32, 64),
    cross_attention_dim=4, encoder_hid_dim=32).eval()
for parameter in unet.parameters():  # as some begin at zero
    if not parameter.any():
        torch.nn.init.normal_(parameter, std=0.1)
movq = diffusers.VQModel(
    block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    latent_channels=4, norm_num_groups=4, num_vq_embeddings=8)
pipe = diffusers.Kandinsky3Pipeline(
    tokenizer=tokenizer, text_encoder=text_encoder, unet=unet, scheduler=diffusers.DDPMScheduler(), movq=movq)
pipe.set_progress_bar_config(disable=True)


def made(prompts, num_images):
    number = len(prompts) * num_images
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7)).repeat(number, 1, 1, 1)
    return pipe(
        prompt=prompts, num_images_per_prompt=num_images, height=64, width=64, num_inference_steps=2, latents=noise,
        generator=[torch.Generator().manual_seed(5) for _ in range(number)], output_type="latent", return_dict=False,
    )[0]


def compared(prompts):
    one_each, two_each = made(prompts, 1), made(prompts, 2)
    return [torch.allclose(two_each[place], one_each[place // 2], atol=1e-3) for place in range(4)]


print(f"diffusers {diffusers.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
found = {"as long": ["a cat", "a dog"], "longer": ["a cat", "a dog on a hill"]}
_, _, mask, _ = pipe.encode_prompt(found["longer"], True, 2)
print(f"tokens in the masks of two images of 'a cat' and two of 'a dog on a hill': {mask.sum(1).tolist()}")
same = {case: compared(prompts) for case, prompts in found.items()}
for case, images in same.items():
    print(f"second prompt {case}: each of the four images is that of one image a prompt: {images}")
as_described = same["as long"] == [True] * 4 and same["longer"] == [True, False, False, True]
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
