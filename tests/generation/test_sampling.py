"""Denoising with noise of each image's own; decoding in batches of its own, fewer at once where memory runs out."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm

from icm_pipeline.backbones.base import Backbone, Site
from icm_pipeline.backbones.schedulers import use_scheduler
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import Sample, decode, denoise
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked


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
    assert "compute.decode_batch_size=1" in caplog.text


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
    with pytest.raises(FloatingPointError, match=r"pixels of 4 of 4 .*compute\.dtype"):
        decode(broken, jobs, latents)


STOCHASTIC = {"euler_a": scheduling_euler_ancestral_discrete, "lcm": scheduling_lcm}


@pytest.fixture(params=STOCHASTIC)
def stochastic(backbone: Backbone, request: pytest.FixtureRequest) -> Iterator[tuple[Backbone, Any]]:
    """Give the random pipeline with a scheduler that draws noise at every step, and the module that draws it."""
    own = backbone.pipe.scheduler
    use_scheduler(backbone.pipe, request.param)
    yield backbone, STOCHASTIC[request.param]
    backbone.pipe.scheduler = own


def test_with_a_stochastic_scheduler_four_images_together_equal_four_alone(
    stochastic: tuple[Backbone, Any], jobs: list[Job]
) -> None:
    backbone, _ = stochastic
    together, alone = denoise(backbone, jobs), torch.cat([denoise(backbone, [job]) for job in jobs])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4 * float(together.abs().max()))


def test_a_stochastic_scheduler_draws_other_noise_for_every_image_and_step_than_the_image_began_with(
    stochastic: tuple[Backbone, Any], jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, module = stochastic
    assert backbone.sampling is not None
    shape = backbone.family.latent_shape(backbone.pipe, backbone.sampling.height, backbone.sampling.width)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(job.seed)) for job in jobs]
    draw = module.randn_tensor

    def noted(*args: Any, **kwargs: Any) -> torch.Tensor:
        drawn = draw(*args, **kwargs)
        noise.extend(drawn)
        return drawn

    monkeypatch.setattr(module, "randn_tensor", noted)
    denoise(backbone, jobs)
    assert len(noise) >= 3 * len(jobs)
    alike = torch.corrcoef(torch.stack(noise).flatten(1)).fill_diagonal_(0)
    assert alike.abs().max() < 0.5
