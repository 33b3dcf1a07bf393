"""Two evaluated runs compared: FD of one less FD of the other, over the images that both have."""

import logging
from collections.abc import Sequence

import numpy as np

from icm_pipeline.arrays import Ints
from icm_pipeline.config.schema import Settings
from icm_pipeline.metrics.distributions import Target
from icm_pipeline.metrics.intervals import paired_change
from icm_pipeline.metrics.least_change import Choosing
from icm_pipeline.metrics.outcomes import one_hot_labels
from icm_pipeline.results.evaluation import Interval
from icm_pipeline.results.images import SteeredImage, read_steered
from icm_pipeline.results.steering import Steering
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.text import abbreviate, count_text

log = logging.getLogger(__name__)


def fd_less(settings: Settings, this: Artifact, other: Artifact, ways: tuple[Steering, Steering]) -> Interval | None:
    """Return the 95 % interval of another evaluation's FD less this one's, over pairs of images with one id.

    Images that only one of them has are left out, with a warning. None if the two were steered towards different
    shares, so that their FDs measure different things, or if a prompt has no pair that the judge could see.

    ways: how this one's and the other's images were steered.
    """
    shares, own = ways[0].target_shares, ways[0].shares_by_prompt
    if (ways[1].target_shares, ways[1].shares_by_prompt) != (shares, own):
        return None
    here, there = read_steered(this), read_steered(other)
    alone, ids = sorted(here.keys() ^ there.keys()), [image_id for image_id in here if image_id in there]
    if alone:
        what = f"{count_text(len(alone), 'image')} that only one of the two has: {abbreviate(alone)}"
        log.warning("%s beside this run: left out %s", other.folder.name, what)
    if not ids:
        return None
    pairs = [(here[image_id], there[image_id]) for image_id in ids]
    before, after = (np.array([image.shown for image in side]) for side in zip(*pairs, strict=True))
    if settings.evaluate.fd == "labels":
        before, after = one_hot_labels(before), one_hot_labels(after)
    strata, by = _strata(ways, pairs)
    prompts, rng = [image.prompt for image, _ in pairs], np.random.default_rng(settings.seed)
    target: Target | None = None if shares is None else np.array(shares)
    if own is not None:
        target = {prompt: np.array(each) for prompt, each in own.items()}
    num_resamples = settings.evaluate.bootstrap
    try:
        return paired_change(before, after, prompts, num_resamples, rng, target, strata=strata, by=by)[1]
    except ValueError as error:
        log.warning("%s beside this run: %s", other.folder.name, error)
        return None


def _strata(
    ways: tuple[Steering, Steering], pairs: Sequence[tuple[SteeredImage, SteeredImage]]
) -> tuple[Ints | None, Choosing | None]:
    """Return what both ways steered each image to [n] and by what that was chosen, None where that was not fixed."""
    rules = {way.assignment for way in ways}
    same = all((a.steered_to, a.was) == (b.steered_to, b.was) for a, b in pairs)
    if rules not in ({"quota"}, {"least_change"}) or not same:
        return None, None
    options = sorted({image.steered_to for image, _ in pairs} - {""})
    wanted = np.array([options.index(image.steered_to) if image.steered_to else -1 for image, _ in pairs])
    if rules == {"quota"}:
        return wanted, None
    return wanted, Choosing(np.array([options.index(image.was) if image.was in options else -1 for image, _ in pairs]))
