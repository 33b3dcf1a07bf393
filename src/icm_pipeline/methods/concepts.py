"""What prompts are about: their subjects, which some methods name or edit."""

import re

from icm_pipeline.config.schema import Settings

SUBJECT = re.compile(r"(?P<before>(?:.*\bof )?)(?P<article>an?|the) (?P<noun>.+)")
# The settings that counted options of concepts' images depend on, for a fit's key.
COUNTED_BY = (
    "attribute.evaluation_prompts", "method.target_shares", "labeler.kind", "labeler.model", "labeler.path",
    "labeler.faces", "labeler.detector", "labeler.groups",
)  # fmt: skip
# Those that pairs of prompts with and without an option's name depend on, for a fit's key.
WORDED = (
    "attribute.named", "attribute.probe_templates", "attribute.probe_subjects", "attribute.trial_subjects",
    "attribute.evaluation_prompts",
)  # fmt: skip


def trained_by(*params: str) -> tuple[str, ...]:
    """Return the settings that a fit to pairs of prompts depends on, some of method.params among them."""
    return ("method.name", *WORDED, *(f"method.params.{name}" for name in params))


def with_option(prompt: str, option: str) -> str:
    """Return a prompt that names an option behind its subject's article, or at its end where there is none."""
    found = SUBJECT.fullmatch(prompt)
    if found is None:
        return f"{prompt}, {option}"
    article = found["article"] if found["article"] == "the" else "an" if option[0] in "aeiou" else "a"
    return f"{found['before']}{article} {option} {found['noun']}"


def subject_of(prompt: str) -> str:
    """Return the subject of a prompt with its article, the whole prompt where there is none."""
    found = SUBJECT.fullmatch(prompt)
    return f"{found['article']} {found['noun']}" if found else prompt


def concepts_of(settings: Settings) -> list[str]:
    """Return the concepts of method.params.concepts, or if there are none the subjects of the evaluation prompts."""
    chosen = settings.method.params.get("concepts")
    return list(chosen or dict.fromkeys(map(subject_of, settings.attribute.evaluation_prompts)))


def option_words(settings: Settings) -> list[str]:
    """Return the options' names as words of a prompt."""
    return [name.replace("_", " ") for name in settings.attribute.options]
