"""Classes that a run can load beside those of test_families: what it makes is what the pipeline would have made."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AdaptiveProjectedMixGuidance,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    ChromaPipeline,
    LCMScheduler,
    SCMScheduler,
)
from torch import Tensor
from transformers import (
    ByT5Tokenizer,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
)

from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.registry import PIPELINES
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from tests.helpers.denoisers import TINY, flux2_autoencoder
from tests.helpers.models import load
from tests.helpers.pipelines import autoencoder, build
from tests.helpers.stand_ins import layers_of_text
from tests.helpers.tiny import LENGTH, WIDTH, embedded
from tests.helpers.tiny import build as build_tiny
from tests.helpers.whole import (
    byt5,
    deepfloyd_if,
    glm_image,
    hidream,
    hunyuan_dit,
    kandinsky3,
    kandinsky5,
    kolors,
    lumina,
    omnigen,
    prx,
    prx_pixel,
)
from tests.helpers.with_picture import of_class


def chroma() -> Any:
    parts, transformer = build("flux").components, build_tiny(TINY["chroma"]).transformer
    return ChromaPipeline(
        scheduler=parts["scheduler"], vae=parts["vae"], text_encoder=parts["text_encoder_2"],
        tokenizer=parts["tokenizer_2"], transformer=transformer,
    )  # fmt: skip


def on(name: str, parts_of: str, vae: Any = None, **more: Any) -> Any:
    """Return a tiny denoiser's pipeline with the text encoder of a whole one; more: other parts."""
    parts, pipe = build(parts_of).components, build_tiny(TINY[name])
    return type(pipe)(
        transformer=pipe.transformer, scheduler=pipe.scheduler, vae=vae or autoencoder(4, shift=0.1),
        text_encoder=parts["text_encoder"], tokenizer=parts["tokenizer"], **more,
    )  # fmt: skip


def kontext() -> Any:
    return type(build_tiny(TINY["flux_kontext"]))(
        **{name: part for name, part in build("flux").components.items() if name != "transformer"},
        transformer=build_tiny(TINY["flux_kontext"]).transformer,
    )


def siglip() -> Siglip2VisionModel:
    return Siglip2VisionModel(
        Siglip2VisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )


def words() -> Any:
    """Return a tokenizer in the place of a processor, which texts alone do not reach."""
    return build("z_image").tokenizer


def nucleus_image() -> Any:
    pipe, parts = build_tiny(TINY["nucleus_image"]), build("z_image").components
    return type(pipe)(
        transformer=pipe.transformer, scheduler=pipe.scheduler, vae=qwen_autoencoder(),
        text_encoder=parts["text_encoder"], processor=words(),
    )  # fmt: skip


def hunyuan_image(**denoiser: Any) -> Any:
    """Return a pipeline with guiders; denoiser: other values of its configuration."""
    name, config = TINY["hunyuan_image"].denoiser
    pipe = build_tiny(replace(TINY["hunyuan_image"], denoiser=(name, {**config, **denoiser})))
    vae = AutoencoderKLHunyuanImage(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32), layers_per_block=1,
        spatial_compression_ratio=2, sample_size=16, scaling_factor=0.7,
    )  # fmt: skip
    parts = build("z_image").components
    return type(pipe)(
        transformer=pipe.transformer, scheduler=pipe.scheduler, vae=vae, text_encoder=parts["text_encoder"],
        tokenizer=parts["tokenizer"], text_encoder_2=byt5(), tokenizer_2=ByT5Tokenizer(),
        guider=AdaptiveProjectedMixGuidance(guidance_scale=3.0, adaptive_projected_guidance_start_step=1),
        ocr_guider=AdaptiveProjectedMixGuidance(),
    )  # fmt: skip


def qwen_autoencoder() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[2.0, 1.5, 1.0, 3.0],
    )  # fmt: skip


