"""Artifacts of planted images, pushed and judged as was planted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.generation.jobs import Job, evaluation_jobs, make_jobs, tuning_jobs
from icm_pipeline.generation.named import named_prompts
from icm_pipeline.images.table import IMAGES, TABLE, ImageRow, write_table
from icm_pipeline.localization.selection import LayerScore
from icm_pipeline.results.effects import UNSTEERED, PushedArm, Pushes, Sort
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.verdicts import Finding, Found, verdict_of
from icm_pipeline.stages.push import NAMED, SUBJECTS
from icm_pipeline.stages.rotation import Rotation, rotation
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.manifest import FileEntry, Manifest
from tests.helpers.results import scores

Compose = Callable[..., Settings]
Arm = tuple[list[Job], list[str], list[int], float]  # jobs, options, gender shown, distance of the twin
OPTIONS, NUM_LAYERS, REPETITIONS = ["woman", "man"], 12, 20
WORDS = (
    "evaluate.images_per_prompt=96", "audit.sizes.full.num_resamples=200",
    "audit.sizes.full.layer_images=24", "audit.other_subjects=[a photo of a dog]", "labeler.kind=tiny",
)  # fmt: skip


class PlantedJudging:
    """Answers what was planted for each picture's name; embeddings lie as far from their twins' as was planted."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, Floats]] = {}
        self.embedded: dict[str, Floats] = {}

    def label(self, judge: Any, setting: str, rows: Sequence[ImageRow], questions: Any) -> dict[str, Floats]:
        uniform = {name: np.full(len(options), 1 / len(options)) for name, options in questions.items()}
        return {
            name: np.array([self.seen[str(row.path)].get(name, uniform[name]) for row in rows]) for name in questions
        }

    def embed(self, rows: Sequence[ImageRow]) -> Floats:
        return np.array([self.embedded[str(row.path)] for row in rows])


@dataclass
class World:
    """Artifacts of planted images."""

    folder: Path
    rng: np.random.Generator
    judging: PlantedJudging

    def artifact(self, name: str, arms: dict[str, Arm], sorts: Any = None) -> Artifact:
        """Write a set of images; arms: {name: jobs, options, the gender that each shows, how far from its twin}."""
        folder = self.folder / name
        folder.mkdir()
        jobs, options = list[Job](), list[str]()
        for arm, (own, steered, shown, moved) in arms.items():
            for job, option, gender in zip(own, steered, shown, strict=True):
                image_id = f"{arm}-{job.image_id}" if arm else job.image_id
                path = str(folder / IMAGES / f"{image_id}.png")
                twin = np.random.default_rng(job.seed % 2**32).normal(size=128)
                other = self.rng.normal(size=128)
                self.judging.seen[path] = {"gender": np.eye(2)[gender] * 0.96 + 0.02}
                self.judging.embedded[path] = twin + moved * other
                jobs.append(replace(job, image_id=image_id))
                options.append(option)
        write_table(folder, jobs, options)
        files = [TABLE, Pushes.FILE, *(f"{IMAGES}/{job.image_id}.png" for job in jobs)]
        if sorts:
            Pushes({arm: PushedArm(*sorts[arm], len(arms[arm][0])) for arm in arms}).write(folder)
        return Artifact(folder, Manifest(name, "0", files=dict.fromkeys(files, FileEntry(0, ""))))


@pytest.fixture
def planted(settings_with: Compose, tmp_path: Path) -> Callable[..., AuditInputs]:
    """Give `plant` with settings, and a folder at each call."""
    settings, counter = settings_with(*WORDS), iter(range(1000))
    return lambda seed, **how: plant(settings, tmp_path / str(next(counter)), seed, **how)


