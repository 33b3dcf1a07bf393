"""TIME: let a prompt that leaves an option open make the keys and values of one that names the rarer option.

W = (lambda W_old + sum of v* c')(lambda + sum of c c')^-1 for every to_v, and with `keys` every to_k, over all tokens c
of "a photo of a doctor" and v* what W_old makes of the same word's token in "a photo of a woman doctor". No option is
drawn for an image; which is rarer is counted once, on the unedited model.

References:
    Editing Implicit Assumptions in Text-to-Image Diffusion Models, 2023, https://arxiv.org/abs/2303.08084, section 4
Departures: all concepts are edited together, where the paper edits one and puts the weights back; one lambda for all;
words are aligned by the longest common blocks of tokens, as an article may change. Nothing stops an edit half-way: a
small lambda turns nearly all images to the rarer option.
"""

from contextlib import AbstractContextManager
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import Fit, Method, MethodInputs
from icm_pipeline.methods.concepts import COUNTED_BY, concepts_of, option_words, with_option
from icm_pipeline.methods.uce import no_cross_attention

if TYPE_CHECKING:
    from icm_pipeline.backbones.base import Backbone

SHARES = "shares.json"


def aligned(old: list[int], new: list[int], length: int) -> list[int]:
    """Return for each of `length` places of an old prompt's tokens the place of its counterpart in a new one's.

    old, new: tokens without padding. A replaced block is aligned from its beginning, padding with padding.
    """
    places = list[int]()
    for kind, i, end, j, end_new in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "insert":
            places += [min(j + at, max(j, end_new - 1), len(new) - 1) for at in range(end - i)]
    padding = range(len(new), len(new) + length - len(places))
    return [*places, *(min(place, length - 1) for place in padding)][:length]


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    import numpy as np
    import torch

    from icm_pipeline.labelers.registry import load_labeler
    from icm_pipeline.methods.assignment import target_shares
    from icm_pipeline.methods.counting import shares_of
    from icm_pipeline.methods.keys_and_values import edited, embedded, linear_layers, save_weights, token_ids
    from icm_pipeline.progress import working
    from icm_pipeline.store.files import write_json

    settings, params = inputs.settings, inputs.settings.method.params
    concepts, count = concepts_of(settings), params["images"]
    with working("fit", count * len(concepts), "image") as work:
        shares = shares_of(backbone, load_labeler(settings.labeler), settings, concepts, count, 0, work)
    rarer = [option_words(settings)[index] for index in (np.array(target_shares(settings)) - shares).argmax(1)]
    write_json(folder / SHARES, {name: row for name, row in zip(concepts, shares.tolist(), strict=True)})
    pairs = [
        (template.format(concept), template.format(with_option(concept, option)))
        for concept, option in zip(concepts, rarer, strict=True)
        for template in params["templates"]
    ]
    old, new = (embedded(backbone, side, settings.compute.batch_size) for side in zip(*pairs, strict=True))
    places = [aligned(token_ids(backbone, a), token_ids(backbone, b), old.shape[1]) for a, b in pairs]
    goals = torch.stack([row[own] for row, own in zip(new, places, strict=True)])
    layers = linear_layers(backbone, ("to_k", "to_v") if params["keys"] else ("to_v",))
    save_weights(edited(layers, old.flatten(0, 1), goals.flatten(0, 1), params["ridge"]), folder)
    return count * len(concepts)


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.methods.keys_and_values import applied

    return applied(backbone, inputs, jobs)


METHOD = Method(
    name="time",
    applied=_applied,
    words=lambda steering: ["TIME", f"lambda {steering.params['ridge']:g}"],
    reads=("method.name", "method.params"),
    params=("concepts", "templates", "images", "ridge", "keys", "option_words"),
    draws=lambda settings: False,
    changes_weights=True,
    why_not=no_cross_attention,
    fit=Fit(_fit, reads=("method.name", "method.params", *COUNTED_BY)),
    asks_for="images of each concept once (the evaluated subjects) and a labeler; cross-attention",
)
