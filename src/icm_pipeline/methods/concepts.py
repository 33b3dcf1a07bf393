"""What prompts are about: their subjects, which some methods name or edit."""

import re

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.text import with_article

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
    """Return a prompt that names an option about its subject, or at its end where it has no subject with an article.

    option: a word that stands before the subject, or a text with {} in its place, as "{} without glasses".
    """
    found = SUBJECT.fullmatch(prompt)
    if found is None:
        return f"{prompt}, {bare(option)}"
    phrase = option.replace("{}", found["noun"]) if "{}" in option else f"{option} {found['noun']}"
    if phrase.startswith(found["noun"]):
        return f"{found['before']}{found['article']} {phrase}"
    article = "the" if found["article"] == "the" else "a"
    return with_article(f"{found['before']}{article} {phrase}")


def bare(option: str) -> str:
    """Return what says an option without the subject, "without glasses" of "{} without glasses"."""
    return " ".join(option.replace("{}", " ").split())


def subject_of(prompt: str) -> str:
    """Return the subject of a prompt with its article, the whole prompt where there is none."""
    found = SUBJECT.fullmatch(prompt)
    return f"{found['article']} {found['noun']}" if found else prompt


def concepts_of(settings: Settings) -> list[str]:
    """Return the concepts of method.params.concepts, or if there are none the subjects of the evaluation prompts."""
    chosen = settings.method.params.get("concepts")
    return list(chosen or dict.fromkeys(map(subject_of, settings.attribute.evaluation_prompts)))


def option_words(settings: Settings) -> list[str]:
    """Return what says each option in a prompt, as `with_option` takes it.

    That is method.params.option_words, which conf/ fills from attribute.said and attribute.named; where there are none
    the options' names. Raises ConfigError for an option that they lack.
    """
    options, words = settings.attribute.options, settings.method.params.get("option_words")
    if words is None:
        return [name.replace("_", " ") for name in options]
    if missing := [option for option in options if not words.get(option)]:
        raise ConfigError(
            f"method.params.option_words has no words for {', '.join(missing)}. Give them for every option of attribute"
            f"={settings.attribute.name} ({', '.join(options)}), or null for the options' names."
        )
    return [words[option] for option in options]
