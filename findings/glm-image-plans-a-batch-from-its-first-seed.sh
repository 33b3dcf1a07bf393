#!/bin/sh
# GLM-Image takes a list of generators, one for each image, and draws the language model's plans of all images from the first
# one's seed, in one stream. So an image made in a batch, in whatever place, is another one than by itself with the same
# generator and latents; with its own plan given (prior_token_ids) it is the same.
# Needs python3 (3.11 or later) and a package index; installs into a temporary folder, which it removes.
# Exit 0: as described. Exit 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 torchvision diffusers==0.42.1 transformers==5.24.0
cat > "$folder/check.py" <<'PYTHON'
import string
import sys

import diffusers
import torch
import transformers

torch.manual_seed(0)
named = {"image_token": "<image>", "grid_bos_token": "<grid>", "grid_eos_token": "</grid>"}
words = ["<pad>", "<start>", *named.values(), *string.ascii_lowercase, *string.digits, "\u0120"]
tokenizer = transformers.Qwen2Tokenizer(
    vocab={word: i for i, word in enumerate(words)}, merges=[], bos_token="<start>", pad_token="<pad>",
    extra_special_tokens=named,
)
planner = transformers.GlmImageForConditionalGeneration(transformers.GlmImageConfig(
    text_config=dict(
        vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, vision_vocab_size=32, pad_token_id=0, eos_token_id=None,
        rope_parameters={"rope_type": "default", "mrope_section": [2, 2, 4]},
    ),
    vision_config=dict(depth=1, hidden_size=16, num_heads=2, intermediate_size=16, image_size=32, patch_size=16),
    vq_config=dict(embed_dim=8, num_embeddings=32, latent_channels=16),
    image_token_id=2, image_start_token_id=30, image_end_token_id=31,
)).eval()
denoiser = diffusers.GlmImageTransformer2DModel(
    in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2, text_embed_dim=32,
    time_embed_dim=8, condition_dim=4, prior_vq_quantizer_codebook_size=32,
)
for parameter in denoiser.parameters():  # as some begin at zero
    torch.nn.init.normal_(parameter, std=0.2)
template = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
pipe = diffusers.GlmImagePipeline(
    tokenizer=transformers.ByT5Tokenizer(),
    text_encoder=transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)).eval(),
    processor=transformers.GlmImageProcessor(transformers.GlmImageImageProcessor(), tokenizer, template),
    vision_language_encoder=planner, transformer=denoiser, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    vae=diffusers.AutoencoderKL(
        block_out_channels=(8,) * 4, norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4),
)
pipe.set_progress_bar_config(disable=True)


def made(seeds, **plans):
    noise = torch.cat([torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return pipe(
        prompt=["a face"] * len(seeds), height=32, width=32, num_inference_steps=2, guidance_scale=1.5, latents=noise,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds], output_type="latent", return_dict=False, **plans,
    )[0]


def plan(seed):
    return pipe.generate_prior_tokens(["a face"], 32, 32, generator=torch.Generator().manual_seed(seed))[0]


alone = made([7])[0]
found = {
    "by itself once more": made([7])[0],
    "in first place of a batch": made([7, 3])[0],
    "in second place of a batch": made([3, 7])[1],
    "in second place of a batch, each image's own plan given": made([3, 7], prior_token_ids=torch.cat([plan(3), plan(7)]))[1],
}
print(f"diffusers {diffusers.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
same = {case: torch.allclose(latents, alone, atol=1e-4) for case, latents in found.items()}
for case, is_same in same.items():
    print(f"seed 7 {case}: {'the same latents as' if is_same else 'other latents than'} by itself")
as_described = list(same.values()) == [True, False, False, True]
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
