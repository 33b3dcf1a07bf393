"""Settings that do not suit the stage or the method that is asked for: what only their tables can tell."""

from icm_pipeline.config.choices import EMBEDDED
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import recorded_steps, steps_to_read
from icm_pipeline.generation.named import no_names
from icm_pipeline.methods.registry import check_method, check_strength, method_named
from icm_pipeline.pipeline.asked import is_asked
from icm_pipeline.pipeline.table import BESIDE_STAGES, STAGES, stages_of
from icm_pipeline.zoo.paths import local_folder

PHOTO_JUDGES = {"labeler": "labeler=clip", "judge": "labeler@judge=clip", "evaluate.clip": "evaluate=people"}


def check_stage(settings: Settings) -> None:
    """Raise ConfigError for a stage or a method that does not exist or does not go with the other settings."""
    name, stage = settings.stage, STAGES.get(settings.stage)
    if stage is None and name not in BESIDE_STAGES:
        raise ConfigError(f"stage={name} is not known. Choose one of: {', '.join([*STAGES, *BESIDE_STAGES])}.")
    check_method(settings)
    _check_layers(settings)
    _check_alpha(settings)
    _check_strength(settings)
    _check_shares(settings)
    _check_look(settings)
    _check_pushed(settings)
    _check_localizers(settings)
    if settings.sweep is not None and name != "report":
        raise ConfigError(f"sweep={settings.sweep} goes with stage=report only, not with stage={name}.")
    if settings.images is not None and not (stage and "images" in stage.images):
        judging = " and ".join(f"stage={one.name}" for one in STAGES.values() if "images" in one.images)
        raise ConfigError(f"images={settings.images} goes with {judging}, not with stage={name}.")
    if settings.reference is not None and not (stage and "reference" in stage.images and settings.images is not None):
        raise ConfigError(
            f"reference={settings.reference} is the folder of unsteered twins and goes with stage=evaluate "
            "images=<folder>. The images that FID compares to are evaluate.reference."
        )
    makes_for_no_judge = name == "pretrain" or (stage is not None and stage.kind == "root" and not stage.asks(settings))
    if not makes_for_no_judge and settings.images is None and settings.sweep is None:
        _check_judges(settings)
        _check_bench_judges(settings)


def _check_layers(settings: Settings) -> None:
    """Refuse to select named layers where none are named, before anything is made for them."""
    if settings.layers.rule == "named" and not settings.layers.names and "select" in stages_of(settings):
        raise ConfigError(
            "layers=named selects the layers of layers.names, which names none: give some, as "
            "layers.names=[mid_block.attentions.0.transformer_blocks.0.attn1]. One that is not there is answered with "
            "all that are."
        )


def _check_alpha(settings: Settings) -> None:
    """Refuse to search an alpha for a method that does not push towards an option of the probes."""
    method = method_named(settings.method.name)
    if not method.is_tuned(settings):
        return
    if (start := settings.model.steering.alpha) <= 0:
        raise ConfigError(f"alpha=auto begins at model.steering.alpha={start:g}: it must be more than 0.")
    if "probe" not in method.needs:
        raise ConfigError(
            f"alpha=auto is searched by the probes' labels, which method={method.name} has not: give a number."
        )


def _check_strength(settings: Settings) -> None:
    """Refuse a strength that cannot be chosen, and claims about another one than that."""
    if settings.stage == "strength" and settings.method.strength is None:
        raise ConfigError(f"stage=strength: method={settings.method.name} has no strength (method.strength).")
    if settings.searched is None:
        return
    check_strength(settings)
    if not {"causal", "push"}.isdisjoint(stages_of(settings)):
        raise ConfigError(
            "bench.included=true chooses a strength of its own, and the audit pushes layers by alpha: run one without "
            "the other, the audit with the alpha that the bench chose."
        )


