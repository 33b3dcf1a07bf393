"""The stages, in the order in which they run.

No stage before `select` reads k, and of these only `causal` reads alpha, so that a sweep over both shares images,
activations and probes.
"""

from typing import Any

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.config.values import value_at
from icm_pipeline.generation.jobs import trial_prompts, tuning_prompts
from icm_pipeline.methods.base import Fit
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.asked import (
    activations,
    asked_by_audit,
    devices_of_audit,
    is_asked,
    is_audited,
    is_pushed_alone,
    is_ranked_by_effect,
    localized,
    made,
    needed_by_audit,
    sized,
)
from icm_pipeline.pipeline.bench import is_tried_on_named, read_by_method, trying, trying_named
from icm_pipeline.pipeline.reads import (
    AUDITING,
    EVALUATED,
    EVALUATED_FOLDER,
    EVALUATION_SET,
    FORETELLING,
    JUDGE,
    JUDGING,
    LABELLING,
    MODEL,
    NAMED,
    PROBE_DATASET,
    PROBING,
    PUSHING,
    RECORDING,
    TUNING,
    under,
)
from icm_pipeline.pipeline.stage import Stage

AUDITED = ("named", "causal", "push", "audit")
BENCHED = ("strength", "explicit")
LOCALIZING = ("inject", "contribution", "withhold", "localize")
DENOISING: dict[str, Any] = {  # of every stage that runs the model
    "devices": lambda s: ("compute.device",),
    "same_speed": (*under("model", "path", "guidance_scale", "scheduler", "height", "width", "call"), "compute.dtype"),
}
INJECTED: dict[str, Any] = {  # of every stage that gives layers another prompt
    "makes": ("images",), "shared": True, "same_speed": DENOISING["same_speed"],
    "asks": lambda s: ("labeler", "judge"),
    "devices": lambda s: ("compute.device", "labeler.device", "evaluate.clip.device"),
}  # fmt: skip
JUDGED: dict[str, Any] = {  # of every stage whose own images the labeler judges
    **DENOISING, "asks": lambda s: ("labeler",), "devices": lambda s: ("compute.device", "labeler.device"),
}  # fmt: skip


def _recording(settings: Settings) -> tuple[str, ...]:
    """Return what recordings depend on; those kept in float32 serve where float16 is asked for, not the other way."""
    return (*RECORDING, "generate.store") if settings.generate.store == "float32" else RECORDING


def _preprocessed(settings: Settings, *judges: str) -> tuple[str, ...]:
    """Return what says how judges prepare pictures, where it is set: it is younger than many keys."""
    names = tuple(f"{judge}.preprocess" for judge in judges)
    return tuple(name for name in names if value_at(settings, name) is not None)


def is_least_change(settings: Settings) -> bool:
    """Say whether options are assigned by what images show unsteered, and only those that must change are steered."""
    return settings.method.assignment == "least_change"


def _unsteered(settings: Settings) -> tuple[str, ...]:
    """Return what steering takes from unsteered images."""
    if not is_least_change(settings):
        return ()
    return ("originals", "assign") if settings.method.look is None else ("originals", "foretell", "assign")


def _assigning(settings: Settings) -> tuple[str, ...]:
    asked = ("attribute.name", "attribute.options", "attribute.words", "method.target_shares", "seed")
    if settings.method.look is None:
        return (*asked, *LABELLING, *_preprocessed(settings, "labeler"))
    read = ("method.look", "method.first_step") if settings.method.look == "auto" else ("method.look",)
    return (*asked, *EVALUATION_SET, *read)


def _chosen(settings: Settings) -> tuple[str, ...]:
    """Return the stages that choose how far the method goes, where they do."""
    return (*_tuned(settings), *(("strength",) if settings.bench.included and settings.method.strength else ()))


def _tuned(settings: Settings) -> tuple[str, ...]:
    """Return the stage that searches alphas, where it does."""
    return ("tune",) if method_named(settings.method.name).is_tuned(settings) else ()


