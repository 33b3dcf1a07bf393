"""Prompts that name an option: the probe templates with a subject that says which, as "a photo of a female doctor"."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from icm_pipeline.config.schema import AttributeConfig, Settings
from icm_pipeline.generation.jobs import SEEDS_PER_STREAM, Job, first_seed, make_jobs
from icm_pipeline.text import with_article


@dataclass(frozen=True)
class NamedPrompt:
    """A prompt with what it is made of."""

    text: str
    option: str
    subject: str
    template: str


def named_prompts(attribute: AttributeConfig) -> list[NamedPrompt]:
    """Return every prompt of an option, a probe or trial subject and a template; none where no option can be named.

    They stand in a seeded order in which a leading part has all options of a subject with the same template, every
    subject before any again, and as many different templates as it can.
    """
    import numpy as np  # takes long

    rng = np.random.default_rng(0)
    subjects = rng.permutation(list(dict.fromkeys([*attribute.probe_subjects, *attribute.trial_subjects])))
    templates = rng.permutation(list(dict.fromkeys(attribute.probe_templates)))
    return [
        _prompt(attribute, option, str(subject), str(templates[(number + turn) % len(templates)]))
        for turn in range(len(templates))
        for number, subject in enumerate(subjects)
        for option in attribute.named
    ]


def named_jobs(settings: Settings, count: int) -> tuple[list[Job], list[str]]:
    """Return the jobs of so many images whose prompts name an option, and the option of each.

    A job's prompt index is its prompt's place in `named_prompts`. Raises ValueError where no option can be named.
    """
    prompts = named_prompts(settings.attribute)
    if not prompts:
        raise ValueError(no_names(settings.attribute))
    if count > SEEDS_PER_STREAM:
        raise ValueError(f"{count} images of prompts that name an option are more than {SEEDS_PER_STREAM} seeds.")
    base, turns = first_seed(settings.seed, "named"), [index % len(prompts) for index in range(count)]
    jobs = [Job(f"{index:06d}", prompts[turn].text, turn, base + index) for index, turn in enumerate(turns)]
    return jobs, [prompts[turn].option for turn in turns]


def explicit_prompt(attribute: AttributeConfig, prompt: str, option: str) -> NamedPrompt:
    """Return the prompt that names an option and has the template and the subject of another one.

    Raises ValueError for a prompt that no template makes of a subject.
    """
    for template, subject in product(attribute.probe_templates, [*attribute.probe_subjects, *attribute.trial_subjects]):
        if template.replace("{}", subject) == prompt:
            return _prompt(attribute, option, subject, template)
    raise ValueError(f"{prompt!r} is no attribute.probe_templates with a probe or trial subject in it.")


def no_names(attribute: AttributeConfig) -> str:
    """Return what is said where no prompt can name an option."""
    return (
        f"attribute.named does not say how a prompt names an option of {attribute.name!r}; give each one, as "
        "attribute.named.woman='female {}'."
    )


def explicit_jobs(settings: Settings) -> tuple[list[Job], list[str]]:
    """Return the jobs of a bench whose prompts name an option, several images of each, and the option of each."""
    size = settings.bench.chosen
    prompts = named_prompts(settings.attribute)[: size.named_prompts]
    texts = [prompt.text for prompt in prompts]
    jobs = make_jobs(texts, size.named_images, settings.seed, "named", SEEDS_PER_STREAM // 2)
    return jobs, [prompts[job.prompt_index].option for job in jobs]


def other_options(settings: Settings, named: Sequence[str]) -> list[int]:
    """Return an option for each image that is not the one that its prompt names."""
    import numpy as np  # takes long

    names, rng = list(settings.attribute.options), np.random.default_rng(settings.seed)
    away = rng.integers(1, len(names), len(named))
    return [(names.index(option) + int(step)) % len(names) for option, step in zip(named, away, strict=True)]


def _prompt(attribute: AttributeConfig, option: str, subject: str, template: str) -> NamedPrompt:
    text = template.replace("{}", attribute.named[option].replace("{}", subject))
    return NamedPrompt(with_article(text), option, subject, template)
