"""Prompts that were encoded before are not encoded again, and the images are the same to the bit."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.generation import prompt_embeddings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.prompt_embeddings import remembered_prompts
from icm_pipeline.generation.sampling import denoise


@pytest.fixture
def encoded(backbone: Backbone) -> Iterator[list[int]]:
    """Give a list that grows with every run of the text encoder, beginning with nothing remembered."""
    prompt_embeddings._ENCODED.clear()
    runs: list[int] = []
    handle = backbone.pipe.text_encoder.register_forward_hook(lambda module, args, output: runs.append(len(args[0])))
    yield runs
    handle.remove()


def test_the_same_prompts_are_encoded_once_for_any_seeds(
    backbone: Backbone, jobs: list[Job], encoded: list[int]
) -> None:
    others = [replace(job, seed=job.seed + 50) for job in jobs]
    first, other = denoise(backbone, jobs), denoise(backbone, others)
    num_runs = len(encoded)
    assert torch.equal(denoise(backbone, jobs), first)
    assert torch.equal(denoise(backbone, others), other)
    assert len(encoded) == num_runs == 2  # the prompts and the empty one beside them
    prompt_embeddings._ENCODED.clear()
    assert torch.equal(denoise(backbone, others), other)
    assert len(encoded) == 4


def test_other_prompts_and_another_guidance_are_encoded(
    backbone: Backbone, jobs: list[Job], encoded: list[int]
) -> None:
    assert backbone.sampling is not None
    denoise(backbone, jobs)
    denoise(backbone, jobs[::-1])
    unguided = replace(backbone, sampling=replace(backbone.sampling, guidance_scale=1.0))
    denoise(unguided, jobs)
    assert len(encoded) == 2 + 2 + 1


def test_what_is_remembered_stays_within_its_bounds(
    backbone: Backbone, jobs: list[Job], encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_embeddings, "MOST_BYTES", 1)
    for batch in (jobs, jobs, jobs[:2], jobs):
        denoise(backbone, batch)
    assert len(encoded) == 2 + 0 + 2 + 2


def test_embeddings_that_are_given_are_passed_on_and_nothing_stays_wrapped(backbone: Backbone) -> None:
    with remembered_prompts(backbone.pipe):
        kept = backbone.pipe.encode_prompt("a face", "cpu", 1, False)[0]
        for factor in (1, 2):
            given = backbone.pipe.encode_prompt(None, "cpu", 1, False, prompt_embeds=factor * kept)[0]
            assert torch.equal(given, factor * kept)
    assert "encode_prompt" not in vars(backbone.pipe)
