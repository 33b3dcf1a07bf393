"""Withhold an option's name from some cross-attention layers, and see whether images still show it.

LocK's intervention: prompts name an option, and the layers that its words contribute most to, as many as each of
localizers.windows, are given the same prompt without it; beside them those that they contribute least to, all, and
none. Prompts and seeds are those of stage=inject, not those that contributions were measured on.

References:
    Localizing Knowledge in Diffusion Transformers (LocK), 2025. https://arxiv.org/abs/2505.18832
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from icm_pipeline.backbones.text_attention import cross_attentions, no_injection
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import tuning_jobs
from icm_pipeline.generation.named import explicit_prompt
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.report.localizers_page import withheld_table
from icm_pipeline.results.effects import UNSTEERED
from icm_pipeline.results.localizers import Contributions, Withheld
from icm_pipeline.stages.arms import Arm, make_arms, pushed_work
from icm_pipeline.stages.inject import EVERYWHERE, OtherPrompts, equal_options, measured, subjects_of
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings, names = context.settings, list(context.settings.attribute.options)
    backbone = context.models.load(settings.model, settings.compute)
    if why := no_injection(backbone.family):
        log.warning("withhold: left out, as nothing can be withheld from %s: %s", backbone.name, why)
        Withheld(0, None, {}, why).write(context.folder)
        return
    means = {layer: row.mean for layer, row in Contributions.read(context.parents["contribution"]).layers.items()}
    sets = sets_of(cross_attentions(backbone), means, settings.localizers.windows)
    neutral = tuning_jobs(settings, settings.localizers.images)
    options = equal_options(settings, neutral)
    jobs = [
        replace(job, prompt=explicit_prompt(settings.attribute, job.prompt, names[option]).text)
        for job, option in zip(neutral, options, strict=True)
    ]
    without = OtherPrompts(jobs, [job.prompt for job in neutral], settings.compute.batch_size)
    arms = [Arm(UNSTEERED, "window", jobs, options), *without.arms(jobs, options, sets)]
    if not make_arms(context, "withhold", arms, {}, None):
        return
    plain, effects = measured(context, arms, options, subjects_of(settings, neutral))
    found = dict(zip((name.replace("_", " ") for name in sets), effects, strict=True))
    Withheld(len(jobs), plain.share, found).write(context.folder)
    log.info("withhold: %s", ", ".join(f"{name} {each.effect:+.3f}" for name, each in found.items()))


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    """Return what it takes, nothing of a model without cross-attention; raises ValueError for too many layers."""
    num_sets = 1 + 2 * len(settings.localizers.windows)
    if outline is not None:
        if not (num_layers := outline.num_layers.get("cross_attention", 0)):
            return Workload()
        check_windows(num_layers, settings.localizers.windows)
    return pushed_work(settings, settings.localizers.images * (1 + num_sets))


def show(tracker: Tracker, artifact: Artifact) -> None:
    titles, *rows = withheld_table(Withheld.read(artifact))
    tracker.table("withhold/sets", [str(title) for title in titles], list(map(list, rows)))


def check_windows(num_layers: int, numbers: Sequence[int]) -> None:
    """Raise ValueError for a number of all layers or more."""
    if (largest := max(numbers)) >= num_layers:
        raise ValueError(
            f"localizers.windows={list(numbers)}: {largest} of {num_layers} cross-attention layers leave none to "
            "hold them against."
        )


def sets_of(layers: Sequence[str], contributions: Mapping[str, float], numbers: Sequence[int]) -> dict[str, list[str]]:
    """Return all layers, and as many as each number of those that contribute most and least, in the model's order.

    Raises ValueError for a number of all layers or more.
    """
    check_windows(len(layers), numbers)
    ranked = sorted(layers, key=lambda layer: -contributions[layer])
    chosen = {f"{word}_{number}": part for number in numbers for word, part in
              (("most", ranked[:number]), ("least", ranked[-number:]))}  # fmt: skip
    return {
        EVERYWHERE: list(layers),
        **{name: [each for each in layers if each in own] for name, own in chosen.items()},
    }
