"""Prompts that methods learn from: one that leaves the option open, and the same with each option's name.

No prompt has a subject that an evaluation prompt names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import evaluated_subjects
from icm_pipeline.generation.named import named_prompts
from icm_pipeline.methods.naming import named_options
from icm_pipeline.text import with_article

MOST = 120  # wordings: their prompts are encoded at once


@dataclass(frozen=True)
class Wording:
    """A prompt that leaves the option open, and the same prompt with each option's name."""

    neutral: str
    named: tuple[str, ...]


def wordings_of(settings: Settings, keep: Sequence[str] = (), most: int = MOST) -> list[Wording]:
    """Return at most so many wordings of subjects that are not evaluated, in the order of `named_prompts`.

    keep: phrases with {} in them, as `old {}`, that all prompts of a wording may have besides; what names an option is
    left out. Raises ValueError where a prompt cannot name every option, or every subject is evaluated.
    """
    check_named(settings)
    attribute, found = settings.attribute, dict[str, dict[str, str]]()
    kept = ["{}", *(phrase for phrase in keep if not named_options(phrase.replace("{}", ""), attribute.words))]
    evaluated = evaluated_subjects(attribute)
    for prompt in named_prompts(attribute):
        for phrase in kept if prompt.subject not in evaluated else ():
            neutral = prompt.template.replace("{}", phrase.replace("{}", prompt.subject))
            subject = phrase.replace("{}", attribute.named[prompt.option].replace("{}", prompt.subject))
            named = found.setdefault(with_article(neutral), {})
            named[prompt.option] = with_article(prompt.template.replace("{}", subject))
    if not found:
        raise ValueError(
            "Every subject of attribute.probe_subjects and trial_subjects is evaluated, and method="
            f"{settings.method.name} learns from others: give attribute.trial_subjects that no evaluation prompt names."
        )
    complete = [
        Wording(neutral, tuple(named[option] for option in attribute.options)) for neutral, named in found.items()
    ]
    return complete[:most]


def option_prompts(settings: Settings) -> list[str]:
    """Return a prompt of each option and nothing else, as "a female person"; raises ValueError where there is none."""
    check_named(settings)
    attribute = settings.attribute
    named = [attribute.named[option].replace("{}", attribute.probe_subjects[0]) for option in attribute.options]
    return [with_article(f"a {text}") for text in named]


def check_named(settings: Settings) -> None:
    """Raise ValueError where a prompt cannot name every option."""
    attribute = settings.attribute
    if unnamed := [option for option in attribute.options if option not in attribute.named]:
        raise ValueError(
            f"attribute.named does not say how a prompt names {', '.join(unnamed)}, and method={settings.method.name} "
            "goes by prompts that do. Give attribute.named for every option, as attribute.named.woman='female {}'."
        )
