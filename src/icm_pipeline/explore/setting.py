"""One setting of the page: what is asked for, checked, and as a slider, a vectors file and a command line."""

import re
import shlex
from dataclasses import dataclass, replace

from icm_pipeline.config.compose import quoted
from icm_pipeline.config.exploring import LARGEST_IMAGE_SEED, ExploreConfig
from icm_pipeline.explore.material import Material
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors

PUBLISHED, LEAST_CHANGE, LOOK = "published", "least_change", "look"
MOST_IMAGES = 8
LONGEST_PROMPT = 500  # characters
REACH = 2.0  # the ends of the slider, in the run's own alphas
NOTCHES = 16  # of the slider, from none to an end


@dataclass(frozen=True)
class Setting:
    """What pictures are asked for."""

    prompt: str
    seed: int
    """The first image's; the next one's is one more."""
    num_images: int
    way: str
    option: str
    """What images are steered to."""
    alpha: float
    """Not negative; 0 steers nothing."""
    layers: tuple[str, ...]
    first_step: int
    last_step: int
    balanced: bool = False
    """Whether images get equal shares of all options, in place of `option` for all."""

    @property
    def seeds(self) -> list[int]:
        return [self.seed + index for index in range(self.num_images)]

    def strength(self, material: Material) -> Strength:
        """Return how strongly this steers, as vectors keep it."""
        used = material.strength
        return replace(
            used, alpha=self.alpha, first_step=self.first_step, last_step=self.last_step, num_steps=material.num_steps
        )

    def shares(self, material: Material) -> list[float]:
        """Return the wanted share of each option."""
        options = material.options
        if self.balanced:
            return [1 / len(options)] * len(options)
        return [float(option == self.option) for option in options]


def ways_of(material: Material) -> dict[str, str]:
    """Return the ways of steering that a material has, {name: words}."""
    ways = {PUBLISHED: "as published: every image", LEAST_CHANGE: "least change: those that do not show it"}
    if material.judge_problem:
        del ways[LEAST_CHANGE]
    if material.vectors.readers:
        ways[LOOK] = "look: those that early steps say will not show it"
    return ways | {name: name.replace("_", " ") for name in material.rivals}


def first_setting(material: Material) -> Setting:
    """Return the setting that a material's configuration asks for, which the page begins with; raises ValueError."""
    asked, (first, last) = material.settings.explore, material.window
    setting = Setting(
        prompt=asked.prompt or material.prompts[0],
        seed=asked.image_seed,
        num_images=asked.num_images,
        way=asked.way,
        option=asked.option or material.options[0],
        alpha=material.alpha if asked.alpha is None else asked.alpha,
        layers=tuple(asked.layers) or material.chosen,
        first_step=first if asked.first_step is None else asked.first_step,
        last_step=last if asked.last_step is None else asked.last_step,
        balanced=asked.balanced,
    )
    return checked(setting, material)


def own_setting(material: Material) -> Setting:
    """Return the setting that a material begins with where nothing is asked for."""
    return first_setting(replace(material, settings=replace(material.settings, explore=ExploreConfig())))


def checked(setting: Setting, material: Material) -> Setting:
    """Return a setting that can be made; raises ValueError that says what is wrong and what may be."""
    most, num_steps, known = REACH * material.alpha, material.num_steps, material.vectors.layers
    length, lacking = len(setting.prompt), [layer for layer in setting.layers if layer not in known]
    window = f"Steps {setting.first_step} to {setting.last_step}"
    rules = {
        f"The prompt has {length} characters: give 1 to {LONGEST_PROMPT}.": 0 < length <= LONGEST_PROMPT,
        f"The seed is {setting.seed}: give 0 to {LARGEST_IMAGE_SEED}.": 0 <= setting.seed <= LARGEST_IMAGE_SEED,
        f"{setting.num_images} images: give 1 to {MOST_IMAGES}.": 1 <= setting.num_images <= MOST_IMAGES,
        f"No way of steering {setting.way!r}: choose {', '.join(ways_of(material))}.": setting.way in ways_of(material),
        f"No option {setting.option!r}: choose {', '.join(material.options)}.": setting.option in material.options,
        f"alpha={setting.alpha:g}: give 0 to {most:g}.": 0 <= setting.alpha <= most,
        "No layer is chosen: choose one or more.": bool(setting.layers),
        f"No vectors for {', '.join(lacking)}; there are for {', '.join(known)}.": not lacking,
        f"{window}: give two of 0 to {num_steps - 1}.": 0 <= setting.first_step <= setting.last_step < num_steps,
    }
    if broken := [rule for rule, is_kept in rules.items() if not is_kept]:
        raise ValueError(" ".join(broken))
    return setting


def position_of(setting: Setting, left: str) -> float:
    """Return where the slider from one option through none to the other stands."""
    return -setting.alpha if setting.option == left else setting.alpha


def at_position(setting: Setting, position: float, left: str, right: str) -> Setting:
    """Return the setting with the slider at another place."""
    return replace(setting, option=left if position < 0 else right, alpha=abs(position))


def saved_vectors(setting: Setting, material: Material) -> SteeringVectors:
    """Return the vectors of the setting's layers with how they are used, all that `icm_pipeline.steer` takes."""
    return replace(material.vectors.of_layers(setting.layers), strength=setting.strength(material), tuned={})


def command_of(setting: Setting, material: Material, folder: str = "pictures") -> str:
    """Return the command line that makes a setting's pictures and vectors again, into a folder."""
    said = {
        "prompt": _said(setting.prompt), "image_seed": setting.seed, "num_images": setting.num_images,
        "way": setting.way, "option": _said(setting.option), "explore.alpha": f"{setting.alpha:g}",
        "balanced": str(setting.balanced).lower(), "explore.layers": f"[{','.join(setting.layers)}]",
        "first_step": setting.first_step, "last_step": setting.last_step, "save": _said(folder),
    }  # fmt: skip
    return shlex.join(["icm", "explore", *material.words, *(f"{name}={value}" for name, value in said.items())])


def _said(text: str) -> str:
    """Return a text as Hydra's grammar reads it: plain words as they are."""
    is_plain = re.fullmatch(r"[A-Za-z_]\w*(?: \w+)*", text) and text.lower() not in ("null", "true", "false")
    return text if is_plain else quoted(text)
