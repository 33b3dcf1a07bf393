"""UCE: change cross-attention's keys and values so that a concept's token is what makes its images fair.

W = (sum of v* c' + lambda W_old)(sum of c c' + lambda)^-1 for every to_k and to_v, c the embedding of a concept's last
token. Of a concept to make fair v* = W_old (c + sum over options of m_i a_i), a_i the embedding of an option's word and
m_i what the option's share lacks; of one to keep v* = W_old c. Images of the changed model say what is lacking, round
by round, and with `integrate` the m add up. No option is drawn for an image.

References:
    Unified Concept Editing in Diffusion Models, 2024, https://arxiv.org/abs/2308.14761, equation 7 and section 4.3
Departures: images have seeds of their own in every round, and those in which the labeler sees no option do not count;
concepts stand with their article; an option's words are those of method=prompt without the subject. The published run
takes 10 images, tolerance 0.05 and at most 30 rounds.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import Fit, Method, MethodInputs
from icm_pipeline.methods.concepts import COUNTED_BY, bare, concepts_of, option_words

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from icm_pipeline.arrays import Floats
    from icm_pipeline.backbones.base import Backbone, Family

ROUNDS = "rounds.json"


def no_cross_attention(family: "Family") -> str:
    """Return why a method of cross-attention's keys and values does not apply to a family; empty if it does."""
    if "cross_attention" in family.sites:
        return ""
    return "it attends to image and text together and has no cross-attention with keys and values of the text alone."


def next_push(push: "Floats", shares: "Floats", target: "Floats", tolerance: float, integrate: bool) -> "Floats":
    """Return how far each concept is pushed to each option [n, K] after images of it showed shares [n, K]."""
    import numpy as np

    missing = target - shares
    missing = np.where((np.abs(missing) < tolerance).all(1, keepdims=True), 0.0, missing)
    return push + missing if integrate else np.where(missing.any(1, keepdims=True), missing, push)


class _Texts:
    """The embeddings of what is edited [n, d], of the options [K, d] and of what is kept [m, d]."""

    def __init__(
        self, backbone: "Backbone", batch_size: int, concepts: list[str], options: list[str], kept: list[str]
    ) -> None:
        from icm_pipeline.methods.keys_and_values import embedded, last_token

        texts = [*concepts, *options, *kept]
        found = embedded(backbone, texts, batch_size)
        rows = found[range(len(texts)), [last_token(backbone, text) for text in texts]]
        self.concepts, self.options, self.kept = rows.split([len(concepts), len(options), len(kept)])

    def weights(self, backbone: "Backbone", push: "Floats", ridge: float) -> "dict[str, Tensor]":
        import torch

        from icm_pipeline.methods.keys_and_values import edited, linear_layers

        goals = self.concepts + torch.from_numpy(push).to(self.options) @ self.options
        contexts = torch.cat([self.concepts, self.kept])
        return edited(linear_layers(backbone), contexts, torch.cat([goals, self.kept]), ridge)


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    """Rounds that were made before an interruption are in the folder, and are not made again."""
    import numpy as np

    from icm_pipeline.labelers.registry import load_labeler
    from icm_pipeline.methods.assignment import target_shares
    from icm_pipeline.methods.counting import shares_of
    from icm_pipeline.methods.keys_and_values import save_weights, weights_put
    from icm_pipeline.progress import working
    from icm_pipeline.store.files import write_json

    settings, params = inputs.settings, inputs.settings.method.params
    concepts, target, count = concepts_of(settings), np.array(target_shares(settings)), params["images"]
    said = [bare(words) for words in option_words(settings)]
    texts = _Texts(backbone, settings.compute.batch_size, concepts, said, params["keep"])
    rounds = json.loads((folder / ROUNDS).read_text("utf-8")) if (folder / ROUNDS).exists() else []
    push = np.array(rounds[-1]["push"]) if rounds else np.zeros((len(concepts), len(target)))
    labeler, per_round = load_labeler(settings.labeler), count * len(concepts)
    with working("fit", params["rounds"] * per_round, "image", done=len(rounds) * per_round) as work:
        while len(rounds) < params["rounds"] and not (rounds and rounds[-1]["is_fair"]):
            with weights_put(backbone, texts.weights(backbone, push, params["ridge"])):
                shares = shares_of(backbone, labeler, settings, concepts, count, len(rounds), work)
            moved = next_push(push, shares, target, params["tolerance"], params["integrate"])
            is_fair = bool((np.abs(target - shares) < params["tolerance"]).all())
            push = moved
            rounds.append({"shares": shares.tolist(), "push": push.tolist(), "is_fair": is_fair})
            write_json(folder / ROUNDS, rounds)
    save_weights(texts.weights(backbone, push, params["ridge"]), folder)
    return len(rounds) * per_round


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> "AbstractContextManager[Any]":
    from icm_pipeline.methods.keys_and_values import applied

    return applied(backbone, inputs, jobs)


METHOD = Method(
    name="uce",
    applied=_applied,
    words=lambda steering: ["UCE", f"lambda {steering.params['ridge']:g}"],
    reads=("method.name", "method.params"),
    params=("concepts", "keep", "images", "rounds", "tolerance", "ridge", "integrate", "option_words"),
    draws=lambda settings: False,
    changes_weights=True,
    why_not=no_cross_attention,
    fit=Fit(_fit, reads=("method.name", "method.params", *COUNTED_BY)),
    asks_for="images of each concept in every round (the evaluated subjects) and a labeler; cross-attention",
    published={"rounds": 30},
)
