"""What cross-attention sees of prompts, as the model itself makes it: from one step of a run of each."""

from collections.abc import Sequence
from typing import Any

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.text_attention import cross_attentions, plain_module
from icm_pipeline.generation.early import given_first
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import batches
from icm_pipeline.hooks.injection import TextContext


def text_context(backbone: Backbone, prompts: Sequence[str], batch_size: int) -> TextContext:
    """Return what cross-attention is given of prompts: the same at every layer and step, and kept on the device."""
    module = plain_module(backbone, cross_attentions(backbone)[0])
    jobs = [Job(f"{index}", prompt, index, 0) for index, prompt in enumerate(prompts)]

    def seen(args: tuple[Any, ...], kwargs: dict[str, Any], rows: slice) -> TextContext:
        return TextContext.seen(kwargs, rows)

    return TextContext.joined([given_first(backbone, module, batch, seen) for batch in batches(jobs, batch_size)])
