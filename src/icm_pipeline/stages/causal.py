"""Push each layer alone and measure what that does, on prompts and seeds that nothing is evaluated on."""

import logging

import numpy as np
from scipy import stats

from icm_pipeline.arrays import Floats
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import AUTO, Settings
from icm_pipeline.generation.jobs import tuning_jobs
from icm_pipeline.generation.prefixes import PrefixStore
from icm_pipeline.images.table import read_made
from icm_pipeline.methods.assignment import assign_options
from icm_pipeline.methods.tuning import Tuned
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.results.effects import UNSTEERED, Effects, LayerEffect
from icm_pipeline.results.scores import Scores
from icm_pipeline.stages.arms import Arm, make_arms, pushed_vectors, pushed_work
from icm_pipeline.stages.judged import judged
from icm_pipeline.store.artifacts import SHARDS, Artifact
from icm_pipeline.tracking.base import Tracker

PREFIXES = "first_steps"  # beside the shards, so that they go when the artifact is complete
log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings, names = context.settings, list(context.settings.attribute.options)
    scored, vectors = Scores.read(context.parents["probe"]).layers, pushed_vectors(context)
    jobs, equal = tuning_jobs(settings, settings.audit.chosen.layer_images), [1 / len(names)] * len(names)
    # Quotas over all prompts, as each has too few images.
    options = assign_options([0] * len(jobs), equal, "quota", 1, settings.seed).tolist()
    layers = {f"layer_{index:03d}": layer for index, layer in enumerate(scored)}
    arms = [Arm(name, "layer", jobs, options, vectors.of_layers([layer])) for name, layer in layers.items()]
    alpha = settings.model.steering.alpha if settings.alpha == AUTO else settings.alpha
    is_kept = settings.method.first_step > 0 and settings.generate.reuse_prefix
    prefixes = PrefixStore(context.folder / SHARDS / PREFIXES) if is_kept else None
    arms = [Arm(UNSTEERED, "layer", jobs), *arms]
    if not make_arms(context, "causal", arms, dict.fromkeys(names, Tuned(alpha)), prefixes):
        return
    seen = judged(context, read_made(context.folder)).reshape(len(arms), len(jobs), len(names))
    wanted = seen[:, np.arange(len(jobs)), options]
    changes = dict(zip(layers.values(), wanted[1:] - wanted[0], strict=True))
    effects = {layer: effect_of(change, scored[layer].kind) for layer, change in changes.items()}
    Effects(len(jobs), effects).write(context.folder)
    best = sorted(effects, key=lambda layer: -effects[layer].mean)[:3]
    log.info("causal: most by %s", ", ".join(f"{layer} {effects[layer].mean:+.3f}" for layer in best))


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    """Return what it takes; unknown layers count as none."""
    num_layers = sum(outline.num_layers.values()) if outline else 0
    return pushed_work(settings, settings.audit.chosen.layer_images * (1 + num_layers))


def show(tracker: Tracker, artifact: Artifact) -> None:
    rows = [[layer, row.kind, row.mean, *row.interval_95] for layer, row in Effects.read(artifact).layers.items()]
    tracker.table("causal/layers", ["layer", "kind", "effect", "low", "high"], rows)


def effect_of(changes: Floats, kind: str) -> LayerEffect:
    """Return the mean of a layer's changes [n] with the t interval of its images; images without a face leave it."""
    seen = changes[~np.isnan(changes)]
    if len(seen) < 2:
        raise ValueError(f"The labeler could judge {len(seen)} of {len(changes)} pushed images with their twins.")
    half = float(stats.t.ppf(0.975, len(seen) - 1) * stats.sem(seen))
    mean = float(seen.mean())
    return LayerEffect(kind, mean, (mean - half, mean + half))
