"""Two evaluated runs compared: FD of one less FD of the other, over the images that both have."""

import logging

import numpy as np

from icm_pipeline.config.schema import Settings
from icm_pipeline.metrics.intervals import paired_change
from icm_pipeline.metrics.outcomes import one_hot_labels
from icm_pipeline.results.evaluation import Interval
from icm_pipeline.results.images import read_steered
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
    shares = ways[0].target_shares
    if ways[1].target_shares != shares:
        return None
    both = [read_steered(artifact) for artifact in (this, other)]
    alone = sorted(both[0].keys() ^ both[1].keys())
    if alone:
        what = f"{count_text(len(alone), 'image')} that only one of the two has: {abbreviate(alone)}"
        log.warning("%s beside this run: left out %s", other.folder.name, what)
    ids = [image_id for image_id in both[0] if image_id in both[1]]
    if not ids:
        return None
    shown = [np.array([images[image_id].shown for image_id in ids]) for images in both]
    before, after = map(one_hot_labels, shown) if settings.evaluate.fd == "labels" else shown
    wanted, others = ([images[image_id].steered_to for image_id in ids] for images in both)
    fixed = wanted == others and all(way.assignment == "quota" for way in ways)
    try:
        return paired_change(
            before,
            after,
            [both[0][image_id].prompt for image_id in ids],
            settings.evaluate.bootstrap,
            np.random.default_rng(settings.seed),
            None if shares is None else np.array(shares),
            strata=np.unique(wanted, return_inverse=True)[1] if fixed else None,
        )[1]
    except ValueError as error:
        log.warning("%s beside this run: %s", other.folder.name, error)
        return None
