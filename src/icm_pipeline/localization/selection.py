"""From layers' probe scores to the layers that are steered.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026.
    https://arxiv.org/abs/2604.06052
"""

from dataclasses import dataclass

from icm_pipeline.config.choices import RULES


@dataclass(frozen=True)
class LayerScore:
    """A layer's kind and its score: the mean held-out accuracy over timesteps, or the effect of pushing it alone."""

    layer: str
    kind: str
    score: float


def rank(scores: list[LayerScore]) -> list[LayerScore]:
    """Sort the layers from best to worst; equal scores keep the network's order."""
    return sorted(scores, key=lambda row: -row.score)


def select_layers(scores: list[LayerScore], kind: str, rule: str, k: int, names: list[str], seed: int) -> list[str]:
    """Return the layers to steer, best first; `worst` begins with the worst, `named` keeps the order of `names`.

    `top`, `causal` (whose scores are effects), `worst` and `random` take k layers of one kind, `all` every layer of it,
    `named` takes `names` of any kind. Raises ValueError for an unknown kind, rule or name and for k beyond the number
    of layers.
    """
    if rule == "named":
        known = [row.layer for row in scores]
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise ValueError(
                f"layers.names={names}: unknown {unknown or 'because empty'}. Choose from: {', '.join(known)}."
            )
        return list(dict.fromkeys(names))
    ranked = [row.layer for row in rank(scores) if row.kind == kind]
    if not ranked:
        kinds = sorted({row.kind for row in scores})
        raise ValueError(f"layers.kind={kind} has no probed layer; the probes cover {', '.join(kinds)}.")
    if rule == "all":
        return ranked
    if k > len(ranked):
        raise ValueError(f"layers.k={k} is more than the {len(ranked)} {kind} layers there are; lower layers.k.")
    if rule in ("top", "causal"):
        return ranked[:k]
    if rule == "worst":
        return ranked[::-1][:k]
    if rule == "random":
        import numpy as np  # here, so that what only reads a selection starts at once

        chosen = np.random.default_rng(seed).choice(len(ranked), k, replace=False)
        return [ranked[index] for index in sorted(chosen)]
    raise ValueError(f"layers.rule={rule} is not known; choose from {', '.join(RULES)}.")
