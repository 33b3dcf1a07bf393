"""From an attribute to jobs: one image each, with its prompt and its own seed."""

import math
from dataclasses import dataclass

from icm_pipeline.config.schema import Settings

SEED_STREAMS = {"probe": 0, "evaluation": 1}  # keeps the two datasets' seeds apart
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


def make_jobs(prompts: list[str], images_per_prompt: int, seed: int, stream: str) -> list[Job]:
    """Return one job per prompt and seed, interleaved so that any leading part covers the prompts evenly.

    Seeds are consecutive from `seed` and the stream's offset; no two jobs share one.
    """
    base = (2 * seed + SEED_STREAMS[stream]) * SEEDS_PER_STREAM
    num_jobs = len(prompts) * images_per_prompt
    if num_jobs > SEEDS_PER_STREAM:
        raise ValueError(f"{num_jobs} images need more than {SEEDS_PER_STREAM} seeds; lower images_per_prompt.")
    turns = ((index, index % len(prompts)) for index in range(num_jobs))
    return [Job(f"{index:06d}", prompts[prompt], prompt, base + index) for index, prompt in turns]


def probe_jobs(settings: Settings) -> list[Job]:
    """Return the jobs of the probe dataset."""
    prompts = fill_templates(settings.attribute.probe_templates, settings.attribute.probe_subjects)
    return make_jobs(prompts, settings.generate.images_per_prompt, settings.seed, "probe")


def evaluation_jobs(settings: Settings) -> list[Job]:
    """Return the jobs of the evaluation set: the same for the originals and for every way of steering."""
    prompts = settings.attribute.evaluation_prompts
    return make_jobs(prompts, settings.evaluate.images_per_prompt, settings.seed, "evaluation")


def recorded_steps(settings: Settings) -> list[int]:
    """Return the denoising steps whose activations are recorded."""
    num_steps, count = settings.model.num_steps, settings.timesteps.count
    first = math.floor(round(settings.timesteps.start * num_steps, 9))  # 0.58 * 50 is a little less than 29
    steps = range(first, num_steps)
    if count is None or count >= len(steps):
        return list(steps)
    return [steps[slot * len(steps) // count] for slot in range(count)]
