#!/bin/sh
# Guiders that skip layers raise at the first step at which they skip: SkipLayerGuidance and AutoGuidance told which layers by
# numbers raise TypeError. Told by a LayerSkipConfig they run on Wan, and raise on Qwen-Image and on Stable Diffusion 3, to which the
# default values of SkipLayerGuidance belong. PerturbedAttentionGuidance runs on Qwen-Image, and raises on the other two.
# Needs python3 (3.11 or later) and a package index; installs into a temporary folder, which it removes.
# Exit 0: as described. Exit 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 diffusers==0.42.1 transformers==5.24.0
cat > "$folder/check.py" <<'PYTHON'
import sys

import diffusers
import torch

TIME = torch.tensor([500.0])


def stable_diffusion_3():
    model = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=32, pooled_projection_dim=64)
    return model, lambda text, pooled: model(torch.ones(1, 4, 8, 8), text, pooled, TIME, return_dict=False)[0]


def wan():
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=32, freq_dim=16, ffn_dim=32,
        num_layers=2, rope_max_seq_len=32)
    return model, lambda text, pooled: model(torch.ones(1, 4, 1, 8, 8), TIME, text, return_dict=False)[0]


def qwen_image():
    model = diffusers.QwenImageTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(4, 4, 8))
    mask = torch.ones(1, 3, dtype=torch.bool)
    return model, lambda text, pooled: model(torch.ones(1, 16, 4), text, mask, TIME / 1000, [[(1, 4, 4)]], return_dict=False)[0]


def skipping(**options):
    return diffusers.SkipLayerGuidance(skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0, **options)


def layer(**options):
    return diffusers.LayerSkipConfig([1], fqn="auto", **options)


GUIDERS = {
    "ClassifierFreeGuidance": lambda: diffusers.ClassifierFreeGuidance(),
    "SkipLayerGuidance, layers by number": lambda: skipping(skip_layer_guidance_layers=[1]),
    "SkipLayerGuidance, layers by LayerSkipConfig": lambda: skipping(skip_layer_config=layer()),
    "AutoGuidance, layers by number": lambda: diffusers.AutoGuidance(auto_guidance_layers=[1], dropout=0.1),
    "AutoGuidance, layers by LayerSkipConfig": lambda: diffusers.AutoGuidance(auto_guidance_config=layer(dropout=0.1)),
    "PerturbedAttentionGuidance, layers by number": lambda: diffusers.PerturbedAttentionGuidance(
        perturbed_guidance_layers=[1], perturbed_guidance_start=0.0, perturbed_guidance_stop=1.0),
}


@torch.no_grad()
def guided(guider, denoiser):
    torch.manual_seed(0)
    text, pooled = torch.randn(1, 3, 32), torch.randn(1, 64)
    model, predict = denoiser()
    try:
        guider.set_state(step=1, num_inference_steps=4, timestep=TIME)
        batches = guider.prepare_inputs({"text": (text, -text), "pooled": (pooled, -pooled)})
        for batch in batches:
            guider.prepare_models(model)
            batch.noise_pred = predict(batch.text, batch.pooled)
            guider.cleanup_models(model)
        return f"a prediction of {tuple(guider(batches).pred.shape)}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:90]}"


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
found = {
    (name, denoiser.__name__): guided(guider(), denoiser)
    for name, guider in GUIDERS.items() for denoiser in (stable_diffusion_3, qwen_image, wan)
}
for (name, denoiser), what in found.items():
    print(f"{name}, {denoiser}: {what}")
WORKS = "a prediction of"
expected = [
    WORKS, WORKS, WORKS, "TypeError", "TypeError", "TypeError", "RuntimeError", "RuntimeError", WORKS,
    "TypeError", "TypeError", "TypeError", "TypeError", "TypeError", WORKS, "ValueError", WORKS, "ValueError",
]
as_described = all(what.startswith(start) for what, start in zip(found.values(), expected, strict=True))
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/check.py"
