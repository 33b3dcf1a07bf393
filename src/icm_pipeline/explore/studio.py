"""The model with a lock, what it made lately, and the judges: from a setting to pictures.

Whoever asks is served alone, as hooks stand on the model. Originals are kept with every step that they took, so that a
steered image costs the steps from its first steered one on, and one that was made lately nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.explore.kept import Kept
from icm_pipeline.explore.making import Run, Tell, changed_runs, plain_runs
from icm_pipeline.explore.material import Material
from icm_pipeline.explore.setting import LEAST_CHANGE, LOOK, PUBLISHED, Setting, at_position, checked
from icm_pipeline.explore.steering import changed_to, noted, scaled, steering_of
from icm_pipeline.explore.turns import Turns
from icm_pipeline.generation.batches import fitting
from icm_pipeline.generation.jobs import Job
from icm_pipeline.labelers.base import Labeler
from icm_pipeline.labelers.registry import load_labeler
from icm_pipeline.methods.assignment import assign_options, least_change_by_prompt
from icm_pipeline.methods.looking import Look
from icm_pipeline.methods.registry import method_named
from icm_pipeline.metrics.outcomes import hard_labels

# Why a setting cannot be made, as whoever asks for it is told.
USER_ERRORS = (ValueError, OSError, ModuleNotFoundError, FloatingPointError, MemoryError)
MOST_ORIGINALS, MOST_STEERED = 48, 192  # images that are kept
STRIP = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)  # of the run's own alpha


@dataclass(frozen=True)
class Picture:
    """One picture and what is known of it."""

    seed: int
    image: Any  # PIL.Image.Image
    probabilities: Floats | None
    """What the judge sees [options]; None without a judge."""
    reading: Floats | None
    """What a layer's probes read at each step [S, options]; None without probes."""
    steered_to: str = ""
    """Empty where it was left as it is."""


@dataclass(frozen=True)
class Shown:
    """The pictures of a setting; steered ones come later than originals."""

    setting: Setting
    originals: list[Picture]
    steered: list[Picture] | None = None


@dataclass(frozen=True)
class _Shift:
    """One steered image: everything that it depends on beside the vectors."""

    prompt: str
    seed: int
    option: str
    alpha: float
    layers: tuple[str, ...]
    first_step: int
    last_step: int


