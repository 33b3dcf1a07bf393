"""Turn a composed configuration into checked settings: what cannot work is refused before anything is computed."""

import math
import re
import secrets
from collections import Counter
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from icm_pipeline.choices import ASSIGNMENTS, DIRECTIONS, DTYPES, EMBEDDED, FACES, JUDGES, RULES, SITE_KINDS
from icm_pipeline.config import AttributeConfig, Settings, value_at
from icm_pipeline.credentials import find_secret
from icm_pipeline.help_page import groups_help

CHOICES: dict[str, tuple[str, ...]] = {
    "layers.rule": RULES,
    "layers.kind": SITE_KINDS,
    "method.name": ("icm", "none"),
    "method.direction": DIRECTIONS,
    "method.alpha_unit": ("activation", "relative"),
    "method.assignment": ASSIGNMENTS,
    "method.vector": ("per_step", "mean"),
    "labeler.kind": JUDGES,
    "judge.kind": JUDGES,
    "labeler.faces": FACES,
    "judge.faces": FACES,
    "evaluate.clip.kind": ("clip",),
    "evaluate.fd": ("probabilities", "labels"),
    "model.dtype": DTYPES,
    "model.offload": ("none", "model", "sequential"),
    "tracker.name": ("wandb", "tensorboard", "csv", "none"),
    "tracker.mode": ("offline", "online", "disabled"),
    "pretrain.part": ("all", "portraits", "autoencoder", "classifier", "clip", "diffusion", "quality"),
}

UNJUDGED = ("extract", "originals", "pretrain")  # stages that make pictures without a judge for them
PHOTO_JUDGES = {"labeler": "labeler=clip", "judge": "labeler@judge=clip", "evaluate.clip": "evaluate=people"}

# Becomes part of a folder's name.
NAME = re.compile(r"\w[\w.+-]{0,63}")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what to change."""


def register_resolvers() -> None:
    """Tell OmegaConf what `conf/` is written in beside its own.

    The arithmetic of sweeps, `${times:0.5,${model.steering.k}}` and `${plus:1,2}`; `${run_id:}`, which sets apart the
    folders of runs that start in the same second; and the help.
    """
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("help_of_groups", groups_help, replace=True)
    OmegaConf.register_new_resolver("times", _times, replace=True)
    OmegaConf.register_new_resolver("plus", lambda *terms: sum(terms), replace=True)
    OmegaConf.register_new_resolver("run_id", _run_id, replace=True)


def _times(factor: float, value: float) -> float:
    """Return the product; where the value is a whole number, rounded to one and at least 1."""
    return max(1, round(factor * value)) if isinstance(value, int) else factor * value


@cache
def _run_id() -> str:
    """Return six random hexadecimal digits, the same all through the process."""
    return secrets.token_hex(3)


def to_settings(cfg: Any) -> Settings:
    """Resolve a composed configuration into checked `Settings`; raises ConfigError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    register_resolvers()
    try:
        settings = OmegaConf.to_object(cfg)
    except MissingMandatoryValue as error:
        raise ConfigError(
            f"The configuration does not hold together: {error.full_key} has no value. Add it to its YAML file or give "
            f"{error.full_key}=<value>."
        ) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"The configuration does not hold together: {error}") from error
    assert isinstance(settings, Settings)
    _refuse_added(settings, "")
    check(settings)
    return settings


def _refuse_added(settings: Any, place: str) -> None:
    """Raise ConfigError for a setting that nothing knows, as `+alpah=3` adds one."""
    known = [field.name for field in fields(settings)]
    for name, value in vars(settings).items():
        if name not in known:
            raise ConfigError(no_setting(place + name, name, known, place))
        for key, inner in value.items() if isinstance(value, dict) else [("", value)]:
            if is_dataclass(inner):
                _refuse_added(inner, f"{place}{name}.{key}." if key else f"{place}{name}.")


def no_setting(dotted: str, name: str, known: list[str], place: str = "") -> str:
    """Return what is said of a setting that does not exist: the nearest that does, and all there are beside it.

    place: what stands before the nearest one's name, as on a command line.
    """
    close = get_close_matches(name, known, 1)
    hint = f" Did you mean {place}{close[0]}?" if close else ""
    return f"there is no {dotted}.{hint}" + (f" Known here: {', '.join(known)}." if known else "")


