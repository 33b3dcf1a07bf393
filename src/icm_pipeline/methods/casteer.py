"""CASteer: shift every cross-attention's output along the difference between prompts that name options.

With v[l, t, k] the unit vector from the mean over options to option k's, of means over tokens and prompt pairs,
`edit=add` makes of a token x + alpha |x| v_k, with the drawn option k, and `edit=remove` x - beta sum over j != k of
max(0, x.v_j) v_j, at beta 2 a reflection. Each token then gets its length back.

References:
    CASteer: Cross-Attention Steering for Controllable Concept Erasure, 2026, https://arxiv.org/abs/2503.09630,
    sections 3.2 and 3.3 (vectors and both edits; the published alpha is 10 in activation units, beta 2)
Departures: a vector points away from the mean over options, not from prompts without the concept; only conditional rows
are moved, where the code moves both halves of guidance; the pairs are of the attribute's own subjects and templates; a
relative alpha counts in lengths of the layer's mean output. The published use is erasure, not fairness.
"""

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import DRAWN, LENGTH, WINDOW, Fit, Method, MethodInputs
from icm_pipeline.methods.concepts import trained_by
from icm_pipeline.methods.uce import no_cross_attention

if TYPE_CHECKING:
    from torch import Tensor

    from icm_pipeline.backbones.base import Backbone

EDITS = ("add", "remove")


def with_length(tokens: "Tensor", like: "Tensor") -> "Tensor":
    """Return tokens [n, s, d] with the lengths of others."""
    import torch

    lengths = [torch.linalg.vector_norm(each, dim=-1, keepdim=True) for each in (like, tokens)]
    scaled: Tensor = tokens * (lengths[0] / lengths[1].clamp_min(1e-12))
    return scaled


def added(tokens: "Tensor", numbers: Any, options: "Tensor", alphas: "Tensor", unit: str) -> "Tensor":
    """Return tokens [n, s, d] shifted towards each image's option."""
    from icm_pipeline.methods.learnt import push

    return with_length(tokens + push(numbers, options, alphas, unit)[:, None], tokens)


def removed(tokens: "Tensor", numbers: Any, options: "Tensor", beta: float) -> "Tensor":
    """Return tokens [n, s, d] without what they have of the other options' directions."""
    import torch

    held = (tokens @ numbers["direction"].mT).clamp_min(0)  # [n, s, K]
    others = 1 - torch.nn.functional.one_hot(options, held.shape[-1]).to(held)
    return with_length(tokens - beta * (held * others[:, None]) @ numbers["direction"], tokens)


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    from icm_pipeline.backbones.text_attention import cross_attentions
    from icm_pipeline.methods.prompt_pairs import RECORDED, directions_of, forget_recorded, prompt_jobs, recorded
    from icm_pipeline.progress import working

    made = prompt_jobs(inputs.settings, inputs.settings.method.params["pairs"]).named()
    layers = cross_attentions(backbone)
    with working("fit", len(made.jobs), "image") as work:
        outputs, levels = recorded(backbone, layers, made.jobs, inputs.settings, folder / RECORDED, work)
    directions_of(outputs, levels, made.labels).save(folder)
    forget_recorded(folder)
    return len(made.jobs)


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.backbones.text_attention import cross_attentions
    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.methods.learnt import Moving, alphas_of, load_learnt

    settings, params = inputs.settings, inputs.settings.method.params
    move = partial(added, alphas=alphas_of(inputs), unit=settings.method.alpha_unit)
    if params["edit"] == "remove":
        move = partial(removed, beta=params["beta"])
    return hooked(backbone, cross_attentions(backbone), Moving(load_learnt(inputs), move, inputs, jobs), len(jobs))


def _draws(settings: Settings) -> bool:
    if (edit := settings.method.params.get("edit")) not in EDITS:
        raise ConfigError(f"method.params.edit={edit} is not known; choose from {', '.join(EDITS)}.")
    return True


def _words(steering: Any) -> list[str]:
    params = steering.params
    strength = f"alpha {steering.alpha:g}" if params["edit"] == "add" else f"beta {params['beta']:g}"
    return [f"CASteer, {params['edit']}", strength]


METHOD = Method(
    name="casteer",
    applied=_applied,
    words=_words,
    reads=(*LENGTH, *WINDOW, *DRAWN),
    params=("pairs", "edit", "beta"),
    from_first_step=True,
    draws=_draws,
    why_not=no_cross_attention,
    fit=Fit(_fit, reads=trained_by("pairs")),
    asks_for="prompts that name options, no images; cross-attention",
    published={"pairs": 104},
)
