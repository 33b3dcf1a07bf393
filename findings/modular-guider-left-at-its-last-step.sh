#!/bin/sh
# A modular SDXL pipeline whose guider stops guiding halfway works once: its second call raises, as whether negative prompts are
# embedded is decided by the step at which the last call left the guider. One with enabled=False raises in its first call, as the
# denoising loop enables it after the text was embedded without negative prompts; from the second call on it guides.
# Needs python3 (3.11 or later) and a package index; installs into a temporary folder, which it removes.
# Exit 0: as described. Exit 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 diffusers==0.42.1 transformers==5.24.0
cat > "$folder/check.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import diffusers
import torch
import transformers

folder = Path(sys.argv[1])
vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "b</w>": 3}
(folder / "vocab.json").write_text(json.dumps(vocabulary))
(folder / "merges.txt").write_text("#version: 0.2\n")
tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)


def text_config():
    return transformers.CLIPTextConfig(
        vocab_size=4, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=8, projection_dim=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )


def pipeline(guider):
    torch.manual_seed(0)
    pipe = diffusers.StableDiffusionXLModularPipeline()
    pipe.update_components(
        unet=diffusers.UNet2DConditionModel(
            sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=32,
            attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), addition_embed_type="text_time",
            addition_time_embed_dim=8, projection_class_embeddings_input_dim=64,
        ),
        vae=diffusers.AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
                                    up_block_types=("UpDecoderBlock2D",) * 2),
        text_encoder=transformers.CLIPTextModel(text_config()), tokenizer=tokenizer,
        text_encoder_2=transformers.CLIPTextModelWithProjection(text_config()), tokenizer_2=tokenizer,
        scheduler=diffusers.EulerDiscreteScheduler(), guider=guider,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def called(pipe):
    try:
        pipe(prompt="a", height=16, width=16, num_inference_steps=4, output="latents",
             generator=torch.Generator().manual_seed(0))
    except Exception as error:
        return f"raises {type(error).__name__}: {str(error).splitlines()[0]}"
    return "gives latents"


guiders = {
    "at all steps": {}, "in the second half of the steps": {"start": 0.5}, "in the first half of the steps": {"stop": 0.5},
    "switched off (enabled=False)": {"enabled": False},
}
found = {}
for case, options in guiders.items():
    pipe = pipeline(diffusers.ClassifierFreeGuidance(guidance_scale=4.0, **options))
    found[case] = called(pipe), called(pipe)
print(f"diffusers {diffusers.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
for case, (first, second) in found.items():
    print(f"ClassifierFreeGuidance {case}: the first call {first}; the second {second}")
WORKS, FAILS = "gives latents", "raises AttributeError: 'NoneType' object has no attribute 'shape'"
as_described = list(found.values()) == [(WORKS, WORKS), (WORKS, WORKS), (WORKS, FAILS), (FAILS, WORKS)]
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py" "$folder"