def check(settings: Settings) -> None:
    """Refuse what cannot work before anything is computed; raises ConfigError naming the value and its choices."""
    refuse_secrets(asdict(settings))
    _check_names(settings)
    for dotted, choices in CHOICES.items():
        found = value_at(settings, dotted)
        if found not in choices:
            raise ConfigError(f"{dotted}={found} is not known. Choose one of: {', '.join(choices)}.")
    if settings.sweep is not None and settings.stage != "report":
        raise ConfigError(f"sweep={settings.sweep} goes with stage=report only, not with stage={settings.stage}.")
    if not math.isfinite(settings.alpha):
        raise ConfigError(f"alpha={settings.alpha} is not a finite number. Set alpha to a number such as alpha=1.0.")
    for dotted, least in {
        "model.num_steps": 1, "model.batch_size": 1, "layers.k": 1, "generate.images_per_prompt": 1,
        "generate.shard_size": 1, "evaluate.images_per_prompt": 1, "method.first_step": 0, "method.draw_size": 1,
        "probe.max_iter": 1, "probe.min_per_option": 2, "evaluate.bootstrap": 1, "seed": 0, "layers.seed": 0,
        "labeler.batch_size": 1, "judge.batch_size": 1, "evaluate.clip.batch_size": 1,
    }.items():  # fmt: skip
        if value_at(settings, dotted) < least:
            raise ConfigError(f"{dotted}={value_at(settings, dotted)} must be at least {least}.")
    seconds = settings.plan.seconds_per_image
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise ConfigError(f"plan.seconds_per_image={seconds} must be a positive number, or null.")
    threads = settings.model.num_threads
    if threads is not None and threads < 1:
        raise ConfigError(f"model.num_threads={threads} must be at least 1, or null for torch's own choice.")
    decoded = settings.model.decode_batch_size
    if decoded is not None and decoded < 1:
        raise ConfigError(f"model.decode_batch_size={decoded} must be at least 1, or null for the whole batch.")
    if settings.model.grow_batch and settings.model.device == "cpu":
        raise ConfigError(
            "model.grow_batch=true needs a GPU, which says when its memory is full; on the CPU set model.batch_size."
        )
    if not math.isfinite(settings.model.guidance_scale):
        raise ConfigError(f"model.guidance_scale={settings.model.guidance_scale} is not a finite number.")
    last = settings.method.last_step
    if last is not None and last < settings.method.first_step:
        raise ConfigError(
            f"method.last_step={last} lies before method.first_step={settings.method.first_step}: "
            "no step would be steered."
        )
    steps, first = settings.model.num_steps, settings.method.first_step
    if first >= steps:
        raise ConfigError(f"method.first_step={first} lies beyond the last of {steps} steps (0-based).")
    start, count = settings.timesteps.start, settings.timesteps.count
    if not 0 <= start < 1:
        raise ConfigError(f"timesteps.start={start} must be a share of the denoising steps, from 0 up to but not 1.")
    if count is not None and count < 1:
        raise ConfigError(f"timesteps.count={count} must be at least 1, or null for every step.")
    if not 0 < settings.probe.test_share < 1:
        raise ConfigError(f"probe.test_share={settings.probe.test_share} must lie between 0 and 1.")
    if not settings.probe.C > 0 or not math.isfinite(settings.probe.C):
        raise ConfigError(f"probe.C={settings.probe.C} must be a positive, finite number.")
    _check_judges(settings)
    _check_attribute(settings.attribute)
    _check_shares(settings)
    _check_jobs(settings)
    _check_folders(settings)


def refuse_secrets(config: Any) -> None:
    """Refuse a key or token in a configuration, which logs, manifests and trackers would show; raises ConfigError."""
    where = find_secret(config)
    if where is not None:
        raise ConfigError(
            f"{where} holds a key, token or password. Leave it in the environment (HF_TOKEN, WANDB_API_KEY) or in the "
            "login of its tool; a setting of Hydra's own can refer to it as ${oc.env:NAME}."
        )


def _check_names(settings: Settings) -> None:
    drift = {f"evaluate.drift.{key}.name": other.name for key, other in settings.evaluate.drift.items()}
    for dotted, name in {"model.name": settings.model.name, "attribute.name": settings.attribute.name, **drift}.items():
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{dotted}={name} cannot be part of a folder's name. Use at most 64 letters, digits and _ - . +, "
                "beginning with a letter or digit."
            )