def plant(
    settings: Settings, folder: Path, seed: int, obeyed: float = 0.95, at_random: float = 0.1, kept: float = 1.0,
    moved: float = 0.3, causal: float = 1.0, others_moved: float = 0.02, redrawn: float = 0.0, spread: float = 0.1,
) -> AuditInputs:  # fmt: skip
    """Plant what share obeys at the selected layers, at random sets, and when named otherwise; the rest show as ever.

    moved, others_moved: how far embeddings are from their twins', of other subjects as well; causal: how much more the
    layers do whose probes are accurate; redrawn: share of the other steered images that show what another seed would;
    spread: the deviation of sets, and of directions.
    """
    folder.mkdir()
    world = World(folder, np.random.default_rng(seed), PlantedJudging())
    rng, jobs, images, size = world.rng, evaluation_jobs(settings), rotation(settings), settings.audit.chosen
    option_of = {job.image_id: option for job, option in zip(images.jobs, images.options, strict=True)}
    everyone = [option_of[job.image_id] for job in jobs]

    def shown(options: Sequence[int], share: float, otherwise: Sequence[int]) -> list[int]:
        """A share of the images shows what it is pushed to, the others what they show unsteered."""
        pairs = zip(options, otherwise, strict=True)
        return [option if rng.random() < share else as_ever for option, as_ever in pairs]

    def told(options: Sequence[int]) -> list[str]:
        return [OPTIONS[option] for option in options]

    nobody = [""] * len(jobs)
    before = [0 if rng.random() < 0.85 else 1 for _ in jobs]
    originals = world.artifact("originals", {"": (jobs, nobody, before, 0.0)})
    another = [0 if rng.random() < 0.85 else 1 for _ in jobs]
    otherwise = shown(another, redrawn, before)
    steer = world.artifact("steer", {"": (jobs, told(everyone), shown(everyone, obeyed, otherwise), moved)})
    arms: dict[str, Any] = {}
    sorts: dict[str, tuple[Sort, list[str]]] = {}

    def push_at(name: str, sort: Sort, own: Rotation, share: float) -> None:
        as_ever = [before[int(job.image_id)] for job in own.jobs]
        arms[name] = (own.jobs, told(own.options), shown(own.options, share, as_ever), moved)
        sorts[name] = (sort, ["a"])

    for number in range(size.num_sets):
        a_set, a_direction = np.clip(at_random + rng.normal(0, spread, 2), 0, 1)
        own = (images.stretch(number * each, each) for each in (size.images_per_set, size.images_per_set // 2))
        push_at(f"layers_{number:03d}", "random_layers", next(own), a_set)
        push_at(f"direction_{number:03d}", "random_direction", next(own), a_direction)
    push_at("worst", "worst_layers", images, at_random)
    count = NAMED * size.images_per_set
    prompts = named_prompts(settings.attribute)[:count]
    named = make_jobs([prompt.text for prompt in prompts], 1, 6, "push")
    says = [OPTIONS.index(prompt.option) for prompt in prompts]
    away = [1 - option for option in says]
    arms["named"], sorts["named"] = (named, [""] * count, says, 0.0), ("named", [])
    arms["named_steered"], sorts["named_steered"] = (
        (named, told(away), shown(away, 1 - kept, says), moved),
        ("named", ["a"]),
    )
    count = SUBJECTS * size.images_per_set
    dogs = make_jobs(["a photo of a dog"], count, 7, "push")
    arms["other_subjects"] = (dogs, [""] * count, [0] * count, 0.0)
    arms["other_subjects_steered"] = (dogs, told([0, 1] * (count // 2)), [0] * count, others_moved)
    sorts |= {"other_subjects": ("other_subjects", []), "other_subjects_steered": ("other_subjects", ["a"])}
    push = world.artifact("push", arms, sorts)
    accuracy = {f"layer {number}": 0.95 - number / 40 for number in range(NUM_LAYERS)}
    tried, to = tuning_jobs(settings, 24), [0, 1] * 12
    as_ever = [0, 0, 1, 1] * 6
    layers: dict[str, Any] = {UNSTEERED: (tried, [""] * 24, as_ever, 0.0)}
    for number in range(NUM_LAYERS):
        share = causal * (1 - number / NUM_LAYERS) if causal else 0.5
        layers[f"layer_{number:03d}"] = (tried, told(to), shown(to, share, as_ever), moved)
    of_layer = {f"layer_{number:03d}": ("layer", [layer]) for number, layer in enumerate(accuracy)}
    effects = world.artifact("causal", layers, {UNSTEERED: ("layer", []), **of_layer})
    known = folder / "known"
    known.mkdir()
    scores({layer: ("self_attention", value, []) for layer, value in accuracy.items()}).write(known)
    ranking = [LayerScore(layer, "self_attention", value) for layer, value in accuracy.items()]
    Selection([row.layer for row in ranking[:3]], "top", "self_attention", ranking).write(known)
    files = dict.fromkeys(["scores.json", "selection.json"], FileEntry(0, ""))
    both = Artifact(known, Manifest("", "0", files=files))
    artifacts = {"originals": originals, "steer": steer, "push": push, "causal": effects}
    return AuditInputs(settings, {**artifacts, "probe": both, "select": both}, world.judging)  # type: ignore[arg-type]


def finding(found: Found, claim: str) -> Finding:
    return next(each for each in found.findings if each.claim == claim)


def verdicts(found: Found) -> dict[str, str]:
    return {each.claim: verdict_of(each, each.p) for each in found.findings}
