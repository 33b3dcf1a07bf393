"""Contexts of two threads or tasks on one pipeline: refused, never mixed."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.hooked import hooked
from tests.helpers.hooks import add_one, look, num_hooks

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1"


def in_a_thread(function: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def enter(backbone: Backbone) -> None:
    with hooked(backbone, [LAYER], look):
        pass


def test_a_second_threads_context_is_refused_and_the_first_ones_image_is_right(
    backbone: Backbone, jobs: list[Job]
) -> None:
    plain = denoise(backbone, jobs[:1])
    with hooked(backbone, [LAYER], add_one):
        shifted = denoise(backbone, jobs[:1])
    sharing = replace(backbone, pipe=type(backbone.pipe)(**backbone.pipe.components, requires_safety_checker=False))
    with hooked(backbone, [LAYER], add_one):
        for other in (backbone, sharing):
            with pytest.raises(BackboneError, match="Another thread or task"):
                in_a_thread(lambda: enter(other))  # noqa: B023
        with pytest.raises(BackboneError, match="called by another thread"):
            in_a_thread(lambda: denoise(backbone, jobs[:1]))
        assert torch.equal(denoise(backbone, jobs[:1]), shifted)
    assert num_hooks(backbone) == 0
    assert torch.equal(denoise(backbone, jobs[:1]), plain)


def test_threads_may_take_turns(backbone: Backbone, jobs: list[Job]) -> None:
    enter(backbone)
    in_a_thread(lambda: enter(backbone))
    enter(backbone)


def test_a_second_tasks_context_is_refused(backbone: Backbone) -> None:
    async def one() -> None:
        with hooked(backbone, [LAYER], look):
            await asyncio.sleep(0)

    async def two() -> list[BaseException | None]:
        return await asyncio.gather(one(), one(), return_exceptions=True)

    first, second = asyncio.run(two())
    assert first is None
    assert isinstance(second, BackboneError)
    assert num_hooks(backbone) == 0


def test_a_task_of_code_that_is_in_a_context_may_begin_another(backbone: Backbone, jobs: list[Job]) -> None:
    async def inner() -> torch.Tensor:
        with hooked(backbone, backbone.layers[:1], look, len(jobs)):
            return denoise(backbone, jobs)

    plain = denoise(backbone, jobs)
    with hooked(backbone, backbone.layers[:1], look, len(jobs)):
        assert torch.equal(asyncio.run(inner()), plain)
