"""What is known of a model without its weights: the same as what its run records, and what the YAML files say."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
)

from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.backbones.outline import outline_of, read_outline
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.stages.image_sets import _rows_per_image
from icm_pipeline.store.files import write_json
from tests.helpers.full_size import CASES
from tests.helpers.models import load
from tests.helpers.pipelines import BUILDERS, build

SIZES = {"sana": 32, "flux": 16, "z_image": 16}  # pixels; the others' own size is 16
# Shipped model: the architecture it has, pipeline class, places of its autoencoder's latents, channels.
SHIPPED = {
    "sd15": ("sd15", "StableDiffusionPipeline", 8, 4),
    "sdxl": ("sdxl", "StableDiffusionXLPipeline", 8, 4),
    "sana": ("sana", "SanaPipeline", 32, 32),
    "flux_dev": ("flux", "FluxPipeline", 8, 16),
    "flux_schnell": ("flux", "FluxPipeline", 8, 16),
    "sd3": ("sd3", "StableDiffusion3Pipeline", 8, 16),
    "sd35_medium": ("sd35_medium", "StableDiffusion3Pipeline", 8, 16),
    "pixart": ("pixart", "PixArtSigmaPipeline", 8, 4),
    "z_image_turbo": ("z_image", "ZImagePipeline", 8, 16),
    "chroma": ("chroma", "ChromaPipeline", 8, 16),
    "pixart_alpha": ("pixart", "PixArtAlphaPipeline", 8, 4),
    "sana_sprint": ("sana", "SanaSprintPipeline", 32, 32),
    "kolors": ("kolors", "KolorsPipeline", 8, 4),
    "hunyuan_dit": ("hunyuan_dit", "HunyuanDiTPipeline", 8, 4),
    "lumina": ("lumina", "LuminaPipeline", 8, 4),
    "omnigen": ("omnigen", "OmniGenPipeline", 8, 4),
    "hidream": ("hidream", "HiDreamImagePipeline", 8, 16),
    "kandinsky5": ("kandinsky5", "Kandinsky5T2IPipeline", 8, 16),
    "prx": ("prx", "PRXPipeline", 8, 16),
    "auraflow": ("auraflow", "AuraFlowPipeline", 8, 4),
    "cogview3plus": ("cogview3plus", "CogView3PlusPipeline", 8, 16),
    "lumina2": ("lumina2", "Lumina2Pipeline", 8, 16),
    "lcm": ("sd15", "LatentConsistencyModelPipeline", 8, 4),
    "qwen_image": ("qwen_image", "QwenImagePipeline", 8, 16),
    "ovis_image": ("ovis_image", "OvisImagePipeline", 8, 16),
    "cogview4": ("cogview4", "CogView4Pipeline", 8, 16),
    "flux2_dev": ("flux2", "Flux2Pipeline", 8, 32),
    "flux2_klein": ("flux2_klein", "Flux2KleinPipeline", 8, 32),
    "flux_kontext": ("flux", "FluxKontextPipeline", 8, 16),
    "krea2": ("krea2", "Krea2Pipeline", 8, 16),
    "hunyuan_image": ("hunyuan_image", "HunyuanImagePipeline", 32, 64),
    "nucleus_image": ("nucleus_image", "NucleusMoEImagePipeline", 8, 16),
}

OWN_AUTOENCODERS: dict[str, Any] = {
    "qwen_image": AutoencoderKLQwenImage, "krea2": AutoencoderKLQwenImage, "nucleus_image": AutoencoderKLQwenImage,
    "flux2": AutoencoderKLFlux2, "flux2_klein": AutoencoderKLFlux2,
    "hunyuan_image": partial(
        AutoencoderKLHunyuanImage, in_channels=3, out_channels=3, latent_channels=64,
        block_out_channels=(128, 256, 512, 512, 1024, 1024), layers_per_block=2, spatial_compression_ratio=32,
        sample_size=384,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILDERS)
def test_the_outline_of_a_folder_is_what_its_run_records(name: str, tmp_path: Path) -> None:
    build(name).save_pretrained(tmp_path)
    for weights in (*tmp_path.glob("unet/*.safetensors"), *tmp_path.glob("transformer/*.safetensors")):
        shutil.move(weights, tmp_path / weights.name)
    outline = read_outline(tmp_path)  # without weights
    for weights in tmp_path.glob("*.safetensors"):
        shutil.move(weights, next(path for path in (tmp_path / "unet", tmp_path / "transformer") if path.is_dir()))
    size = SIZES.get(name, 16)
    backbone = load(tmp_path, size, num_steps=1)
    recorder, outputs = Recorder([0]), []
    with hooked(backbone, backbone.layers, recorder, 1) as clock:
        kept = backbone.denoiser.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
        denoise(backbone, [Job("000000", "a face", 0, 1)])
        kept.remove()
    counts: dict[str, dict[int, int]] = {}
    recording = recorder.recording()
    for layer, values in recording.activations.items():
        widths = counts.setdefault(recording.kinds[layer], {})
        widths[values.shape[2]] = widths.get(values.shape[2], 0) + 1
    assert outline.widths == {kind: [list(pair) for pair in sorted(found.items())] for kind, found in counts.items()}
    assert clock.call is not None
    assert _rows_per_image(outline, 3.0, {}) == clock.call.num_rows
    if name != "z_image":  # whose denoiser returns a list
        places = (size // outline.factor) ** 2
        assert outputs[0].numel() == clock.call.num_rows * outline.channels * places


def _write_published(folder: Path, architecture: str, pipeline: str, factor: int, channels: int) -> None:
    """Write the configuration files of a full-size model."""
    with torch.device("meta"):
        denoiser = CASES[architecture][1]()
    part = CASES[architecture][0].denoiser
    vae: Any = AutoencoderKL(
        block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=channels, norm_num_groups=4,
    )  # fmt: skip
    if factor == 32:
        vae = AutoencoderDC(
            latent_channels=channels, encoder_block_out_channels=(8,) * 6, decoder_block_out_channels=(8,) * 6,
            encoder_layers_per_block=(1,) * 6, decoder_layers_per_block=(1,) * 6, attention_head_dim=8,
            encoder_block_types="ResBlock", decoder_block_types="ResBlock", encoder_qkv_multiscales=((),) * 6,
            decoder_qkv_multiscales=((),) * 6,
        )  # fmt: skip
    if architecture in OWN_AUTOENCODERS:
        with torch.device("meta"):
            vae = OWN_AUTOENCODERS[architecture]()
    denoiser.save_config(folder / part)
    vae.save_config(folder / "vae")
    index = {
        "_class_name": pipeline,
        part: ["diffusers", type(denoiser).__name__],
        "vae": ["diffusers", type(vae).__name__],
    }
    others = ["scheduler", "processor" if architecture == "nucleus_image" else "tokenizer"]
    others += ["text_encoder"] * (architecture != "omnigen")
    others += ["feature_extractor", "safety_checker"] if architecture in ("sd15", "hunyuan_dit") else []
    others += ["image_encoder", "feature_extractor"] if architecture == "chroma" else []
    two = ("sdxl", "flux", "sd3", "sd35_medium", "hunyuan_image", "kandinsky5", "hidream")
    others += ["text_encoder_2", "tokenizer_2"] if architecture in two else []
    others += ["text_encoder_3", "tokenizer_3"] if architecture.startswith(("sd3", "hidream")) else []
    others += ["text_encoder_4", "tokenizer_4"] if architecture == "hidream" else []
    write_json(folder / "model_index.json", index | {name: [None, None] for name in others})


@pytest.mark.parametrize("model", SHIPPED)
def test_a_models_yaml_says_what_its_published_configuration_says(
    model: str, tmp_path: Path, compose_settings: Callable[..., Settings]
) -> None:
    _write_published(tmp_path, *SHIPPED[model])
    stated = compose_settings(f"model={model}").model.outline
    assert stated == read_outline(tmp_path)


def test_a_hub_model_whose_files_are_not_here_has_the_outline_of_its_yaml(
    compose_settings: Callable[..., Settings],
) -> None:
    model = compose_settings("model=sdxl").model
    assert outline_of(model) == model.outline
    model.sites = {"self_attention": ".*"}
    assert outline_of(model) is None
    assert outline_of(compose_settings("model=local").model) is None


def test_a_layer_that_does_not_say_its_width_is_refused(random_pipeline_folder: Path) -> None:
    with pytest.raises(BackboneError, match=r"down_blocks.0.resnets.0.norm1 has no linear layer"):
        read_outline(random_pipeline_folder, {"self_attention": r"down_blocks\.0\.resnets\.0\.norm1"})
    with pytest.raises(BackboneError, match=r"no model_index.json"):
        read_outline(random_pipeline_folder / "unet")