def _tuning(settings: Settings) -> tuple[str, ...]:
    """Return what a search depends on; on evaluation prompts only where it has to leave some out."""
    are_all = tuning_prompts(settings) == trial_prompts(settings)
    return TUNING if are_all else (*TUNING, "attribute.name", "attribute.evaluation_prompts")


def _injecting(settings: Settings) -> tuple[str, ...]:
    """Return what giving layers another prompt depends on."""
    return (
        *MODEL, "model.sites", *NAMED, *LABELLING, *_preprocessed(settings, "labeler", "evaluate.clip"),
        *under("evaluate", "clip.model", "clip.path"), "attribute.evaluation_prompts", "seed",
        *under("localizers", "images", "windows"),
    )  # fmt: skip


def _pushing_layers(settings: Settings) -> tuple[str, ...]:
    """Return what pushing each layer alone depends on."""
    searched = (name for name in _tuning(settings) if name != "method.wanted_share")
    return (*searched, *PUSHING, *sized(settings, "layer_images"))


def _fit(settings: Settings) -> Fit:
    fit = method_named(settings.method.name).fit
    if fit is None:
        raise ConfigError(f"stage=fit: method={settings.method.name} learns nothing before it steers.")
    return fit


def _fit_needs(settings: Settings) -> tuple[str, ...]:
    """Return the stages that the method learns from."""
    return made(settings, _fit(settings).needs)


def _fit_reads(settings: Settings) -> tuple[str, ...]:
    """Return the settings that what the method learns depends on, the labeler's pictures among them if it counts."""
    reads = _fit(settings).reads
    return (*reads, *_preprocessed(settings, "labeler")) if "labeler.kind" in reads else reads


