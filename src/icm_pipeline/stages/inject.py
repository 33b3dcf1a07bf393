"""Give the prompt that names an option to some cross-attention layers alone, and measure what that does.

Each layer, each window of consecutive ones, all at once, and none; on the prompts and seeds of stage=causal, which
nothing is evaluated on.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.text_attention import cross_attentions
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.judging import Judging
from icm_pipeline.evaluation.row_cache import RowCache
from icm_pipeline.generation.jobs import Job, tuning_jobs
from icm_pipeline.generation.named import explicit_prompt
from icm_pipeline.generation.prompt_contexts import text_context
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.injection import TextContext, injected
from icm_pipeline.images.table import read_made
from icm_pipeline.methods.assignment import assign_options
from icm_pipeline.metrics.redrawn import discrepancies
from icm_pipeline.metrics.similarity import mapped_cosine
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.report.localizers_page import injections_table
from icm_pipeline.results.effects import UNSTEERED, arm_of
from icm_pipeline.results.localizers import Injections, WindowEffect
from icm_pipeline.stages.arms import Arm, make_arms, pushed_work
from icm_pipeline.stages.causal import effect_of
from icm_pipeline.stages.judged import judged
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.caches import judged_folder
from icm_pipeline.tracking.base import Tracker

EVERYWHERE = "all"
log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings, names = context.settings, list(context.settings.attribute.options)
    layers = cross_attentions(context.models.load(settings.model, settings.compute))
    windows = windows_of(layers, settings.localizers.windows)
    jobs = tuning_jobs(settings, settings.localizers.images)
    subjects, options = subjects_of(settings, jobs), equal_options(settings, jobs)
    named = [
        explicit_prompt(settings.attribute, job.prompt, names[o]).text for job, o in zip(jobs, options, strict=True)
    ]
    explicit = OtherPrompts(jobs, named, settings.compute.batch_size)
    arms = [Arm(UNSTEERED, "window", jobs), *explicit.arms(jobs, options, {EVERYWHERE: layers, **windows})]
    if not make_arms(context, "inject", arms, {}, None):
        return
    plain, (everywhere, *others) = measured(context, arms, options, subjects)
    num_subjects = len(set(subjects))
    found = Injections(len(jobs), num_subjects, plain.share, plain.fd, everywhere.layers, everywhere, others)
    found.write(context.folder)
    best = max(found.of_width(found.widths[0]), key=lambda window: window.effect)
    log.info("inject: all layers %+.3f, most %s %+.3f", found.everywhere.effect, ", ".join(best.layers), best.effect)


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    """Return what it takes; unknown layers count as none. Raises ValueError for windows wider than all layers."""
    layers = list(map(str, range(outline.num_layers.get("cross_attention", 0)))) if outline else []
    windows = windows_of(layers, settings.localizers.windows) if layers else {}
    return pushed_work(settings, settings.localizers.images * (2 + len(windows)))


def show(tracker: Tracker, artifact: Artifact) -> None:
    found = Injections.read(artifact)
    titles, *rows = injections_table(found)
    tracker.table("inject/windows", [str(title) for title in titles], list(map(list, rows)))
    tracker.metrics({"inject/all_layers": found.everywhere.effect})


def windows_of(layers: Sequence[str], widths: Sequence[int]) -> dict[str, list[str]]:
    """Return every run of so many consecutive layers by the name of its arm; raises ValueError where there is none.

    Windows at the ends are as wide as all others, so each end is in fewer of them.
    """
    if (widest := max(widths)) > len(layers):
        raise ValueError(
            f"localizers.windows={list(widths)}: {len(layers)} cross-attention layers have none of {widest}."
        )
    return {
        f"window_{width}_{start:03d}": list(layers[start : start + width])
        for width in widths
        for start in range(len(layers) - width + 1)
    }


class OtherPrompts:
    """Another prompt for each image, which some layers are given, encoded by the model that first needs it."""

    def __init__(self, jobs: Sequence[Job], texts: Sequence[str], batch_size: int) -> None:
        self._texts = list(dict.fromkeys(texts))
        self._place = {job.image_id: self._texts.index(text) for job, text in zip(jobs, texts, strict=True)}
        self._batch_size = batch_size
        self._encoded: TextContext | None = None

    def arms(self, jobs: list[Job], options: Sequence[int], sets: Mapping[str, Sequence[str]]) -> list[Arm]:
        """Return an arm for each named set of layers that is given these prompts."""
        return [
            Arm(name, "window", jobs, options, None, False, layers, partial(self._given_to, layers))
            for name, layers in sets.items()
        ]

    @contextmanager
    def _given_to(self, layers: Sequence[str], backbone: Backbone, jobs: list[Job]) -> Iterator[None]:
        """Give each image's prompt to some layers while the context lasts; jobs: of an arm."""
        if self._encoded is None:
            self._encoded = text_context(backbone, self._texts, self._batch_size)
        text = self._encoded.rows([self._place[arm_of(job.image_id)[1]] for job in jobs])
        with hooked(backbone, [], None, len(jobs)) as clock, injected(backbone, clock, layers, text):
            yield


def equal_options(settings: Settings, jobs: Sequence[Job]) -> list[int]:
    """Return an option for each job, of each subject in equal shares."""
    num = len(settings.attribute.options)
    return assign_options(subjects_of(settings, jobs), [1 / num] * num, "quota", 1, settings.seed).tolist()


def subjects_of(settings: Settings, jobs: Sequence[Job]) -> list[int]:
    """Return the number of the subject of each job's prompt."""
    options = list(settings.attribute.options)
    subjects = [explicit_prompt(settings.attribute, job.prompt, options[0]).subject for job in jobs]
    return [list(dict.fromkeys(subjects)).index(subject) for subject in subjects]


def measured(
    context: StageContext, arms: Sequence[Arm], options: Sequence[int], subjects: Sequence[int]
) -> tuple[WindowEffect, list[WindowEffect]]:
    """Return what the first arm's images are like, of which no layer is changed, and the effect of each other arm.

    options: of which a share is told, of each image; subjects: the number of each image's.
    """
    settings, num = context.settings, len(options)
    rows = read_made(context.folder)
    seen = judged(context, rows).reshape(len(arms), num, -1)
    judging = Judging(settings, RowCache(judged_folder(context.folder), context.folder))
    embedded = judging.embed(rows).reshape(len(arms), num, -1)
    wanted = seen[:, np.arange(num), options]
    uniform = np.full(seen.shape[-1], 1 / seen.shape[-1])
    fds = discrepancies(seen, np.array(subjects), uniform, np.ones((1, num)))[:, 0]

    def effect(index: int) -> WindowEffect:
        change = effect_of(wanted[index] - wanted[0], "cross_attention")
        share, likeness = float(np.nanmean(wanted[index])), mapped_cosine(embedded[index], embedded[0])
        return WindowEffect(
            arms[index].layers, share, change.mean, change.interval_95, float(fds[index]), float(likeness.mean())
        )

    plain = WindowEffect([], float(np.nanmean(wanted[0])), 0.0, (0.0, 0.0), float(fds[0]), 1.0)
    return plain, [effect(index) for index in range(1, len(arms))]
