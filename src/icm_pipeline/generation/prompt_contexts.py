"""What cross-attention sees of prompts, as the model itself makes it: from one step of a run of each."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.text_attention import cross_attentions, plain_module
from icm_pipeline.generation.early import ended_after
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import batches, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.injection import TextContext


def text_context(backbone: Backbone, prompts: Sequence[str], batch_size: int) -> TextContext:
    """Return what cross-attention is given of prompts: the same at every layer and step, and kept on the device."""
    module = plain_module(backbone, cross_attentions(backbone)[0])
    jobs = [Job(f"{index}", prompt, index, 0) for index, prompt in enumerate(prompts)]
    return TextContext.joined([_seen(backbone, module, batch) for batch in batches(jobs, batch_size)])


def _seen(backbone: Backbone, module: nn.Module, jobs: list[Job]) -> TextContext:
    seen = list[TextContext]()
    with hooked(backbone, [], None, len(jobs)) as clock:

        def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if clock.rows is not None:
                seen.append(TextContext.seen(kwargs, clock.rows))

        handle = module.register_forward_pre_hook(look, with_kwargs=True)
        try:
            with ended_after(backbone, clock, 1):
                denoise(backbone, jobs)
        finally:
            handle.remove()
    return seen[0]
