"""Train the text encoder and the UNet on the autoencoder's latents: v-prediction, zero terminal SNR.

Zero terminal SNR (Lin et al. 2024, arXiv 2305.08891) matters here: with the usual schedule the last training step still
shows the mean colour, so a sampler that starts from pure noise would not draw backgrounds at their training odds.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from icm_pipeline.pretrain.autoencoder import LATENT_CHANNELS, encode_portraits
from icm_pipeline.pretrain.captions import write_caption
from icm_pipeline.pretrain.dataset import Portraits, caption_rng
from icm_pipeline.pretrain.training import Loss, TrainingPlan, TrainingRun, train
from icm_pipeline.store.files import written_whole
from icm_pipeline.store.fingerprints import make_key

MAX_TOKENS = 32
TEXT_WIDTH = 128
VOCABULARY_SIZE = 900
EMPTY_CAPTION_SHARE = 0.1  # trains the unconditional half of classifier-free guidance


def build_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """Learn CLIP-style byte-pair merges on the captions, so that every common word is one token."""
    from tokenizers import Tokenizer, models, normalizers, trainers
    from tokenizers.pre_tokenizers import ByteLevel, Punctuation, Sequence, WhitespaceSplit

    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = Sequence([WhitespaceSplit(), Punctuation(), ByteLevel(add_prefix_space=False)])
    alphabet = sorted(ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = alphabet + [f"{letter}</w>" for letter in alphabet] + ["".join(pair) for pair in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        hidden_size=TEXT_WIDTH, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config)


def build_unet(num_blocks: int = 3, text_width: int = TEXT_WIDTH, **more: Any) -> UNet2DConditionModel:
    """Return a UNet of one resolution with `num_blocks` transformer blocks wherever it attends.

    With a second, coarser level the trained network did its spatial work in the 8 x 8 convolutions and hardly used the
    level below, so that steering there changed nothing.
    """
    return UNet2DConditionModel(
        sample_size=8, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, block_out_channels=(96,),
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",), layers_per_block=1,
        transformer_layers_per_block=num_blocks, attention_head_dim=4, cross_attention_dim=text_width, **more,
    )  # fmt: skip


def use_quick_attention(unet: UNet2DConditionModel, device: str) -> None:
    """On a CPU let a UNet attend with plain products: far faster backwards than flash attention at these sizes."""
    if torch.device(device).type == "cpu":
        unet.set_attn_processor(AttnProcessor())


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
        set_alpha_to_one=True, steps_offset=1,
    )  # fmt: skip


class TextToLatent(nn.Module):
    """Text encoder and UNet as one module, so that they train together."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet

    def forward(self, noisy: Tensor, timesteps: Tensor, token_ids: Tensor) -> Tensor:
        return self.unet(noisy, timesteps, self.text_encoder(token_ids)[0]).sample


@dataclass(frozen=True)
class Batch:
    """What a training step learns from."""

    clean: Tensor  # latents [b, c, h, w]
    noise: Tensor
    timesteps: Tensor  # of the noise schedule [b]
    captions: list[str]
    silent: Tensor  # [b], which captions are empty

    def noisy(self, schedule: "NoiseSchedule") -> Tensor:
        a, s = schedule.at(self.timesteps)
        return a * self.clean + s * self.noise


