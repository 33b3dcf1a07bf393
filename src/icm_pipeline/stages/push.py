"""Push evaluation images at other places and along other directions, and images that pushing should leave alone.

The same images as the run's own, by the same length at the same steps: at random sets of layers, at the worst, and
along random directions at the selected ones. Beside them unsteered images of other seeds, images of prompts that name
an option, where these are steered, and images of other subjects.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import torch

from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, evaluation_jobs, make_jobs
from icm_pipeline.generation.named import named_prompts
from icm_pipeline.generation.prefixes import PrefixStore
from icm_pipeline.methods.assignment import assign_options, target_shares
from icm_pipeline.methods.vectors import SteeringVectors
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.table import is_least_change
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.tuning import Tuning
from icm_pipeline.stages.arms import Arm, make_arms, pushed_vectors, pushed_work

SEEDS = 4  # times as many unsteered images of other seeds as an arm has: shares of a prompt's images need many


def run(context: StageContext) -> None:
    settings, vectors = context.settings, pushed_vectors(context)
    arms = arms_of(settings, Selection.read(context.parents["select"]), vectors)
    folder = Keys(settings).prefix_folder()
    tuned = Tuning.read(context.parents["tune"]).options if "tune" in context.parents else {}
    make_arms(context, "push", arms, tuned, PrefixStore(folder) if folder else None)


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    size, own = settings.audit.chosen, is_least_change(settings)
    other = (bool(settings.attribute.named) and not own) + bool(settings.audit.other_subjects)
    return pushed_work(settings, len(_trials(settings)) * (own + 2 * size.num_sets + 1 + SEEDS + 2 * other))


def arms_of(settings: Settings, selection: Selection, vectors: SteeringVectors) -> list[Arm]:
    """Return all arms; the first has as many images as every other but that of other seeds."""
    jobs, options, best = _trials(settings), trial_options(settings), vectors.of_layers(selection.layers)
    rng, count = np.random.default_rng(settings.seed), settings.audit.chosen.num_sets
    arms = [Arm("selected", "selected", jobs, options, best)] if is_least_change(settings) else []
    sets, worst = random_sets(selection, count, rng), worst_layers(selection)
    for number, layers in enumerate(sets):
        arms.append(Arm(f"layers_{number:03d}", "random_layers", jobs, options, vectors.of_layers(layers)))
    if worst:
        arms.append(Arm("worst", "worst_layers", jobs, options, vectors.of_layers(worst)))
    for number in range(count):
        turned = random_directions(best, int(rng.integers(2**31)))
        arms.append(Arm(f"direction_{number:03d}", "random_direction", jobs, options, turned))
    return [*arms, *_others(settings, best, len(jobs))]


def random_sets(selection: Selection, count: int, rng: np.random.Generator) -> list[list[str]]:
    """Return distinct sets of as many layers of the selected kind, none the selected one; all where they are fewer."""
    layers = [row.layer for row in selection.ranking if selection.kind in ("mixed", row.kind)]
    k, selected = len(selection.layers), frozenset(selection.layers)
    if comb(len(layers), k) - 1 <= 4 * count:
        every = [list(chosen) for chosen in combinations(layers, k) if frozenset(chosen) != selected]
        return [every[index] for index in sorted(rng.permutation(len(every))[:count])]
    found: dict[frozenset[str], None] = {}
    while len(found) < count:
        chosen = frozenset(layers[index] for index in rng.choice(len(layers), k, replace=False))
        if chosen != selected:
            found[chosen] = None
    return [[layer for layer in layers if layer in chosen] for chosen in found]


def worst_layers(selection: Selection) -> list[str]:
    """Return the k worst layers of the selected kind, none if these are the selected ones."""
    layers = [row.layer for row in selection.ranking if selection.kind in ("mixed", row.kind)]
    worst = layers[::-1][: len(selection.layers)]
    return [] if set(worst) == set(selection.layers) else worst


def random_directions(vectors: SteeringVectors, seed: int) -> SteeringVectors:
    """Return vectors with a random unit direction per layer and option, the same at all steps; of two options opposite.

    One for all steps, as a direction that is drawn anew at each would cancel itself out.
    """
    generator, num_options = torch.Generator().manual_seed(seed), len(vectors.options)
    directions = {}
    for layer, real in vectors.directions.items():
        drawn = torch.randn(num_options, real.shape[-1], generator=generator)
        if num_options == 2:
            drawn[1] = -drawn[0]
        directions[layer] = torch.nn.functional.normalize(drawn, dim=-1).expand_as(real).contiguous()
    return replace(vectors, directions=directions)


def trial_options(settings: Settings) -> list[int]:
    """Return the option of each trial image: the run's own; by quotas where that would go by what images show."""
    method, prompts = settings.method, [job.prompt_index for job in evaluation_jobs(settings)]
    how = "quota" if is_least_change(settings) else method.assignment
    options = assign_options(prompts, target_shares(settings), how, method.draw_size, settings.seed)
    return [int(option) for option in options[: len(_trials(settings))]]


def _trials(settings: Settings) -> list[Job]:
    """Return the leading part of the evaluation images, which covers the prompts evenly."""
    return evaluation_jobs(settings)[: settings.audit.chosen.trial_images]


def _others(settings: Settings, best: SteeringVectors, count: int) -> Iterator[Arm]:
    """Yield the arms that say what should not change: other seeds, prompts that name an option, other subjects."""
    before = 0

    def jobs(prompts: Sequence[str], number: int) -> list[Job]:
        nonlocal before
        made = make_jobs(list(prompts), -(-number // len(prompts)), settings.seed, "push", before)[:number]
        before += number
        return made

    again = jobs(settings.attribute.evaluation_prompts, SEEDS * count)
    yield Arm("other_seeds", "other_seeds", again, shares_prefix=False)
    subjects = settings.audit.other_subjects
    if not is_least_change(settings) and (named := named_prompts(settings.attribute)[:count]):  # it leaves them alone
        made = jobs([prompt.text for prompt in named], count)
        options = other_options(settings, [named[job.prompt_index].option for job in made])
        yield Arm("named", "named", made, shares_prefix=False)
        yield Arm("named_steered", "named", made, options, best, shares_prefix=False)
    if subjects:
        made = jobs(subjects[:count], count)
        options = assign_options([0] * count, target_shares(settings), "quota", 1, settings.seed).tolist()
        yield Arm("other_subjects", "other_subjects", made, shares_prefix=False)
        yield Arm("other_subjects_steered", "other_subjects", made, options, best, shares_prefix=False)


def other_options(settings: Settings, named: Sequence[str]) -> list[int]:
    """Return an option for each image that is not the one that its prompt names."""
    names, rng = list(settings.attribute.options), np.random.default_rng(settings.seed)
    away = rng.integers(1, len(names), len(named))
    return [(names.index(option) + int(step)) % len(names) for option, step in zip(named, away, strict=True)]
