"""What stands in a pipeline's place of parts that are no part of a test: encoders of text and pictures, a guard."""

import zlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from tests.helpers.tiny import LENGTH, WIDTH, embedded


class Unguarded:
    """A safety checker of Cosmos that lets everything through."""

    def to(self, device: Any) -> None:
        pass


class Untold:
    """An encoder that nobody calls."""

    dtype = torch.float32
    image_processor = None


class Averaging:
    """An autoencoder of videos that halves pictures some times, for pipelines that take them at one size alone."""

    dtype = torch.float32

    def __init__(self, times: int, channels: int = 4) -> None:
        self.temperal_downsample = [False] * times
        self.config = SimpleNamespace(
            z_dim=channels, latent_channels=channels, latents_mean=[0.0] * channels, latents_std=[1.0] * channels,
            block_out_channels=[8] * (times + 1), shift_factor=0.0, scaling_factor=1.0,
        )  # fmt: skip

    def parameters(self) -> Iterator[Tensor]:
        yield torch.zeros(1)

    def encode(self, pictures: Tensor) -> Any:
        """Return what gives latents [b, c, (1,) h, w] of pictures [b, 3, (1,) h, w]: their colours over and over."""
        side, colours = 2 ** len(self.temperal_downsample), [number % 3 for number in range(self.config.z_dim)]
        small = avg_pool2d(pictures[:, :, 0] if pictures.dim() == 5 else pictures, side)
        latents = small[:, colours, None] if pictures.dim() == 5 else small[:, colours]
        return SimpleNamespace(
            latent_dist=SimpleNamespace(mode=lambda: latents, sample=lambda *generator: latents, mean=latents)
        )


class Words:
    """A tokenizer that gives every text as many tokens, and the same text the same ones."""

    model_max_length = LENGTH

    def __call__(self, text: str) -> Any:
        draw = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return SimpleNamespace(input_ids=torch.randint(3, 64, (LENGTH,), generator=draw).tolist())


def layers_of_text(prompt: Sequence[str], **more: Any) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return FIBO's embeddings, those of every layer and their mask."""
    drawn = embedded(prompt, (LENGTH, WIDTH))
    return drawn, [drawn] * 4, torch.ones(len(prompt), LENGTH)


def pooled_too(prompt: Sequence[str], negative_prompt: Sequence[str], **more: Any) -> tuple[Tensor, ...]:
    """Return what Kolors' `encode_prompt` does."""
    texts = [embedded(words, shape) for shape in ((LENGTH, WIDTH), (WIDTH,)) for words in (prompt, negative_prompt)]
    return tuple(texts)


def parts_of_text(prompt: Sequence[str], num_condition_images: int = 0, **more: Any) -> list[list[Tensor]]:
    """Return each prompt of Z-Image's Omni pipeline in parts, between which its pictures go."""
    parts = [embedded([f"part {number}"], (LENGTH, WIDTH))[0] for number in range(2 * bool(num_condition_images))]
    return [[*parts[:1], embedded([text], (LENGTH, WIDTH))[0], *parts[1:]] for text in prompt]


def seen_by_siglip(images: Sequence[Any], batch_size: int, **more: Any) -> list[list[Tensor]]:
    return [[torch.ones(2, 3, 8) for _ in images] for _ in range(batch_size)]
