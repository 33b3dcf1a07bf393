"""Try a method's strengths on tuning prompts and seeds, and choose the one of least FD among those that keep CLIP-I.

The images are made as `steer` makes its own, with options by quotas of each prompt where one is drawn; nothing is
evaluated on their prompts and seeds, and the labeler, not the judge that evaluates, says what they show.
"""

import logging

import numpy as np

from icm_pipeline.arrays import Bools, Floats
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.fairness import unseen_prompts
from icm_pipeline.evaluation.judging import Judging
from icm_pipeline.evaluation.row_cache import RowCache
from icm_pipeline.generation.jobs import Job, strength_jobs
from icm_pipeline.images.table import read_made
from icm_pipeline.methods.assignment import assign_options, target_shares
from icm_pipeline.methods.registry import method_named
from icm_pipeline.methods.strength import with_strength
from icm_pipeline.metrics.fairness import discrepancy_by_prompt
from icm_pipeline.metrics.outcomes import one_hot_labels, share_obeying
from icm_pipeline.metrics.similarity import mapped_cosine
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.results.bench import StrengthChoice, TriedStrength, best_strength
from icm_pipeline.results.effects import UNSTEERED
from icm_pipeline.stages.arms import pushed_work
from icm_pipeline.stages.ways import Way, by_prompt, make_ways
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.caches import judged_folder
from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings, method = context.settings, method_named(context.settings.method.name)
    jobs, values, names = (
        by_prompt(method, strength_jobs(settings)),
        settings.method.strengths,
        list(settings.attribute.options),
    )
    prompts, shares = [job.prompt_index for job in jobs], target_shares(settings)
    rotated = len(names) > 2  # of two, what is left over of an odd number stays with the first, as it always did
    drawn = [names[index] for index in assign_options(prompts, shares, "quota", 1, settings.seed, rotated)]
    ways = [Way(UNSTEERED, settings)]
    for number, value in enumerate(values):
        strong = with_strength(settings, value)
        ways.append(Way(f"strength_{number:02d}", strong, drawn if method.draws(strong) else ()))
    if make_ways(context, "strength", jobs, ways) is None:
        return
    seen, embedded = _judged(context)
    sides, places = seen.reshape(len(ways), len(jobs), -1), embedded.reshape(len(ways), len(jobs), -1)
    counted = one_hot_labels(seen).reshape(sides.shape) if settings.evaluate.fd == "labels" else sides
    inside = _seen_everywhere(counted, jobs)
    fds = [_fd(settings, jobs, shown, inside) for shown in counted]
    tried = []
    for value, way, shown, place, fd in zip(values, ways[1:], sides[1:], places[1:], fds[1:], strict=True):
        wanted = np.array([names.index(option) for option in way.options])
        obeyed = share_obeying(shown, wanted) if len(wanted) else None
        clip_i = float(np.nanmean(mapped_cosine(place, places[0])))
        tried.append(TriedStrength(value, fd, clip_i, obeyed))
    best, is_inside = best_strength(tried, settings.bench.clip_i)
    StrengthChoice(
        str(settings.method.strength), best.value, settings.bench.clip_i, is_inside, fds[0],
        len(jobs), len(set(prompts)), tried,
    ).write(context.folder)  # fmt: skip
    _tell(settings, best, is_inside)


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    return pushed_work(settings, len(strength_jobs(settings)) * (1 + len(settings.method.strengths)))


def check(settings: Settings, artifact: Artifact) -> None:
    """Raise ArtifactError for a choice of before, whose key is the same."""
    StrengthChoice.read(artifact)


def show(tracker: Tracker, artifact: Artifact) -> None:
    found = StrengthChoice.read(artifact)
    tracker.metrics({"strength/value": found.value, "strength/clip_i": found.chosen.clip_i})
    rows = [[each.value, each.fd, each.clip_i, each.obeyed] for each in found.tried]
    tracker.table("strength/front", [found.setting, "fd", "clip_i", "obeyed"], rows)


def _judged(context: StageContext) -> tuple[Floats, Floats]:
    """Return what the labeler sees in every image [n, K], and their embeddings by the encoder of CLIP-I [n, d]."""
    settings, rows = context.settings, read_made(context.folder)
    judging = Judging(settings, RowCache(judged_folder(context.folder), context.folder))
    asked = {settings.attribute.name: settings.attribute.options}
    return judging.label(settings.labeler, "labeler", rows, asked)[settings.attribute.name], judging.embed(rows)


def _seen_everywhere(sides: Floats, jobs: list[Job]) -> Bools:
    """Return which jobs [n] are of prompts of which the labeler saw an image in every way; sides: [ways, n, K]."""
    prompts = [job.prompt for job in jobs]
    left_out = unseen_prompts(list(sides), prompts)
    if left_out:
        log.warning(
            "strength: FD is without %d of %d tuning prompts of which the labeler could see no image at some strength: "
            "%s", len(left_out), len(set(prompts)), left_out,
        )  # fmt: skip
    return np.asarray(~np.isin(prompts, left_out))


def _fd(settings: Settings, jobs: list[Job], counted: Floats, inside: Bools) -> float | None:
    """Return FD of some of the jobs' images [n, K], mean over their prompts; None if there are none."""
    if not inside.any():
        return None
    prompts = [job.prompt for job, is_inside in zip(jobs, inside, strict=True) if is_inside]
    found = discrepancy_by_prompt(counted[inside], prompts, np.array(target_shares(settings)))
    return float(np.mean(list(found.values())))


def _tell(settings: Settings, best: TriedStrength, is_inside: bool) -> None:
    fd = "none" if best.fd is None else f"{best.fd:.3f}"
    log.info("strength: %s %g, FD %s, CLIP-I %.3f", settings.method.strength, best.value, fd, best.clip_i)
    if best.fd is None:
        log.warning("strength: chosen by CLIP-I alone; see what images/ show, or try another labeler.")
    if not is_inside:
        log.warning(
            "strength: none of method.strengths=%s keeps CLIP-I %g; %g keeps most, %.3f. Try smaller ones.",
            settings.method.strengths, settings.bench.clip_i, best.value, best.clip_i,
        )  # fmt: skip
