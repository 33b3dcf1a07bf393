"""Push evaluation images at other places and along other directions, and images that pushing should leave alone.

Images as in the run's own set, by the same length at the same steps: at random sets of layers, at the worst, and along
random directions at the selected ones. Each arm has the next few evaluation images, so that together they have all.
Beside them images of prompts that name an option, where these are steered, and images of other subjects.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import torch

from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, evaluation_jobs, make_jobs
from icm_pipeline.generation.named import named_prompts, other_options
from icm_pipeline.generation.prefixes import PrefixStore
from icm_pipeline.methods.assignment import assign_options, target_shares
from icm_pipeline.methods.vectors import SteeringVectors
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.table import is_least_change
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.results.effects import Sort
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.tuning import Tuning
from icm_pipeline.stages.arms import Arm, make_arms, pushed_vectors, pushed_work
from icm_pipeline.stages.rotation import rotation

# Times as many images as a random set of layers has:
DIRECTION = 0.5  # along a random direction: these are told from the real one by a larger lead than layers are
WORST = 16  # at the worst layers, which are one arm; at the selected ones too, where these are pushed again
NAMED = 8  # of prompts that name an option: fewer than a hundred cannot show that 95 of 100 keep it
SUBJECTS = 2  # of other subjects


def run(context: StageContext) -> None:
    settings, vectors = context.settings, pushed_vectors(context)
    arms = arms_of(settings, Selection.read(context.parents["select"]), vectors)
    folder = Keys(settings).prefix_folder()
    tuned = Tuning.read(context.parents["tune"]).options if "tune" in context.parents else {}
    make_arms(context, "push", arms, tuned, PrefixStore(folder) if folder else None)


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    size, pushes_again, most = settings.audit.chosen, is_least_change(settings), len(evaluation_jobs(settings))
    a_set, a_direction, worst = (min(_times(settings, part), most) for part in (1, DIRECTION, WORST))
    named, others = bool(settings.attribute.named) and not pushes_again, bool(settings.audit.other_subjects)
    twice = _times(settings, NAMED * named + SUBJECTS * others)
    return pushed_work(settings, size.num_sets * (a_set + a_direction) + worst * (1 + pushes_again) + 2 * twice)


def arms_of(settings: Settings, selection: Selection, vectors: SteeringVectors) -> list[Arm]:
    """Return all arms; those of a sort take the images one after the other, and none has an image twice."""
    best, rng, count = vectors.of_layers(selection.layers), np.random.default_rng(settings.seed), settings.audit.chosen
    images, whole = rotation(settings), _times(settings, WORST)
    if is_least_change(settings):
        images = images.stretch(0, whole)  # whatever is pushed elsewhere has to be pushed at the selected layers too

    def arm(name: str, sort: Sort, pushed: SteeringVectors, size: int, number: int = 0) -> Arm:
        own = images.stretch(number * size, size)
        return Arm(name, sort, own.jobs, own.options, pushed)

    sets, worst = random_sets(selection, count.num_sets, rng), worst_layers(selection)
    arms = [
        arm(f"layers_{number:03d}", "random_layers", vectors.of_layers(layers), _times(settings, 1), number)
        for number, layers in enumerate(sets)
    ]
    for number in range(count.num_sets):
        turned = random_directions(best, int(rng.integers(2**31)))
        arms.append(arm(f"direction_{number:03d}", "random_direction", turned, _times(settings, DIRECTION), number))
    if worst:
        arms.append(arm("worst", "worst_layers", vectors.of_layers(worst), whole))
    if is_least_change(settings):
        arms.append(arm("selected", "selected", best, whole))
    return [*arms, *_others(settings, best)]


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


def _times(settings: Settings, times: float) -> int:
    """Return so many times the images of a random set."""
    return math.ceil(times * settings.audit.chosen.images_per_set)


def _others(settings: Settings, best: SteeringVectors) -> Iterator[Arm]:
    """Yield the arms that say what should not change: prompts that name an option, and other subjects."""
    before = 0

    def jobs(prompts: Sequence[str], number: int) -> list[Job]:
        nonlocal before
        made = make_jobs(list(prompts), -(-number // len(prompts)), settings.seed, "push", before)[:number]
        before += number
        return made

    count, subjects = _times(settings, NAMED), settings.audit.other_subjects
    if not is_least_change(settings) and (named := named_prompts(settings.attribute)[:count]):  # it leaves them alone
        made = jobs([prompt.text for prompt in named], count)
        options = other_options(settings, [named[job.prompt_index].option for job in made])
        yield Arm("named", "named", made, shares_prefix=False)
        yield Arm("named_steered", "named", made, options, best, shares_prefix=False)
    if subjects:
        count = _times(settings, SUBJECTS)
        made = jobs(subjects[:count], count)
        options = assign_options([0] * count, target_shares(settings), "quota", 1, settings.seed).tolist()
        yield Arm("other_subjects", "other_subjects", made, shares_prefix=False)
        yield Arm("other_subjects_steered", "other_subjects", made, options, best, shares_prefix=False)