def _check_look(settings: Settings) -> None:
    """Refuse to read images after a number of steps for which nothing foretells them."""
    look, num_steps, recorded = settings.method.look, settings.model.num_steps, recorded_steps(settings)
    if look is None:
        return
    numbers = [recorded[index] + 1 for index in steps_to_read(recorded, num_steps)]
    numbers = [number for number in numbers if number > settings.method.first_step]
    if not numbers or look not in ("auto", *numbers):
        found = f"only after {', '.join(map(str, numbers))}" if numbers else "after none"
        raise ConfigError(
            f"method.look={look}: images can be foretold {found} of the {num_steps} steps: recorded steps of the first "
            f"half, from method.first_step={settings.method.first_step} on. Choose another look, record every step "
            "(timesteps=all), or set method.look=null, which judges finished originals."
        )


def _check_pushed(settings: Settings) -> None:
    """Refuse to push layers for a method whose own way of changing images that is not."""
    if settings.method.name != "icm" and not {"causal", "push"}.isdisjoint(stages_of(settings)):
        raise ConfigError(
            "audit.claims=[causality,changes], layers=causal and localizers.causal push layers by ICM's shift, which "
            f"method={settings.method.name} is not: leave method=icm, or ask for other claims."
        )


def _check_localizers(settings: Settings) -> None:
    """Refuse to localize an option that no prompt can name, and to compare localizers of which none is asked for."""
    asked = [name for name in ("inject", "contribution", "withhold") if is_asked(settings, name)]
    if asked and not settings.attribute.named:
        raise ConfigError(f"{' and '.join(asked)}: {no_names(settings.attribute)}")
    if settings.stage == "localize" and not asked:
        raise ConfigError("stage=localize has no localizer to compare: add experiment=injection or contribution.")


def _check_shares(settings: Settings) -> None:
    """Refuse to audit towards shares of each prompt: its controls have one target."""
    if settings.method.shares_by_prompt and {"push", "audit"} & set(stages_of(settings)):
        raise ConfigError("method.shares_by_prompt and its table do not go with an audit: give method.target_shares.")


def _check_judges(settings: Settings) -> None:
    """Refuse the embedded world's judges for a model of another world, whose pictures they would judge all the same."""
    if settings.model.path.startswith(EMBEDDED):
        return
    judges = {"labeler": settings.labeler, "judge": settings.judge, "evaluate.clip": settings.evaluate.clip}
    wrong = [name for name, judge in judges.items() if judge.path.startswith(EMBEDDED)]
    if wrong:
        if (folder := local_folder(settings.model.path)) is not None:
            from icm_pipeline.backbones.parts import folder_index  # imports torch

            folder_index(folder, settings.model.path)  # a folder that is not there needs no other judges
        found = ", ".join(f"{name}.path={judges[name].path}" for name in wrong)
        raise ConfigError(
            f"model.path={settings.model.path} would be judged by {found}, made for the embedded model's portraits and "
            "nothing else. Leave the choice to a model's own file (model=sdxl model.path=<folder>, or model=local for "
            f"any other), or add {' '.join(PHOTO_JUDGES[name] for name in wrong)} and an attribute of photographs "
            "(attribute=gender_photo). For a model that draws those portraits give the folders of the judges trained "
            "with it (labeler.path=/folder ...)."
        )


def _check_bench_judges(settings: Settings) -> None:
    """Refuse a bench that evaluates by the very network that chooses strengths, counts shares and trains."""
    networks = [(who.kind, who.model, who.path) for who in (settings.labeler, settings.judge)]
    if settings.bench.included and networks[0] == networks[1]:
        kind, model, path = networks[0]
        raise ConfigError(
            f"bench.included=true: the labeler, which chooses strengths and which some methods learn from, and the "
            f"judge, which evaluates, are one network (kind={kind} model={model} path={path}), so that methods would "
            "be measured by what they were fitted to. Give another judge: labeler@judge=fairface, or another CLIP "
            "(judge.model=, judge.path=)."
        )
