"""LocK's contribution: softmax attention restricted to words, projected without the bias, and the run left as it is."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.registry import attach
from icm_pipeline.backbones.text_attention import TextAttention, text_attentions, tokens_of
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.contributions import contributing, contribution_of
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder, Recording
from tests.helpers.models import NUM_STEPS
from tests.helpers.pipelines import built

HEADS, WIDTH = 2, 8


def attention_of(module: Any) -> TextAttention:
    return TextAttention("attn2", module, module.to_v, (), module.to_out[0])


@pytest.fixture
def module() -> Attention:
    """Build a cross-attention whose every part has a bias."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Attention(WIDTH, cross_attention_dim=6, heads=HEADS, dim_head=4, bias=True, out_bias=True).eval()


def direct(module: Any, image: Tensor, text: Tensor, places: list[int], mask: Tensor | None = None) -> Tensor:
    """Compute the contribution as the paper writes it, [s, d]: one row, head by head."""
    query, key, value = module.to_q(image), module.to_k(text), module.to_v(text)
    heads = []
    for head in range(HEADS):
        part = slice(4 * head, 4 * head + 4)
        scores = query[:, part] @ key[:, part].T / 4**0.5
        weights = (scores if mask is None else scores + mask).softmax(-1)
        heads.append(weights[:, places] @ value[places, part])
    return torch.cat(heads, -1) @ module.to_out[0].weight.T


@torch.no_grad()
def test_a_contribution_is_softmax_attention_restricted_to_the_tokens_without_the_bias(module: Any) -> None:
    rng = torch.Generator().manual_seed(1)
    image, text = torch.randn(4, 5, WIDTH, generator=rng), torch.randn(4, 7, 6, generator=rng)
    given = {"encoder_hidden_states": text}
    found = contribution_of(attention_of(module), (image,), given, slice(2, 4), [[1], [0, 3]])
    for row, places in enumerate([[1], [0, 3]]):
        torch.testing.assert_close(found[row], direct(module, image[2 + row], text[2 + row], places))
    everything = contribution_of(attention_of(module), (image,), given, slice(0, 1), [list(range(7))])
    torch.testing.assert_close(everything[0] + module.to_out[0].bias, module(image, **given)[0])
    assert everything.norm() > 1e-2


@torch.no_grad()
def test_tokens_that_the_model_masks_are_masked(module: Any) -> None:
    rng = torch.Generator().manual_seed(1)
    image, text = torch.randn(1, 5, WIDTH, generator=rng), torch.randn(1, 7, 6, generator=rng)
    mask = torch.tensor([[[0.0, 0, 0, 0, -10000.0, -10000.0, -10000.0]]])
    given = {"encoder_hidden_states": text, "attention_mask": mask}
    found = contribution_of(attention_of(module), (image,), given, slice(0, 1), [[1, 5]])
    torch.testing.assert_close(found[0], direct(module, image[0], text[0], [1], mask[0]))


def recorded(backbone: Backbone, jobs: list[Job], tokens: list[list[int]]) -> tuple[Tensor, Recording]:
    recorder = Recorder(list(range(NUM_STEPS)))
    with (
        hooked(backbone, [], None, len(jobs)) as clock,
        contributing(backbone, text_attentions(backbone), clock, recorder, tokens),
    ):
        latents = denoise(backbone, jobs)
    return latents, recorder.recording()


def test_recording_contributions_leaves_images_alone_to_the_bit_and_no_hook_behind(
    backbone: Backbone, jobs: list[Job]
) -> None:
    plain = denoise(backbone, jobs)
    latents, found = recorded(backbone, jobs, [[1], [2], [1, 2], [1]])
    assert torch.equal(latents, plain)
    assert list(found.activations) == [site.layer for site in backbone.sites if site.kind == "cross_attention"]
    assert all(each.shape == (4, NUM_STEPS, 1) and (each > 0).all() for each in found.activations.values())
    for attention in text_attentions(backbone):
        for part in (attention.module, attention.values, attention.projection):
            assert not part._forward_hooks and not part._forward_pre_hooks