class Studio:
    """Makes the pictures of settings, of one model."""

    def __init__(self, materials: Sequence[Material], models: ModelCache | None = None) -> None:
        self.materials = {material.name: material for material in materials}
        self._models, self._lock = models or ModelCache(), Turns()
        self._layers = list(dict.fromkeys(each.reading.layer for each in materials if each.reading is not None))
        self._originals: Kept[Run] = Kept(MOST_ORIGINALS)
        self._steered: Kept[Any] = Kept(MOST_STEERED)
        self._judged: Kept[Floats] = Kept(MOST_ORIGINALS + MOST_STEERED)
        self._labelers: dict[str, Labeler] = {}

    def show(self, material: Material, setting: Setting, tell: Tell = lambda done, total: None) -> Iterator[Shown]:
        """Yield the originals of a setting if they are new, then with them the steered pictures; raises ValueError."""
        checked(setting, material)
        with self._lock:
            are_new = any((setting.prompt, seed) not in self._originals for seed in setting.seeds)
            runs, originals = self._originals_of(material, setting, tell)
        if are_new:
            yield Shown(setting, originals)
        with self._lock:
            steered = self._changed(material, setting, runs, originals, tell)
        yield Shown(setting, originals, steered)

    def make_ahead(self, material: Material, setting: Setting) -> None:
        """Make the pictures of a setting that nobody asked for; raises GaveWayError as soon as anybody asks."""
        with self._lock.spare():
            self._lock.give_way()
            runs, originals = self._originals_of(material, setting, self._give_way)
            self._changed(material, setting, runs, originals, self._give_way)

    def leave_unasked(self) -> None:
        """Have whatever nobody asked for give way, from now on."""
        self._lock.close()

    def _give_way(self, done: int, total: int) -> None:
        self._lock.give_way()

    def strip(self, material: Material, setting: Setting, left: str, right: str, tell: Tell) -> list[Picture]:
        """Return the first picture of a setting along alpha, by its way of steering, from one option to the other."""
        checked(setting, material)
        places = [at_position(setting, share * material.alpha, left, right) for share in STRIP]
        with self._lock:
            runs, originals = self._originals_of(material, setting, tell)
            if setting.way not in (PUBLISHED, LEAST_CHANGE):
                return [self._changed(material, place, runs, originals, tell)[0] for place in places]
            options = [self._options(material, place, originals)[0] if place.alpha else "" for place in places]
            wanted = [(place, option) for place, option in zip(places, options, strict=True) if option]
            shifts = [self._shift(place, setting.seed, option) for place, option in wanted]
            made = iter(self._shifted(material, shifts, {setting.seed: runs[0]}, tell))
            return [
                self._picture(material, setting.seed, next(made), option) if option else originals[0]
                for option in options
            ]

    def _originals_of(self, material: Material, setting: Setting, tell: Tell) -> tuple[list[Run], list[Picture]]:
        runs = self._plain(material, setting.prompt, setting.seeds, tell)
        return runs, [self._picture(material, seed, run) for seed, run in zip(setting.seeds, runs, strict=True)]

    def _plain(self, material: Material, prompt: str, seeds: Sequence[int], tell: Tell) -> list[Run]:
        """Return the original of each seed, made unless it was lately."""
        missing = [seed for seed in seeds if (prompt, seed) not in self._originals]
        backbone, made = self._backbone(material), dict[int, Run]()

        def make(jobs: list[Job]) -> list[Run]:
            return plain_runs(backbone, jobs, self._layers, tell)

        for job, run in self._batched(material, [_job(prompt, seed) for seed in missing], make):
            made[job.seed] = self._originals[prompt, job.seed] = run
        return [made[seed] if seed in made else self._originals[prompt, seed] for seed in seeds]

    def _changed(
        self, material: Material, setting: Setting, runs: list[Run], originals: list[Picture], tell: Tell
    ) -> list[Picture]:
        """Return the steered pictures of a setting, by its way of steering."""
        if setting.alpha == 0:
            return originals
        if setting.way not in (PUBLISHED, LEAST_CHANGE):
            if (material.name, setting) not in self._steered:
                by_way = self._looked if setting.way == LOOK else self._rivalled
                self._steered[material.name, setting] = by_way(material, setting, runs, tell)
            found: list[tuple[Run, str]] = self._steered[material.name, setting]
        else:
            options = self._options(material, setting, originals)
            wanted = {seed: option for seed, option in zip(setting.seeds, options, strict=True) if option}
            shifts = [self._shift(setting, seed, option) for seed, option in wanted.items()]
            original_of = dict(zip(setting.seeds, runs, strict=True))
            made = dict(zip(wanted, self._shifted(material, shifts, original_of, tell), strict=True))
            found = [(made.get(seed, run), wanted.get(seed, "")) for seed, run in zip(setting.seeds, runs, strict=True)]
        return [
            self._picture(material, seed, run, option) if option else original
            for seed, (run, option), original in zip(setting.seeds, found, originals, strict=True)
        ]

    def _options(self, material: Material, setting: Setting, originals: list[Picture]) -> list[str]:
        """Return what each image is steered to; empty for one that least change leaves as it is."""
        names, prompts, shares = material.options, [0] * setting.num_images, setting.shares(material)
        if setting.way == PUBLISHED:
            options = assign_options(prompts, shares, "quota", 1, setting.seed)
            return [names[option] for option in options]
        seen = np.stack([picture.probabilities for picture in originals])  # type: ignore[misc]
        options = least_change_by_prompt(prompts, seen, shares, seed=0)
        return [
            "" if option == shown else names[option] for option, shown in zip(options, hard_labels(seen), strict=True)
        ]

    def _shift(self, setting: Setting, seed: int, option: str) -> _Shift:
        window = setting.first_step, setting.last_step
        return _Shift(setting.prompt, seed, option, round(setting.alpha, 6), setting.layers, *window)

    def _shifted(
        self, material: Material, shifts: Sequence[_Shift], originals: Mapping[int, Run], tell: Tell
    ) -> list[Run]:
        """Return an image for each shift, made unless it was lately; originals: by seed."""
        missing = [shift for shift in dict.fromkeys(shifts) if (material.name, shift) not in self._steered]
        shift_of, backbone, made = (
            {f"{index}": each for index, each in enumerate(missing)},
            self._backbone(material),
            {},
        )

        def make(jobs: list[Job]) -> list[Run]:
            own = [shift_of[job.image_id] for job in jobs]
            options, alphas = [shift.option for shift in own], [shift.alpha for shift in own]
            steering = steering_of(material, own[0], len(jobs), option=options, alpha=alphas)
            before = [originals[job.seed] for job in jobs]
            return changed_runs(backbone, jobs, steering(backbone), before, own[0].first_step, self._layers, tell)

        asked = [Job(name, shift.prompt, 0, shift.seed) for name, shift in shift_of.items()]
        for job, run in self._batched(material, asked, make):
            shift = shift_of[job.image_id]
            made[shift] = self._steered[material.name, shift] = run
        return [made[shift] if shift in made else self._steered[material.name, shift] for shift in shifts]

    def _looked(self, material: Material, setting: Setting, runs: list[Run], tell: Tell) -> list[tuple[Run, str]]:
        """Return the images of runs that look, then rewind those that are to change; and what each is steered to."""
        looks, backbone = list[Look](), self._backbone(material)
        shares = dict(zip(material.options, setting.shares(material), strict=True))
        original_of = dict(zip(setting.seeds, runs, strict=True))

        def make(jobs: list[Job]) -> list[Run]:
            steering = steering_of(material, setting, len(jobs), shares=shares, alpha=setting.alpha)
            before = [original_of[job.seed] for job in jobs]
            return changed_runs(backbone, jobs, noted(steering(backbone), looks), before, 0, self._layers, tell)

        made = self._batched(material, [_job(setting.prompt, seed) for seed in setting.seeds], make)
        found = [run for _, run in made]
        options = [option for look in looks for option in changed_to(look)]
        return list(zip(found, options, strict=True))

    def _rivalled(self, material: Material, setting: Setting, runs: list[Run], tell: Tell) -> list[tuple[Run, str]]:
        """Return images that another method changes, as a run used it, and what each is steered to."""
        rival, method, backbone = material.rivals[setting.way], method_named(setting.way), self._backbone(material)
        method.check_family(backbone.family, backbone.name)
        jobs, original_of = (
            [_job(setting.prompt, seed) for seed in setting.seeds],
            dict(zip(setting.seeds, runs, strict=True)),
        )
        options = assign_options([0] * len(jobs), setting.shares(material), "quota", 1, setting.seed).tolist()
        option_of = {job.image_id: option for job, option in zip(jobs, options, strict=True)}
        inputs = scaled(rival, setting.alpha / material.alpha, option_of)
        first = rival.settings.method.first_step if method.from_first_step else 0

        def make(batch: list[Job], layers: Sequence[str] = self._layers) -> list[Run]:
            generated = [replace(job, prompt=method.prompt_of(job, inputs)) for job in batch]
            before = [original_of[job.seed] for job in batch]
            try:
                steering = method.applied(backbone, inputs, batch)
                return changed_runs(backbone, generated, steering, before, first, layers, tell)
            except BackboneError:  # a method that runs the denoiser on rows of its own, as SEGA: nothing is recorded
                if not layers:
                    raise
                return make(batch, [])

        made = self._batched(material, jobs, make, len(jobs) if method.whole_prompts else None)
        return [(run, material.options[option]) for (_, run), option in zip(made, options, strict=True)]

    def _batched(
        self, material: Material, jobs: list[Job], make: Callable[[list[Job]], list[Run]], size: int | None = None
    ) -> Iterator[tuple[Job, Run]]:
        """Yield every job with its image, in batches that fit into memory."""
        size = size or material.settings.compute.batch_size
        yield from zip(jobs, (run for runs in fitting([jobs], make, size) for run in runs), strict=True)

    def _backbone(self, material: Material) -> Backbone:
        return self._models.load(material.settings.model, material.settings.compute)

    def _picture(self, material: Material, seed: int, run: Run, option: str = "") -> Picture:
        reading = None
        if material.reading is not None and run.seen is not None:
            activations = run.seen.activations[material.reading.layer][None]
            reading = material.reading.probabilities(activations, run.seen.noise_levels)[0]
        return Picture(seed, run.image, self._judge(material, run.image), reading, option)

    def _judge(self, material: Material, image: Any) -> Floats | None:
        """Return what the judge sees in a picture, asked once; None without a judge."""
        if material.judge_problem:
            return None
        key = material.name, image.tobytes()
        if key not in self._judged:
            name, options, judge = material.attribute.name, material.attribute.options, material.settings.judge
            if repr(judge) not in self._labelers:
                self._labelers[repr(judge)] = load_labeler(judge, "judge")
            self._judged[key] = self._labelers[repr(judge)].label([image], {name: options})[name][0]
        return self._judged[key]


def _job(prompt: str, seed: int) -> Job:
    return Job(f"{seed}", prompt, 0, seed)
