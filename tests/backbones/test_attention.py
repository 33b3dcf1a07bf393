"""Attention kernels and memory layouts: the same latents up to rounding; what cannot be used is refused in words."""

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend

from icm_pipeline.backbones import attention
from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.loading import Placement, place
from icm_pipeline.backbones.registry import load_backbone
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import decode, denoise
from tests.conftest import NUM_STEPS
from tests.helpers.pipelines import build


def load(folder: Path, size: int | None = None, **placement: object) -> Backbone:
    placed = Placement(**placement)  # type: ignore[arg-type]
    return load_backbone("random", str(folder), NUM_STEPS, 3.0, placed, height=size, width=size)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * float(b.abs().max()))


@pytest.fixture(scope="module")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux")
    build("flux").save_pretrained(folder)
    return folder


def enabled() -> dict[str, bool]:
    cuda = torch.backends.cuda
    return {"math": cuda.math_sdp_enabled(), "flash": cuda.flash_sdp_enabled()}


@pytest.mark.parametrize("kernel", ["math", "flash"])
def test_the_denoiser_runs_with_the_kernel_asked_for_and_nothing_else_does(
    random_pipeline_folder: Path, backbone: Backbone, jobs: list[Job], kernel: str
) -> None:
    chosen, seen = load(random_pipeline_folder, attention_kernel=kernel), []
    chosen.denoiser.conv_in.register_forward_hook(lambda *_: seen.append(enabled()))
    chosen.pipe.text_encoder.register_forward_hook(lambda *_: seen.append(enabled()))
    close(denoise(chosen, jobs), denoise(backbone, jobs))
    other = {"math": True, "flash": True}
    assert seen == [other] * 2 + [{name: name == kernel for name in ("math", "flash")}] * NUM_STEPS
    assert enabled() == other
    assert "forward" not in vars(chosen.denoiser)


def test_an_unknown_kernel_is_refused_with_those_that_work_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"model\.attention_kernel=fast is not known\. Choose one of: math, flash;"):
        load(tmp_path, attention_kernel="fast")


def test_a_kernel_that_the_device_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="cudnn does not work on cpu in float32"):
        load(tmp_path, attention_kernel="cudnn")


def test_attention_that_a_kernel_cannot_compute_is_told_in_words(
    random_pipeline_folder: Path, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = load(random_pipeline_folder, attention_kernel="flash")
    monkeypatch.setitem(attention.TORCH_KERNELS, "flash", SDPBackend.CUDNN_ATTENTION)
    with pytest.raises(BackboneError, match="flash cannot compute this model's attention"):
        denoise(chosen, jobs)


def test_a_packages_kernel_is_refused_where_diffusers_does_not_hand_over(random_pipeline_folder: Path) -> None:
    with pytest.raises(BackboneError, match=r"cannot be given to a UNet2DConditionModel.*math, flash"):
        load(random_pipeline_folder, attention_kernel="xformers")


def test_a_package_that_is_not_installed_is_named(flux_folder: Path) -> None:
    with pytest.raises(BackboneError, match=r"attention_kernel=flash_attn_3 cannot be used here.*FA3"):
        load(flux_folder, 16, attention_kernel="flash_attn_3")


def test_a_packages_kernel_computes_the_denoisers_attention(
    flux_folder: Path, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

    monkeypatch.setitem(attention.PACKAGE_KERNELS, "flash_attn", "_native_math")  # stands for the package's
    chosen, seen = load(flux_folder, 16, attention_kernel="flash_attn"), []
    chosen.denoiser.x_embedder.register_forward_hook(lambda *_: seen.append(Registry.get_active_backend()[0]))
    found = denoise(chosen, jobs[:2])
    assert {str(backend.value) for backend in seen} == {"_native_math"}
    assert Registry.get_active_backend()[0].value == "native"
    close(found, denoise(load(flux_folder, 16), jobs[:2]))


def test_channels_last_lays_out_unet_and_autoencoder(
    random_pipeline_folder: Path, backbone: Backbone, jobs: list[Job]
) -> None:
    chosen = load(random_pipeline_folder, channels_last=True)
    for module in (chosen.denoiser.conv_in, chosen.pipe.vae.decoder.conv_in):
        assert module.weight.is_contiguous(memory_format=torch.channels_last)
        assert not module.weight.is_contiguous()
    latents = denoise(chosen, jobs)
    close(latents, denoise(backbone, jobs))
    assert len(decode(chosen, jobs, latents)) == len(jobs)


def test_channels_last_leaves_a_transformer_as_it_is_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    pipe = build("sana")
    before = {name: p.stride() for name, p in pipe.transformer.named_parameters()}
    with caplog.at_level("INFO"):
        place(pipe, "transformer", Placement(channels_last=True))
    assert "SanaTransformer2DModel" in caplog.text
    assert {name: p.stride() for name, p in pipe.transformer.named_parameters()} == before