def _reads_maps(settings: Settings) -> bool:
    fit = method_named(settings.method.name).fit
    return settings.images is None and fit is not None and "maps" in fit.needs


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("generate", "make the probe dataset, and record pooled activations in the same pass", kind="root",
              reads=lambda s: (*PROBE_DATASET, "generate.record", *(_recording(s) if s.generate.record else ())),
              makes=("images", "activations"), shared=True, **DENOISING,
              asks=lambda s: ("labeler", "judge")),  # long before they judge: the dataset is made for them
        Stage("extract", "record its pooled activations on their own, with generate.record=false", kind="root",
              part_of=lambda s: s.images is None and not s.generate.record,
              reads=lambda s: (*PROBE_DATASET, *_recording(s)),
              makes=("activations",), shared=True, **DENOISING),
        Stage("label", "say what every probe image, or every image of a folder, shows", kind="step",
              part_of=lambda s: True, needs=lambda s: () if s.images is not None else ("generate",),
              reads=lambda s: (*LABELLING, *_preprocessed(s, "labeler")), images=("images",), shared=True,
              asks=lambda s: ("labeler",), devices=lambda s: ("labeler.device",), same_speed=under("labeler", *JUDGE)),
        Stage("probe", "fit a linear probe per layer and timestep, and its steering vectors", kind="end",
              needs=lambda s: tuple(dict.fromkeys((activations(s), "generate", "label"))), reads=lambda s: PROBING,
              devices=lambda s: ("probe.device",), same_speed=("model.path", "attribute.options", "probe.solver")),
        Stage("foretell", "fit what foretells from early steps what an image will show, with method.look", kind="end",
              part_of=lambda s: s.images is None and s.method.look is not None,
              needs=lambda s: tuple(dict.fromkeys((activations(s), "generate", "label"))), reads=lambda s: FORETELLING,
              devices=lambda s: ("probe.device",), same_speed=("model.path", "attribute.options")),
        Stage("causal", "push each layer alone and measure what that does, on tuning prompts and seeds", kind="step",
              part_of=lambda s: s.images is None and is_pushed_alone(s),
              needs=lambda s: ("probe",), reads=_pushing_layers,
              makes=("images",), shared=True, **JUDGED),
        Stage("select", "rank the layers and choose those to steer", kind="end",
              needs=lambda s: ("probe", "causal") if is_ranked_by_effect(s) else ("probe",),
              reads=lambda s: ("layers",)),
        Stage("maps", "record whole maps of the bottleneck, if the method learns from them", kind="root",
              part_of=_reads_maps, reads=lambda s: (*PROBE_DATASET, "timesteps.start", "timesteps.count"),
              makes=("activations",), shared=True, **DENOISING),
        Stage("fit", "fit what the method learns before it steers, if it learns anything", kind="end",
              part_of=lambda s: s.images is None and method_named(s.method.name).fit is not None,
              needs=_fit_needs,
              reads=lambda s: (*MODEL, "attribute.name", "attribute.options", "seed", *_fit_reads(s)), **DENOISING),
        Stage("tune", "search the alpha that turns images to each option, with alpha=auto", kind="end",
              part_of=lambda s: s.images is None and bool(_tuned(s)),
              needs=lambda s: method_named(s.method.name).parents, reads=_tuning,
              makes=("images",), at_most=lambda s: True, **JUDGED),
        Stage("strength", "for the bench: try the method's strengths on tuning seeds and choose one", kind="end",
              part_of=lambda s: s.images is None and s.searched is not None,
              needs=lambda s: method_named(s.method.name).parents,
              reads=lambda s: (*trying(s), *_preprocessed(s, "labeler", "evaluate.clip")),
              makes=("images",), shared=True, same_speed=DENOISING["same_speed"], asks=lambda s: ("labeler", "judge"),
              devices=lambda s: (*JUDGED["devices"](s), "evaluate.clip.device")),
        Stage("originals", "make the unsteered evaluation images", kind="root",
              reads=lambda s: EVALUATION_SET, makes=("images",), shared=True, **DENOISING),
        Stage("assign", "say which option each evaluation image gets, so that few have to change", kind="step",
              part_of=lambda s: s.images is None and is_least_change(s),
              needs=lambda s: ("originals",) if s.method.look is None else ("foretell",),
              reads=_assigning, asks=lambda s: ("labeler",), shared=True,
              devices=lambda s: ("labeler.device",) if s.method.look is None else ("compute.device",),
              same_speed=(*DENOISING["same_speed"], *under("labeler", *JUDGE))),
        Stage("steer", "make the evaluation images again, steered", kind="step",
              needs=lambda s: (*method_named(s.method.name).parents, *_chosen(s), *_unsteered(s)),
              reads=lambda s: (*EVALUATION_SET, *read_by_method(s), "attribute.name"),
              makes=("images",), at_most=is_least_change, shared=True, same_speed=DENOISING["same_speed"],
              asks=lambda s: JUDGED["asks"](s) if s.method.tries > 1 else (),
              devices=lambda s: (JUDGED if s.method.tries > 1 else DENOISING)["devices"](s)),
        Stage("evaluate", "judge images, and their unsteered twins: FD, CLIP-I, obedience, drift", kind="result",
              version=1,  # 1: intervals of FD know failures that were not seen
              part_of=lambda s: True, needs=lambda s: () if s.images is not None else ("originals", "steer"),
              reads=lambda s: (*JUDGING, *_preprocessed(s, "judge", "labeler", "evaluate.clip"),
                               *(EVALUATED if s.images is None else EVALUATED_FOLDER)),
              images=("images", "reference"), asks=lambda s: ("judge",),
              devices=lambda s: ("judge.device", "evaluate.clip.device") if s.images is None else ("labeler.device",),
              same_speed=(*under("judge", *JUDGE), *under("labeler", "kind", "model", "path"),
                          *under("evaluate", "clip.model", "clip.path", "reference"))),
        Stage("explicit", "for the bench: see whether images of prompts that name an option keep it", kind="result",
              part_of=is_tried_on_named,
              needs=lambda s: (*method_named(s.method.name).parents, *_chosen(s)),
              reads=lambda s: (*trying_named(s), *_preprocessed(s, "judge")),
              makes=("images",), shared=True, same_speed=DENOISING["same_speed"], asks=lambda s: ("judge",),
              devices=lambda s: ("compute.device", "judge.device")),
        Stage("named", "make and record probe images of prompts that name an option", kind="root",
              part_of=lambda s: is_audited(s, "named") and bool(s.attribute.named),
              reads=lambda s: (*MODEL, *NAMED, *_recording(s), "seed", *sized(s, "num_steps", "named_images")),
              makes=("images", "activations"), shared=True, **DENOISING),
        Stage("push", "push evaluation images at other places and along other directions", kind="step",
              part_of=lambda s: is_audited(s, "push"), needs=lambda s: ("probe", "select", *_tuned(s)),
              reads=lambda s: (*EVALUATION_SET, *PUSHING, *under("method", "target_shares", "assignment", "draw_size"),
                               *(() if is_least_change(s) else NAMED),
                               "audit.other_subjects", *sized(s, "num_sets", "images_per_set")),
              makes=("images",), shared=True, **DENOISING),
        Stage("audit", "check every claim against a control that could refute it", kind="result",
              part_of=lambda s: is_audited(s, "audit"), needs=needed_by_audit,
              reads=lambda s: (*AUDITING, *_preprocessed(s, "judge", "labeler", "evaluate.clip"), "seed",
                               *under("probe", "C", "max_iter", "solver", "test_share"),
                               *under("layers", "kind", "k"),  # with every rule
                               "attribute.trial_subjects", "audit.claims", f"audit.sizes.{s.audit.size}"),
              version=1,  # 1: how much sets differ is told by their own figures, as many images of each group in each
              images=("audit.labelled",), asks=asked_by_audit, devices=devices_of_audit,
              same_speed=under("judge", *JUDGE)),
        Stage("inject", "give cross-attention layers the prompt that names an option, on tuning prompts", kind="end",
              part_of=lambda s: is_asked(s, "inject"), reads=_injecting, **INJECTED),
        Stage("contribution", "measure what the words that name an option put into the image, layer by layer",
              kind="end", part_of=lambda s: is_asked(s, "contribution"),
              reads=lambda s: (*MODEL, "model.sites", *NAMED, "timesteps.start", "timesteps.count", "seed",
                               "localizers.images"),
              makes=("activations",), shared=True, **DENOISING),
        Stage("withhold", "give the layers that contribute most the prompt without the option's name", kind="end",
              part_of=lambda s: is_asked(s, "withhold"), needs=lambda s: ("contribution",), reads=_injecting,
              **INJECTED),
        Stage("localize", "hold the other localizers against the probes and against each other", kind="result",
              part_of=lambda s: is_asked(s, "localize"), needs=localized),
        Stage("report", "draw the figures and write the page", kind="result",
              needs=lambda s: (activations(s), "label", "probe", "select", "originals", "steer", "evaluate"),
              tells=lambda s: ("select", "evaluate", *(("audit",) if is_audited(s, "audit") else ())),
              compares=True),
    )
}  # fmt: skip
# What `stage=` runs beside single stages.
BESIDE_STAGES = {
    "all": "every stage that is not done, in order",
    "plan": "say what all would do, keep and take",
    "explore": "look at it in a browser: steer with a slider, see what the probes read (extra explore)",
    "pretrain": "train the embedded models",
}


def stages_of(settings: Settings) -> tuple[str, ...]:
    """Return the stages that `stage=all` runs, in order."""
    return tuple(name for name, stage in STAGES.items() if stage.part_of(settings))


def kinds_of_stages() -> dict[str, str]:
    """Return what each stage's artifacts are to an outputs folder."""
    return {name: stage.kind for name, stage in STAGES.items()}


def stages_help() -> str:
    """Return a line per stage and command, for --help."""
    summaries = {name: stage.summary for name, stage in STAGES.items()} | BESIDE_STAGES
    return "\n".join(f"{name:<16}{summary}" for name, summary in summaries.items())