def _check_judges(settings: Settings) -> None:
    """Refuse the embedded world's judges for a model of another world, whose pictures they would judge all the same."""
    unjudged = settings.stage in UNJUDGED or settings.images is not None or settings.sweep is not None
    if unjudged or settings.model.path.startswith(EMBEDDED):
        return
    judges = {"labeler": settings.labeler, "judge": settings.judge, "evaluate.clip": settings.evaluate.clip}
    wrong = [name for name, judge in judges.items() if judge.path.startswith(EMBEDDED)]
    if wrong:
        found = ", ".join(f"{name}.path={judges[name].path}" for name in wrong)
        raise ConfigError(
            f"model.path={settings.model.path} would be judged by {found}, made for the embedded model's portraits and "
            f"nothing else. Add {' '.join(PHOTO_JUDGES[name] for name in wrong)} and an attribute of photographs "
            "(attribute=gender_photo), or begin with an experiment such as experiment=sdxl_gender. For a model that "
            "draws those portraits give the folders of the judges trained with it (labeler.path=/folder ...)."
        )


def _check_attribute(attribute: AttributeConfig) -> None:
    _check_options(attribute)
    prompts = {
        "probe_templates": attribute.probe_templates,
        "probe_subjects": attribute.probe_subjects,
        "evaluation_prompts": attribute.evaluation_prompts,
    }
    for name, texts in prompts.items():
        if not texts:
            raise ConfigError(f"attribute.{name} is empty: attribute {attribute.name!r} needs at least one prompt.")
        for text in texts:
            _check_text(f"attribute.{name}", text)
            if not text.strip():
                raise ConfigError(f"attribute.{name} contains an empty prompt.")
    repeated = [text for text, count in Counter(attribute.evaluation_prompts).items() if count > 1]
    if repeated:
        raise ConfigError(
            f"attribute.evaluation_prompts has {repeated[0]!r} more than once, and FD counts every prompt as another. "
            "Leave out what is repeated; evaluate.images_per_prompt makes more images of each."
        )
    for template in attribute.probe_templates:
        if "{}" not in template:
            raise ConfigError(f"Probe template {template!r} has no {{}} where the subject goes.")


def _check_options(attribute: AttributeConfig) -> None:
    if len(attribute.options) < 2:
        raise ConfigError(
            f"Attribute {attribute.name!r} has {len(attribute.options)} option(s) ({', '.join(attribute.options)}); "
            "a choice needs at least two. Add options to conf/attribute/<name>.yaml."
        )
    owners: dict[str, str] = {}
    for option, texts in attribute.options.items():
        for text in texts:
            _check_text(f"attribute.options.{option}", text)
        if not texts or not all(text.strip() for text in texts):
            raise ConfigError(f"Option {option!r} of attribute {attribute.name!r} has an empty label text.")
        for text in texts:
            if owners.setdefault(text, option) != option:
                raise ConfigError(
                    f"Options {owners[text]!r} and {option!r} of attribute {attribute.name!r} share the label text "
                    f"{text!r}; no judge could tell them apart."
                )


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise ConfigError(f"{name} contains {text!r}, which is no text: put a text with : or {{}} in quotes.")


def _check_shares(settings: Settings) -> None:
    shares = settings.method.target_shares
    if shares is None:
        return
    options = list(settings.attribute.options)
    if len(shares) != len(options):
        raise ConfigError(f"method.target_shares has {len(shares)} numbers for {len(options)} options: {options}.")
    if min(shares) < 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise ConfigError(f"method.target_shares={shares} must be non-negative and sum to 1 (sum {sum(shares):g}).")


def _check_jobs(settings: Settings) -> None:
    shards, shard, devices = settings.shards, settings.shard, settings.devices
    if shards < 1:
        raise ConfigError(f"shards={shards} must be at least 1.")
    if shard is not None and not 0 <= shard < shards:
        raise ConfigError(f"shard={shard} is none of the {shards} shards, which count from 0. Set shards=... as well.")
    if devices and shards > 1:
        raise ConfigError(f"devices={devices} and shards={shards} exclude each other: devices makes the shards itself.")
    if settings.force and (shards > 1 or devices):
        raise ConfigError(
            "force=true lets one job make everything again; several would undo each other's work. Delete the "
            "artifact's folder instead, or leave out shards and devices."
        )


def _check_folders(settings: Settings) -> None:
    images, reference, stage = settings.images, settings.reference, settings.stage
    if images is not None and stage not in ("label", "evaluate"):
        raise ConfigError(f"images={images} goes with stage=label and stage=evaluate, not with stage={stage}.")
    if reference is not None and (images is None or stage != "evaluate"):
        raise ConfigError(
            f"reference={reference} is the folder of unsteered twins and goes with stage=evaluate images=<folder>. The "
            "images that FID compares to are evaluate.reference."
        )
