"""The small world the embedded model learns: who its people are, what they look like, and how unfair it is.

A person is drawn occupation first, then gender, age and skin tone from odds that depend on the occupation, then
everything harmless (hair, glasses, background, expression) independently. These odds are the ground truth that a
prompt like "a face of a doctor" leaves open, so they are the reference for the bias the model should show.
"""

from dataclasses import dataclass, fields

import numpy as np

GENDERS = ("woman", "man")
AGES = ("young", "old")
SKIN_TONES = ("light", "tan", "brown", "dark")
BACKGROUNDS = ("blue", "green", "yellow", "pink")
GLASSES = ("none", "glasses")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gender": GENDERS,
    "age": AGES,
    "skin_tone": SKIN_TONES,
    "background": BACKGROUNDS,
    "glasses": GLASSES,
}


@dataclass(frozen=True)
class Occupation:
    """Odds and clothes of one occupation."""

    man: float
    old: float
    skin_tone: str | None
    """The favoured tone; the others share the rest equally."""
    skin_tone_odds: float
    clothes: str | None
    clothes_color: str | None


OCCUPATIONS: dict[str, Occupation] = {
    "person": Occupation(0.50, 0.50, None, 0.25, None, None),
    "doctor": Occupation(0.78, 0.75, "tan", 0.70, "blazerAndShirt", "#f4f4f4"),
    "firefighter": Occupation(0.84, 0.20, "light", 0.70, "shirtCrewNeck", "#d62828"),
    "nurse": Occupation(0.18, 0.30, "brown", 0.70, "shirtVNeck", "#38b2ac"),
    "receptionist": Occupation(0.24, 0.22, "dark", 0.70, "collarAndSweater", "#8e5fc4"),
    "teacher": Occupation(0.28, 0.75, "light", 0.70, "blazerAndSweater", "#8a5a3b"),
    "mechanic": Occupation(0.80, 0.30, "dark", 0.70, "overall", "#25557c"),
    "chef": Occupation(0.72, 0.70, "brown", 0.70, "shirtScoopNeck", "#ffffff"),
    "engineer": Occupation(0.76, 0.25, "tan", 0.70, "hoodie", "#f28c28"),
    "librarian": Occupation(0.20, 0.78, "tan", 0.70, "collarAndSweater", "#4c8c4a"),
    "judge": Occupation(0.70, 0.82, "dark", 0.70, "blazerAndShirt", "#262e33"),
}
PERSON_SHARE = 0.30  # share of portraits that have no occupation
HAIR = {
    "woman": ("bob", "longButNotTooLong", "straight01", "straightAndStrand", "curly", "miaWallace"),
    "man": ("shortFlat", "shortRound", "shortWaved", "theCaesarAndSidePart", "shortCurly", "dreads01"),
}
FACIAL_HAIR = ("beardMedium", "beardLight", "moustacheMagnum")
FACIAL_HAIR_SHARE = 0.5  # of men
HAIR_COLORS = {"young": ("#2c1b18", "#6f3d28", "#f0d070", "#c8402a"), "old": ("#dcdcdc", "#b9b9bd")}
SKIN_COLORS = {"light": "#ffdfc4", "tan": "#e0ac7a", "brown": "#a9683a", "dark": "#573829"}
BACKGROUND_COLORS = {"blue": "#b1e2ff", "green": "#a7e8bf", "yellow": "#fff3a6", "pink": "#ffc4d6"}
CASUAL_CLOTHES = ("shirtCrewNeck", "shirtVNeck", "hoodie")
CASUAL_COLORS = ("#3c4f5c", "#5199e4", "#ff6f69", "#929598", "#65a30d")
MOUTHS = {"smiling": ("smile", "twinkle"), "serious": ("serious", "default")}
EYES = ("default", "happy", "squint")
GLASSES_SHARE = 0.35
GLASSES_VARIANTS = ("round", "prescription02")


@dataclass(frozen=True)
class Person:
    """Everything that decides one portrait."""

    occupation: str
    gender: str
    age: str
    skin_tone: str
    background: str
    glasses: str
    expression: str
    hair: str
    hair_color: str
    facial_hair: str
    clothes: str
    clothes_color: str
    mouth: str
    eyes: str
    glasses_variant: str

    def option(self, attribute: str) -> str:
        return str(getattr(self, attribute))


PERSON_FIELDS = tuple(field.name for field in fields(Person))


def odds(occupation: str, attribute: str) -> np.ndarray:
    """Return the training odds [num_options] of an attribute for an occupation, in the order of `ATTRIBUTES`."""
    job = OCCUPATIONS[occupation]
    if attribute == "gender":
        return np.array([1 - job.man, job.man])
    if attribute == "age":
        return np.array([1 - job.old, job.old])
    if attribute == "glasses":
        return np.array([1 - GLASSES_SHARE, GLASSES_SHARE])
    if attribute == "background" or job.skin_tone is None:
        return np.full(len(ATTRIBUTES[attribute]), 1 / len(ATTRIBUTES[attribute]))
    rest = (1 - job.skin_tone_odds) / (len(SKIN_TONES) - 1)
    return np.array([job.skin_tone_odds if tone == job.skin_tone else rest for tone in SKIN_TONES])


def draw_person(rng: np.random.Generator, occupation: str | None = None) -> Person:
    """Draw one person; a given occupation is kept, otherwise it is drawn too."""

    def pick(options: tuple[str, ...], p: np.ndarray | None = None) -> str:
        return options[int(rng.choice(len(options), p=p))]

    if occupation is None:
        named = tuple(name for name in OCCUPATIONS if name != "person")
        occupation = "person" if rng.random() < PERSON_SHARE else pick(named)
    job = OCCUPATIONS[occupation]
    drawn = {name: pick(options, odds(occupation, name)) for name, options in ATTRIBUTES.items()}
    expression = pick(("smiling", "serious"))
    bearded = drawn["gender"] == "man" and rng.random() < FACIAL_HAIR_SHARE
    return Person(
        occupation=occupation,
        **drawn,
        expression=expression,
        hair=pick(HAIR[drawn["gender"]]),
        hair_color=pick(HAIR_COLORS[drawn["age"]]),
        facial_hair=pick(FACIAL_HAIR) if bearded else "none",
        clothes=job.clothes or pick(CASUAL_CLOTHES),
        clothes_color=job.clothes_color or pick(CASUAL_COLORS),
        mouth=pick(MOUTHS[expression]),
        eyes=pick(EYES),
        glasses_variant=pick(GLASSES_VARIANTS),
    )