class NoiseSchedule:
    """The factors of picture and noise at every training step of a scheduler."""

    def __init__(self, scheduler: DDIMScheduler, device: str) -> None:
        self._signal = scheduler.alphas_cumprod.sqrt().to(device)
        self._noise = (1 - scheduler.alphas_cumprod).sqrt().to(device)

    def at(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of picture and noise at some steps, each [b, 1, 1, 1]."""
        return self._signal[timesteps].view(-1, 1, 1, 1), self._noise[timesteps].view(-1, 1, 1, 1)


class Batches:
    """Draws training batches: rows of the cached latents, a fresh caption for each, steps spread over the schedule."""

    def __init__(self, portraits: Portraits, autoencoder: AutoencoderKL, folder: Path, plan: TrainingPlan) -> None:
        self._portraits, self._autoencoder, self._folder, self._plan = portraits, autoencoder, folder, plan

    @cached_property
    def _latents(self) -> Tensor:  # only when a step is left to train
        cached = cached_latents(self._portraits, self._autoencoder, self._folder)
        return cached.to(self._plan.device, memory_format=torch.channels_last)

    def draw(self, generator: torch.Generator) -> Batch:
        size, plan = self._plan.batch_size, self._plan
        rows = torch.randint(len(self._portraits), (size,), generator=generator)
        stamp = int(torch.randint(2**31, (1,), generator=generator))
        silent = torch.rand(size, generator=generator) < EMPTY_CAPTION_SHARE
        spread = (torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)) / size
        clean = self._latents[rows]
        noise = torch.randn(clean.shape, generator=generator).to(plan.device)
        captions = [
            "" if drop else write_caption(self._portraits.people[row], caption_rng(plan.seed, row, 1 + stamp)).text
            for row, drop in zip(rows.tolist(), silent.tolist(), strict=True)
        ]
        return Batch(clean, noise, (spread * 1000).long().to(plan.device), captions, silent.to(plan.device))


def cached_latents(portraits: Portraits, autoencoder: AutoencoderKL, folder: Path) -> Tensor:
    """Return the scaled latents of every portrait, encoded once per autoencoder and kept on disk."""
    weights = torch.cat([value.flatten()[:64].double() for value in autoencoder.state_dict().values()])
    stamp = make_key([portraits.digest, float(weights.sum()), autoencoder.config.scaling_factor])
    path = folder / f"latents-{stamp}.safetensors"
    if not path.exists():
        latents = encode_portraits(autoencoder, torch.from_numpy(portraits.pixels)) * autoencoder.config.scaling_factor
        with written_whole(path) as partial:
            save_file({"latents": latents.contiguous()}, partial)
    return load_file(path)["latents"]


def _new_model(portraits: Portraits, seed: int) -> tuple[TextToLatent, CLIPTokenizer]:
    samples = [write_caption(person, caption_rng(seed, i, 0)).text for i, person in enumerate(portraits.people)]
    tokenizer = build_tokenizer(samples)
    torch.manual_seed(seed)
    return TextToLatent(build_text_encoder(tokenizer), build_unet()), tokenizer


def _trained_model(folder: Path) -> tuple[TextToLatent, CLIPTokenizer]:
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    return TextToLatent(text_encoder, unet), CLIPTokenizer.from_pretrained(folder / "tokenizer")


def train_diffusion(
    portraits: Portraits,
    autoencoder: AutoencoderKL,
    plan: TrainingPlan,
    run: TrainingRun,
    start_from: Path | None = None,
) -> StableDiffusionPipeline:
    """Train on cached latents with a fresh caption for every picture at every step; return the whole pipeline.

    start_from: a pipeline folder of the same architecture whose weights and tokenizer the training begins with.
    """
    model, tokenizer = _trained_model(start_from) if start_from else _new_model(portraits, plan.seed)
    use_quick_attention(model.unet, plan.device)
    model.unet.to(memory_format=torch.channels_last)
    scheduler = build_scheduler()
    schedule = NoiseSchedule(scheduler, plan.device)
    source = Batches(portraits, autoencoder, run.folder, plan)

    def loss(model: nn.Module, generator: torch.Generator) -> Loss:
        batch = source.draw(generator)
        ids = tokenizer(batch.captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        predicted = model(batch.noisy(schedule), batch.timesteps, ids.to(plan.device)).float()
        a, s = schedule.at(batch.timesteps)
        return (predicted - (a * batch.noise - s * batch.clean)).square().mean(), {}

    train("diffusion", model, loss, plan, run)
    model.unet.to(memory_format=torch.contiguous_format)
    return StableDiffusionPipeline(
        vae=autoencoder, text_encoder=model.text_encoder, tokenizer=tokenizer, unet=model.unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
