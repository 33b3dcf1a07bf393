"""How many probes an audit fits, told before there are any: for `stage=plan`."""

from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.claims import implicit, separability, stability
from icm_pipeline.evaluation.claims.readings import CROSS, FEED_FORWARD, SELF
from icm_pipeline.generation.jobs import audited_steps, probe_jobs


def num_fits(settings: Settings, outline: OutlineConfig) -> int:
    """Return how many probes the claims that were asked for fit, if every image shows an option.

    One probe tells all options of one layer at one step on one split.
    """
    size, asked, chosen = settings.audit.chosen, settings.audit.asked, settings.layers
    counts = outline.num_layers
    widths = {width for kind in (SELF, CROSS, FEED_FORWARD) for width, _ in outline.widths.get(kind, [])}
    everywhere, folds = sum(counts.values()), max(2, round(1 / settings.probe.test_share))
    splits = -(-size.num_splits // folds) * folds
    fits = {
        "new prompts": splits * everywhere * bool({"separability", "kinds", "stability"} & {*asked}),
        "separability": (2 * splits + 2 * size.num_shuffles * separability.NULL_FOLDS) * everywhere,
        "kinds": splits * sum(counts.get(kind, 0) for kind in (SELF, CROSS, FEED_FORWARD)) * (len(widths) > 1),
    }
    of_kind = everywhere if chosen.kind == "mixed" else counts.get(chosen.kind, 0)
    if of_kind > chosen.k:
        parts = [part for part in stability.PARTS if len(probe_jobs(settings)) // part >= stability.FEWEST]
        fits["stability"] = 2 * folds * of_kind * (size.num_splits + stability.PAIRS * len(parts))
    named = bool(settings.attribute.named)
    if counts.get(SELF) and counts.get(CROSS):
        controls = len(implicit.CONTROLS) if named else 1
        fits["implicit"] = 2 * controls * splits * (counts[SELF] + counts[CROSS])
    fits["implicit"] = fits.get("implicit", 0) + splits * everywhere * named
    return len(audited_steps(settings)) * sum(fits.get(name, 0) for name in ("new prompts", *asked))
