"""Of the stages that are part of a run only where somebody asks: the audit's and the localizers'."""

from collections.abc import Iterable

from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.base import ACTIVATIONS

LEARNT = (ACTIVATIONS, "generate", "label")
NEEDED_BY_CLAIMS = {
    "separability": LEARNT, "kinds": LEARNT, "implicit": (*LEARNT, "named"), "stability": LEARNT,
    "causality": ("probe", "select", "originals", "steer", "causal", "push"),
    "changes": ("originals", "steer", "push"), "judge": ("originals", "steer"),
    "confirmation": ("select", "originals", "steer"),
}  # fmt: skip


def activations(settings: Settings) -> str:
    return "generate" if settings.generate.record else "extract"


def made(settings: Settings, names: Iterable[str]) -> tuple[str, ...]:
    """Return stages once each, with the one that holds pooled activations in the place of `activations`."""
    return tuple(dict.fromkeys(activations(settings) if name == ACTIVATIONS else name for name in names))


def is_audited(settings: Settings, stage: str) -> bool:
    """Say whether a stage of the audit is asked for, itself or by the claims to check."""
    is_asked = settings.audit.included or settings.stage == "audit"
    asked = {settings.stage, *(("audit", *needed_by_audit(settings)) if is_asked else ())}
    return settings.images is None and stage in asked


def is_pushed_alone(settings: Settings) -> bool:
    """Say whether each layer is pushed alone: to rank them, for an audit, or to hold other localizers against."""
    return is_ranked_by_effect(settings) or is_audited(settings, "causal") or settings.localizers.causal


def is_asked(settings: Settings, localizer: str) -> bool:
    """Say whether one of LOCALIZING is asked for: itself, or by what stage=all does besides."""
    of, withheld = settings.localizers, settings.localizers.intervention
    asked = {"inject": of.injection, "contribution": of.contribution or withheld, "withhold": withheld}
    by_all = asked.get(localizer, any(asked.values()))
    return settings.images is None and (by_all or settings.stage == localizer)


def localized(settings: Settings) -> tuple[str, ...]:
    """Return the probes, and what they are held against."""
    others = (name for name in ("inject", "contribution", "withhold") if is_asked(settings, name))
    return ("probe", *others, *(["causal"] * is_pushed_alone(settings)))


def is_ranked_by_effect(settings: Settings) -> bool:
    """Say whether layers are ranked by what pushing each alone does."""
    return settings.layers.rule == "causal"


def needed_by_audit(settings: Settings) -> tuple[str, ...]:
    stages = [stage for claims in settings.audit.asked for stage in NEEDED_BY_CLAIMS[claims]]
    return made(settings, [stage for stage in stages if stage != "named" or settings.attribute.named])


def asked_by_audit(settings: Settings) -> tuple[str, ...]:
    """Return the judges that the claims ask: none, where all read activations alone."""
    claims = settings.audit.asked
    judge = ("judge",) if any("originals" in NEEDED_BY_CLAIMS[name] for name in claims) else ()
    return (*judge, "labeler") if "judge" in claims else judge


def devices_of_audit(settings: Settings) -> tuple[str, ...]:
    places = {"judge": ("judge.device", "evaluate.clip.device"), "labeler": ("labeler.device",)}
    judging = [place for judge in asked_by_audit(settings) for place in places[judge]]
    return (*judging, "probe.device") if "label" in needed_by_audit(settings) else tuple(judging)


def sized(settings: Settings, *names: str) -> tuple[str, ...]:
    return tuple(f"audit.sizes.{settings.audit.size}.{name}" for name in names)