def test_an_images_contribution_is_that_of_its_own_tokens_whatever_shares_its_batch(
    backbone: Backbone, jobs: list[Job]
) -> None:
    together = recorded(backbone, jobs[:2], [[1, 2, 3, 4], [2]])[1].activations
    alone = recorded(backbone, jobs[1:2], [[2]])[1].activations
    other = recorded(backbone, jobs[1:2], [[4]])[1].activations
    for layer, each in together.items():
        torch.testing.assert_close(each[1], alone[layer][0], rtol=1e-3, atol=1e-5)
        assert not torch.allclose(other[layer], alone[layer], rtol=1e-3)


@pytest.mark.parametrize(("name", "count"), [("sdxl", None), ("sana", 2), ("pixart", None), ("flux", 2)])
def test_every_family_with_text_of_its_own_is_measured_and_single_blocks_are_not(name: str, count: int | None) -> None:
    pipe = built(name)
    backbone = attach(pipe)
    attentions = text_attentions(backbone)
    cross = [site.layer for site in backbone.sites if site.kind == "cross_attention"]
    assert [each.layer for each in attentions] == (cross or ["transformer_blocks.0.attn", "transformer_blocks.1.attn"])
    assert count in (None, len(attentions))
    recorder = Recorder([0, 1])
    call: dict[str, Any] = dict(
        prompt=["a dog"], num_inference_steps=2, output_type="latent", height=64, width=64, **backbone.family.options
    )
    plain = pipe(**call, generator=torch.Generator().manual_seed(0)).images
    with hooked(backbone, [], None, 1) as clock, contributing(backbone, attentions, clock, recorder, [[1, 2]]):
        again = pipe(**call, generator=torch.Generator().manual_seed(0)).images
    assert torch.equal(plain, again)
    assert all((each > 0).all() for each in recorder.recording().activations.values())


@pytest.mark.parametrize("name", ["sd3", "z_image"])
def test_models_whose_texts_tokens_are_not_one_tokenizers_are_refused(name: str) -> None:
    with pytest.raises(BackboneError, match="What words contribute is not known"):
        text_attentions(attach(built(name)))


@pytest.mark.parametrize(
    ("prompt", "naming", "expected"),
    [("a dog", "dog {}", [2, 3, 4]), ("dog a dog", "{} dog", [1, 2, 3, 5, 6, 7]), ("ado do", "do {}", [4, 5])],
)
def test_the_tokens_of_words_are_found_wherever_they_stand_and_inside_no_other_word(
    backbone: Backbone, prompt: str, naming: str, expected: list[int]
) -> None:
    assert tokens_of(backbone, prompt, naming) == expected  # a token a letter, behind the first


def test_words_that_a_prompt_has_not_are_refused(backbone: Backbone) -> None:
    with pytest.raises(BackboneError, match="No token of 'a dog' is of 'cat'"):
        tokens_of(backbone, "a dog", "cat {}")


def test_values_made_in_another_way_and_compiled_models_are_refused(module: Any, jobs: list[Job]) -> None:
    lonely = TextAttention("attn2", module, torch.nn.Linear(1, 1), (), module.to_out[0])
    given = {"encoder_hidden_states": torch.randn(1, 7, 6)}
    with pytest.raises(BackboneError, match="fuse_qkv_projections"):
        contribution_of(lonely, (torch.randn(1, 5, WIDTH),), given, slice(0, 1), [[0]])
    backbone = attach(built("sd"))
    backbone.denoiser.compile()
    with (
        pytest.raises(BackboneError, match=r"compute\.compile=false"),
        hooked(backbone, [], None, 1) as clock,
        contributing(backbone, text_attentions(backbone), clock, Recorder([0]), [[1]]),
    ):
        pass
