"""From an attribute to jobs: one image each, with its prompt and its own seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from icm_pipeline.config.schema import LARGEST_SEED, AttributeConfig, Settings
from icm_pipeline.text import with_article

SEEDS_PER_STREAM = 1_000_000


@dataclass(frozen=True)
class Job:
    """One image to make."""

    image_id: str
    """Its name in every table."""
    prompt: str
    prompt_index: int
    """What FD groups it by."""
    seed: int


def fill_templates(templates: list[str], subjects: list[str]) -> list[str]:
    """Return every template with every subject put where {} stands, in order, without repeats."""
    return list(dict.fromkeys(template.replace("{}", subject) for template in templates for subject in subjects))


def first_seed(seed: int, stream: str) -> int:
    """Return the first of SEEDS_PER_STREAM seeds that no other `seed` and no other stream has."""
    all_seeds = LARGEST_SEED + 1
    places = {
        "probe": 2 * seed, "evaluation": 2 * seed + 1, "tuning": 2 * all_seeds + seed, "named": 3 * all_seeds + seed,
        "push": 4 * all_seeds + seed, "fit": 5 * all_seeds + seed,
    }  # fmt: skip
    return places[stream] * SEEDS_PER_STREAM


def make_jobs(prompts: list[str], images_per_prompt: int, seed: int, stream: str, num_before: int = 0) -> list[Job]:
    """Return one job per prompt and seed, interleaved so that any leading part covers the prompts evenly.

    Seeds are consecutive from where those of `seed` begin in the stream, or so many later; no two jobs share one.
    """
    base = first_seed(seed, stream) + num_before
    num_jobs = len(prompts) * images_per_prompt
    if (needed := num_before + num_jobs) > SEEDS_PER_STREAM:
        raise ValueError(f"{needed} images need more than {SEEDS_PER_STREAM} seeds; lower images_per_prompt.")
    turns = ((index, index % len(prompts)) for index in range(num_jobs))
    return [Job(f"{index:06d}", prompts[prompt], prompt, base + index) for index, prompt in turns]


def probe_jobs(settings: Settings) -> list[Job]:
    """Return the jobs of the probe dataset."""
    prompts = fill_templates(settings.attribute.probe_templates, settings.attribute.probe_subjects)
    return make_jobs(prompts, settings.generate.images_per_prompt, settings.seed, "probe")


def trial_prompts(settings: Settings) -> list[str]:
    """Return the prompts that searches try, before those that are evaluated are left out."""
    attribute = settings.attribute
    return fill_templates(attribute.probe_templates, getattr(attribute, _subjects_of_trials(settings)))


def tuning_prompts(settings: Settings) -> list[str]:
    """Return the prompts that searches try: of no subject that is evaluated, or of none in the same words."""
    attribute = settings.attribute
    shown, evaluated = {with_article(prompt) for prompt in attribute.evaluation_prompts}, evaluated_subjects(attribute)
    others = [subject for subject in getattr(attribute, _subjects_of_trials(settings)) if subject not in evaluated]
    prompts = fill_templates(attribute.probe_templates, others) or trial_prompts(settings)
    return [prompt for prompt in prompts if with_article(prompt) not in shown]


def evaluated_subjects(attribute: AttributeConfig) -> list[str]:
    """Return the subjects of probing and tuning that an evaluation prompt names too."""
    words = [f" {prompt} " for prompt in attribute.evaluation_prompts]
    tried = dict.fromkeys([*attribute.probe_subjects, *attribute.trial_subjects])
    return [subject for subject in tried if any(f" {subject} " in prompt for prompt in words)]


def _subjects_of_trials(settings: Settings) -> str:
    return "trial_subjects" if settings.attribute.trial_subjects else "probe_subjects"


def tuning_jobs(settings: Settings, num_images: int) -> list[Job]:
    """Return so many jobs for trials, of prompts and seeds that nothing is evaluated on; raises ValueError for none."""
    prompts = _mixed_tuning_prompts(settings)
    return make_jobs(prompts, -(-num_images // len(prompts)), settings.seed, "tuning")[:num_images]


def strength_jobs(settings: Settings) -> list[Job]:
    """Return the jobs that a bench tries strengths on: few tuning prompts, as FD takes several images of each."""
    size = settings.bench.chosen
    prompts = _mixed_tuning_prompts(settings)[: size.tuning_prompts]
    return make_jobs(prompts, size.tuning_images, settings.seed, "tuning", SEEDS_PER_STREAM // 2)


def _mixed_tuning_prompts(settings: Settings) -> list[str]:
    prompts = tuning_prompts(settings)
    if not prompts:
        raise ValueError(
            f"Every prompt of attribute.{_subjects_of_trials(settings)} is evaluated: searches need others to try. "
            "Give other attribute.trial_subjects."
        )
    import numpy as np  # takes long

    order = np.random.default_rng(0).permutation(len(prompts))  # few of many prompts are then of every template
    return [prompts[i] for i in order]


def evaluation_jobs(settings: Settings) -> list[Job]:
    """Return the jobs of the evaluation set: the same for the originals and for every way of steering."""
    prompts = settings.attribute.evaluation_prompts
    evaluate = settings.evaluate
    return make_jobs(prompts, evaluate.images_per_prompt, settings.seed, "evaluation", evaluate.seeds_before)


def recorded_steps(settings: Settings) -> list[int]:
    """Return the denoising steps whose activations are recorded."""
    num_steps, count = settings.model.num_steps, settings.timesteps.count
    first = math.floor(round(settings.timesteps.start * num_steps, 9))  # 0.58 * 50 is a little less than 29
    steps = range(first, num_steps)
    if count is None or count >= len(steps):
        return list(steps)
    return [steps[slot * len(steps) // count] for slot in range(count)]


def audited_steps(settings: Settings) -> list[int]:
    """Return the recorded steps that an audit reads again: the middles of as many equal parts of them."""
    steps = recorded_steps(settings)
    count = min(settings.audit.chosen.num_steps, len(steps))
    return [steps[(2 * part + 1) * len(steps) // (2 * count)] for part in range(count)]


def steps_to_read(steps: Sequence[int], num_steps: int) -> list[int]:
    """Return the indices of the recorded steps in the first half of a run, where foretelling pays."""
    return [index for index, step in enumerate(steps) if step < num_steps // 2]
