"""Captions for portraits: many phrasings, and a caption names only some of what the picture shows.

What a caption leaves out is what the model must choose by itself, so each attribute is named independently of its
value: the training odds given a caption are then exactly the world's odds given what the caption names.
"""

from dataclasses import dataclass

import numpy as np

from icm_pipeline.pretrain.world import Person
from icm_pipeline.text import with_article

OPENINGS = (
    "a photo of", "a face of", "a portrait of", "a picture of", "an image of", "a drawing of", "a close-up of",
    "a headshot of", "an avatar of", "a cartoon of", "a profile picture of", "the face of", "a simple portrait of",
    "a colourful picture of", "an illustration of", "",
)  # fmt: skip
CLOSINGS = (
    "", "", "", "", "looking at the camera", "facing forward", "in a flat style", "seen from the front",
    "on a plain background", "in bright light",
)  # fmt: skip
NEUTRAL_NOUNS = ("person", "human", "human being", "individual", "character", "citizen")
NOUNS = {"woman": ("woman", "lady", "female person"), "man": ("man", "gentleman", "male person")}
ADJECTIVES = {
    "woman": ("female", "woman"), "man": ("male", "man"), "young": ("young", "youthful"), "old": ("old", "elderly"),
}  # fmt: skip
UNNAMED_SHARE = 0.4  # captions that name nothing but the occupation
NAMED_SHARE = {"gender": 0.5, "age": 0.5, "skin_tone": 0.5, "background": 0.35, "glasses": 0.65, "expression": 0.25}


@dataclass(frozen=True)
class Caption:
    text: str
    named: frozenset[tuple[str, str]]
    """What it names, as pairs of an attribute (or occupation, or expression) and its option."""

    def is_true_of(self, person: Person) -> bool:
        return all(person.option(name) == option for name, option in self.named)


def write_caption(
    person: Person,
    rng: np.random.Generator,
    named_share: dict[str, float] = NAMED_SHARE,
    unnamed_share: float = UNNAMED_SHARE,
) -> Caption:
    """Write one caption that is true of the person.

    `unnamed_share` of the captions name nothing but the occupation, the others each attribute with its `named_share`.
    """

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    silent = rng.random() < unnamed_share
    named = {name for name, share in named_share.items() if rng.random() < share and not silent}
    adjectives, details = [], []
    if "age" in named:
        adjectives.append(pick(ADJECTIVES[person.age]))
    if "skin_tone" in named:
        if rng.random() < 0.5:
            adjectives.append(f"{person.skin_tone}-skinned")
        else:
            details.append(f"with {person.skin_tone} skin")
    if "gender" not in named:
        noun = person.occupation if person.occupation != "person" else pick(NEUTRAL_NOUNS)
    elif person.occupation == "person":
        noun = pick(NOUNS[person.gender])
    else:
        noun = f"{pick(ADJECTIVES[person.gender])} {person.occupation}"
    if "glasses" in named:
        details.append("with glasses" if person.glasses == "glasses" else "without glasses")
    if "expression" in named:
        details.append(person.expression)
    if "background" in named:
        details.append(f"on a {person.background} background")
    closing = pick(CLOSINGS)
    if closing and not (closing.endswith("background") and "background" in named):
        details.append(closing)
    subject = with_article(" ".join(["a", *adjectives, noun]))
    text = " ".join(part for part in (pick(OPENINGS), subject, *details) if part)
    facts = {(name, person.option(name)) for name in named}
    if person.occupation != "person":
        facts.add(("occupation", person.occupation))
    return Caption(text, frozenset(facts))
