"""Decoding in batches of its own: the same images, fewer at once where that is asked for or memory runs out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from icm_pipeline.backbones.base import Backbone, Site
from icm_pipeline.hooks import StepClock, hooked
from icm_pipeline.prompts import Job
from icm_pipeline.sampling import Sample, decode, denoise


class Decoder:
    """A backbone whose decoding has room for so many images, and notes how many it is given."""

    def __init__(self, backbone: Backbone, decode_batch_size: int | None, room: int = 100) -> None:
        assert backbone.sampling is not None
        self.sizes: list[int] = []
        to_pixels = backbone.family.to_pixels

        def limited(pipe: object, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
            self.sizes.append(len(latents))
            if len(latents) > room:
                raise torch.OutOfMemoryError("out of memory")
            return to_pixels(pipe, latents, height, width)

        self.backbone = replace(
            backbone,
            family=replace(backbone.family, to_pixels=limited),
            sampling=replace(backbone.sampling, decode_batch_size=decode_batch_size),
        )


@pytest.fixture
def latents(backbone: Backbone, jobs: list[Job]) -> torch.Tensor:
    return denoise(backbone, jobs)


def differs(found: list[Sample], expected: list[Sample]) -> int:
    """Return the largest difference of a pixel's value, 0 to 255."""
    assert [sample.job for sample in found] == [sample.job for sample in expected]
    pairs = zip(found, expected, strict=True)
    return max(int(np.abs(np.asarray(a.image, int) - np.asarray(b.image, int)).max()) for a, b in pairs)


def test_what_decoding_brought_to_the_device_leaves_it_again(
    backbone: Backbone, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, events = denoise(backbone, jobs), list[str]()
    last_part = backbone.pipe.vae.decoder.conv_out
    handle = last_part.register_forward_hook(lambda module, args, output: events.append("decoded"))
    monkeypatch.setattr(backbone.pipe, "maybe_free_model_hooks", lambda: events.append("freed"))
    decode(backbone, jobs, latents)
    handle.remove()
    assert events == ["decoded", "freed"]


@pytest.mark.parametrize(("size", "sizes"), [(None, [4]), (1, [1, 1, 1, 1]), (3, [3, 1]), (9, [4])])
def test_images_are_decoded_so_many_at_once(
    backbone: Backbone, jobs: list[Job], latents: torch.Tensor, size: int | None, sizes: list[int]
) -> None:
    decoder = Decoder(backbone, size)
    assert differs(decode(decoder.backbone, jobs, latents), decode(backbone, jobs, latents)) <= 1
    assert decoder.sizes == sizes


def test_decoding_that_does_not_fit_is_halved_without_denoising_again(
    backbone: Backbone, jobs: list[Job], latents: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = Decoder(backbone, None, room=1)
    assert differs(decode(decoder.backbone, jobs, latents), decode(backbone, jobs, latents)) <= 1
    assert decoder.sizes == [4, 2, 1, 1, 1, 1]
    assert "model.decode_batch_size=1" in caplog.text


def test_one_image_that_cannot_be_decoded_is_an_error(
    backbone: Backbone, jobs: list[Job], latents: torch.Tensor
) -> None:
    with pytest.raises(MemoryError, match="1 image"):
        decode(Decoder(backbone, 2, room=0).backbone, jobs, latents)


def test_latents_that_are_not_finite_are_no_black_pictures(backbone: Backbone, jobs: list[Job]) -> None:
    def overflow(tokens: torch.Tensor, site: Site, clock: StepClock) -> torch.Tensor:
        broken = torch.zeros_like(tokens)
        broken[1] = float("inf")
        return tokens + broken

    with (
        pytest.raises(FloatingPointError, match=rf"latents of 1 of 4 .*\({jobs[1].image_id}\).*alpha"),
        hooked(backbone, backbone.layers[:1], overflow, len(jobs)),
    ):
        denoise(backbone, jobs)


def test_pixels_that_are_not_finite_are_refused_too(backbone: Backbone, jobs: list[Job], latents: torch.Tensor) -> None:
    def overflow(pipe: object, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return torch.full((len(latents), 3, height, width), float("nan"))

    broken = replace(backbone, family=replace(backbone.family, to_pixels=overflow))
    with pytest.raises(FloatingPointError, match=r"pixels of 4 of 4 .*model\.dtype"):
        decode(broken, jobs, latents)