def wan_autoencoder() -> AutoencoderKLWan:
    """Return an autoencoder of places of 16 pixels, as FIBO's pipeline takes for granted."""
    return AutoencoderKLWan(
        base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False] * 3, in_channels=12,
        out_channels=12, patch_size=2,
    )  # fmt: skip


def scaled_autoencoder() -> Any:
    """Return FLUX.2's autoencoder with statistics of its channels that are not 0 and 1."""
    vae = flux2_autoencoder()
    vae.bn.running_mean.copy_(torch.linspace(-1, 1, len(vae.bn.running_mean)))
    vae.bn.running_var.copy_(torch.linspace(0.5, 3, len(vae.bn.running_var)))
    return vae


def with_scheduler(pipe: Any, scheduler: Any) -> Any:
    pipe.scheduler = scheduler
    return pipe


CLASSES: dict[str, tuple[Any, ...]] = {  # how it is built, its size, what its calls are given besides
    "ChromaPipeline": (chroma, 16),
    "KolorsPipeline": (lambda: kolors("kolors"), 16),
    "KolorsPAGPipeline": (lambda: kolors("kolors_pag"), 16),
    "HunyuanDiTPipeline": (lambda: hunyuan_dit("hunyuan_dit"), 64),
    "HunyuanDiTPAGPipeline": (lambda: hunyuan_dit("hunyuan_dit_pag"), 64),
    "LuminaPipeline": (lumina, 64, {"negative_prompt": "bad"}),  # its Gemma begins an empty text with no token
    "OmniGenPipeline": (omnigen, 64),
    "AuraFlowPipeline": (lambda: on("auraflow", "pixart"), 16),
    "CogView3PlusPipeline": (lambda: on("cogview3plus", "pixart"), 16),
    "Lumina2Pipeline": (lambda: on("lumina2", "sana"), 16),
    "PixArtAlphaPipeline": (lambda: of_class(build("pixart"), "PixArtAlphaPipeline"), 16),
    "LatentConsistencyModelPipeline": (
        lambda: with_scheduler(of_class(build("sd"), "LatentConsistencyModelPipeline"), LCMScheduler()), 16,
    ),
    "StableDiffusionXLPAGPipeline": (lambda: of_class(build("sdxl"), "StableDiffusionXLPAGPipeline"), 16),
    "StableDiffusion3PAGPipeline": (lambda: of_class(build("sd3"), "StableDiffusion3PAGPipeline"), 16),
    "SanaPAGPipeline": (lambda: of_class(build("sana"), "SanaPAGPipeline"), 32),
    "PixArtSigmaPAGPipeline": (lambda: of_class(build("pixart"), "PixArtSigmaPAGPipeline"), 16),
    "SanaSprintPipeline": (lambda: with_scheduler(of_class(build("sana"), "SanaSprintPipeline"), SCMScheduler()), 32),
    "GlmImagePipeline": (glm_image, 32),
    "OvisImagePipeline": (lambda: on("ovis_image", "z_image"), 16),
    "CogView4Pipeline": (lambda: on("cogview4", "sana"), 16, {"negative_prompt": "bad"}),
    "QwenImagePipeline": (
        lambda: on("qwen_image", "z_image", qwen_autoencoder()), 16, {"true_cfg_scale": 3.0, "negative_prompt": "bad"},
    ),
    "LongCatImagePipeline": (
        lambda: on("longcat_image", "z_image", autoencoder(16, shift=0.1), text_processor=words()), 16,
    ),
    "FluxKontextPipeline": (kontext, 16, {"max_sequence_length": 16}),
    "BriaPipeline": (lambda: on("bria", "pixart"), 16),
    "HunyuanImagePipeline": (hunyuan_image, 16),
    "ErnieImagePipeline": (lambda: on("ernie_image", "z_image", scaled_autoencoder()), 16),
    "ZImageOmniPipeline": (
        lambda: on("z_image_omni", "z_image", siglip=siglip(), siglip_processor=Siglip2ImageProcessor()), 16,
        {"max_sequence_length": 64},
    ),
    "Flux2KleinKVPipeline": (
        lambda: on("flux2_klein_kv", "z_image", scaled_autoencoder()), 16,
        {"max_sequence_length": 32, "text_encoder_out_layers": [1]},
    ),
    "Flux2KleinPipeline": (
        lambda: on("flux2_klein", "z_image", scaled_autoencoder()), 16,
        {"max_sequence_length": 32, "text_encoder_out_layers": [1]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_what_a_run_makes_is_what_the_pipeline_would_have_made(name: str, tmp_path: Path, jobs: list[Job]) -> None:
    builder, size, *call = CLASSES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        builder().save_pretrained(tmp_path)
    compare(load(tmp_path, size, num_steps=2, call=call[0] if call else {}), name, jobs[0])


@pytest.mark.of_class("HiDreamImagePipeline")
def test_hidream_makes_the_square_whose_area_is_its_own(tmp_path: Path, jobs: list[Job]) -> None:
    hidream().save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=r"model.height=64 and model.width=32 are no size .*=256 and .*=256"):
        load(tmp_path, 64, width=32)
    backbone = load(tmp_path, num_steps=2, call={"max_sequence_length": 16})
    compare(smaller(backbone, 16, default_sample_size=8), "HiDreamImagePipeline", jobs[0])
    with pytest.raises(BackboneError, match=r"not square \(its latents are 8 x 16 here\)"):
        backbone.family.describe(backbone.pipe, (torch.zeros(2, 16, 8, 16),), {})


@pytest.mark.of_class("Kandinsky3Pipeline")
def test_kandinsky3_makes_in_a_run_what_it_makes_by_itself_of_prompts_of_one_length(
    tmp_path: Path, jobs: list[Job]
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kandinsky3().save_pretrained(tmp_path)
    backbone = load(tmp_path, 64, num_steps=2)
    compare(backbone, "Kandinsky3Pipeline", jobs[0])
    with pytest.raises(BackboneError, match=r"set compute.batch_size=1"):
        denoise(backbone, [jobs[0], replace(jobs[0], prompt="a longer text")])
    with pytest.raises(BackboneError, match=r"no autoencoder .* compute.vae_slicing=false"):
        load(tmp_path, 64, num_steps=2, vae_slicing=True)


@pytest.mark.of_class("Kandinsky5T2IPipeline")
def test_kandinsky5_makes_the_sizes_of_its_list(tmp_path: Path, jobs: list[Job]) -> None:
    kandinsky5().save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=r"model.height=64 and model.width=32 are no size .*=1408 and .*=640"):
        load(tmp_path, 64, width=32)
    assert load(tmp_path, 768, width=1280).sampling is not None
    backbone = smaller(load(tmp_path, num_steps=2), 64, resolutions=[(64, 64)])
    compare(backbone, "Kandinsky5T2IPipeline", jobs[0])
    with pytest.raises(BackboneError, match=r"set compute.batch_size=1"):
        denoise(backbone, [jobs[0], replace(jobs[0], prompt="a longer text")])


def smaller(backbone: Backbone, size: int, **attributes: Any) -> Backbone:
    """Return a backbone that was loaded for its own size and makes another, attributes of its pipeline being others."""
    for name, value in attributes.items():
        setattr(backbone.pipe, name, value)
    assert backbone.sampling is not None
    return replace(backbone, sampling=replace(backbone.sampling, height=size, width=size))


@pytest.mark.of_class("Flux2Pipeline")
def test_flux2_dev_makes_in_a_run_what_it_makes_of_the_same_embeddings(tmp_path: Path, jobs: list[Job]) -> None:
    on("flux2", "z_image", scaled_autoencoder()).save_pretrained(tmp_path)  # its text encoder is a Mistral of 24 B
    backbone = load(tmp_path, 16, num_steps=2)

    def encode_prompt(prompt: list[str], **more: Any) -> tuple[Tensor, Tensor]:
        embeddings = embedded(prompt, (LENGTH, WIDTH))
        return embeddings, backbone.pipe._prepare_text_ids(embeddings)

    backbone.pipe.encode_prompt = encode_prompt
    compare(backbone, "Flux2Pipeline", jobs[0])


def test_a_distilled_hunyuan_image_is_told_its_guidance(tmp_path: Path, jobs: list[Job]) -> None:
    hunyuan_image(guidance_embeds=True).save_pretrained(tmp_path)
    pictures = []
    for scale in (3.0, 6.0):
        backbone = load(tmp_path, 16, num_steps=2, guidance_scale=scale)
        compare(backbone, "HunyuanImagePipeline", jobs[0])
        pictures.append(decode(backbone, jobs[:1], denoise(backbone, jobs[:1]))[0].image.tobytes())
    assert pictures[0] != pictures[1]


def encoded(*shape: int) -> Any:
    """Return what gives a prompt's embeddings [n, *shape] and their mask."""
    return lambda prompt, *args, **more: (
        embedded(prompt, shape), torch.ones(len(prompt), LENGTH, dtype=torch.bool)
    )  # fmt: skip


EMBEDDED: dict[str, tuple[Any, ...]] = {  # how it is built, its size, what is called in its encoder's place
    "Krea2Pipeline": (
        lambda: on("krea2", "z_image", qwen_autoencoder()), 16, "get_text_hidden_states", encoded(LENGTH, 3, WIDTH),
    ),
    "NucleusMoEImagePipeline": (nucleus_image, 16, "encode_prompt", encoded(LENGTH, WIDTH)),
    "BriaFiboPipeline": (
        lambda: on("bria_fibo", "z_image", wan_autoencoder()), 32, "get_prompt_embeds", layers_of_text,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_a_run_makes_of_embeddings_is_what_the_pipeline_makes_of_them(
    name: str, tmp_path: Path, jobs: list[Job]
) -> None:
    builder, size, encoder, encode = EMBEDDED[name]
    builder().save_pretrained(tmp_path)
    backbone = load(tmp_path, size, num_steps=2)
    setattr(backbone.pipe, encoder, encode)
    compare(backbone, name, jobs[0])


@pytest.mark.of_class("PRXPipeline")
@pytest.mark.parametrize(
    ("vae", "size"), [(lambda: autoencoder(4, shift=0.1), 16), (lambda: build("sana").vae, 32)], ids=["kl", "dc"]
)
def test_prx_makes_in_a_run_what_it_makes_by_itself_and_guides_one_image_at_a_time(
    vae: Callable[[], Any], size: int, tmp_path: Path, jobs: list[Job]
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prx(vae()).save_pretrained(tmp_path)
    compare(load(tmp_path, size, num_steps=2, guidance_scale=1.0), "PRXPipeline", jobs[0])
    guided = load(tmp_path, size, num_steps=2, call={"negative_prompt": "bad"})  # as Lumina's, in CLASSES
    compare_alone(guided, "PRXPipeline", jobs[0])
    with pytest.raises(BackboneError, match=r"this batch has 2: set compute.batch_size=1"):
        denoise(guided, jobs[:2])


@pytest.mark.of_class("PRXPixelPipeline")
def test_prx_of_pixels_begins_from_noise_of_its_own_scale(tmp_path: Path, jobs: list[Job]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = prx_pixel()
        pipe.register_to_config(prompt_max_tokens=16)
        pipe.save_pretrained(tmp_path)
    assert load(tmp_path, 32).pipe.config.noise_scale == 2.0
    compare(load(tmp_path, 32, num_steps=2, guidance_scale=1.0), "PRXPixelPipeline", jobs[0])
    compare_alone(load(tmp_path, 32, num_steps=2, call={"negative_prompt": "bad"}), "PRXPixelPipeline", jobs[0])


@pytest.mark.of_class("IFPipeline")
def test_deepfloyd_if_draws_each_images_noise_itself(tmp_path: Path, jobs: list[Job]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = deepfloyd_if()
        pipe.save_pretrained(tmp_path / "learned")
        pipe.scheduler.register_to_config(variance_type="fixed_small", beta_schedule="squaredcos_cap_v2")
        pipe.save_pretrained(tmp_path / "fixed")
    backbone = load(tmp_path / "learned", num_steps=2)
    assert backbone.sampling is not None and backbone.sampling.height == 8
    twice = denoise(backbone, jobs[:2])
    theirs = backbone.pipe(
        prompt=[jobs[1].prompt], generator=[torch.Generator().manual_seed(jobs[1].seed + 2**31)], output_type="pil",
        num_inference_steps=2, guidance_scale=backbone.sampling.guidance_scale, clean_caption=False,
    ).images[0]  # fmt: skip
    ours = decode(backbone, jobs[:2], twice)[1].image
    assert not torch.equal(twice[0], twice[1])
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    for scheduler in (None, "dpmpp_2m"):
        again = load(tmp_path / "learned", num_steps=2, scheduler=scheduler)
        assert torch.equal(denoise(again, jobs[:2]), denoise(again, jobs[:2]))
    with pytest.raises(BackboneError, match=r"EulerDiscreteScheduler does not read: set model.scheduler=null"):
        denoise(load(tmp_path / "learned", num_steps=2, scheduler="euler"), jobs[:1])
    fixed = load(tmp_path / "fixed", num_steps=3, scheduler="euler")  # whose noise scales with the schedule that is set
    assert torch.equal(denoise(fixed, jobs[:2]), denoise(fixed, jobs[:2]))
    recorder = Recorder([0, 1])
    with hooked(backbone, backbone.layers[-1:], recorder):
        denoise(backbone, jobs[:2])
    assert len(recorder.recording().activations[backbone.layers[-1]]) == 2


def test_glm_images_plans_are_each_of_its_own_prompt_and_seed_and_leave_the_global_stream_alone(
    tmp_path: Path, jobs: list[Job]
) -> None:
    glm_image().save_pretrained(tmp_path)
    backbone, asked = load(tmp_path, 32, num_steps=1), list[tuple[Any, int]]()
    plan = backbone.pipe.generate_prior_tokens

    def noted(prompt: Any, height: int, width: int, generator: torch.Generator) -> Any:
        asked.append((prompt, generator.initial_seed()))
        return plan(prompt, height, width, generator=generator)

    backbone.pipe.generate_prior_tokens = noted
    others = [jobs[0], replace(jobs[1], prompt="a dog")]
    state = torch.get_rng_state()
    denoise(backbone, others)
    assert asked == [([job.prompt], job.seed + 2**31) for job in others]
    assert torch.equal(torch.get_rng_state(), state)


def compare(backbone: Backbone, name: str, job: Job) -> None:
    twice = denoise(backbone, [replace(job, seed=job.seed + 1), job])  # whatever shares its batch
    assert torch.allclose(twice[1], denoise(backbone, [job])[0], atol=1e-3)
    compare_alone(backbone, name, job)


def compare_alone(backbone: Backbone, name: str, job: Job) -> None:
    settings, family = backbone.sampling, backbone.family
    assert settings is not None and family.latent_shape is not None
    size = settings.height
    assert PIPELINES[name] is family
    latents = denoise(backbone, [job])
    ours = decode(backbone, [job], latents)[0].image
    shape = family.latent_shape(backbone.pipe, size, size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(job.seed))[None]
    takes = inspect.signature(type(backbone.pipe).__call__).parameters
    scale = settings.guidance_scale
    told = {"guidance_scale": scale, "distilled_guidance_scale": scale, "max_area": size * size}
    theirs = backbone.pipe(
        prompt=[job.prompt], latents=family.pack(backbone.pipe, noise), num_inference_steps=2, height=size, width=size,
        generator=[torch.Generator().manual_seed(job.seed + 2**31)],
        **{key: value for key, value in told.items() if key in takes}, **settings.options,
    )[0][0]  # fmt: skip
    assert ours.tobytes() == theirs.tobytes()
    assert len(set(ours.getdata())) > 1
