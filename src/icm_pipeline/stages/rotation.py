"""Which evaluation images each arm of an experiment has: the next few, round and round, until all had their turn.

Arms of the same few images would share the luck that these few have at the selected layers, and no number of arms would
make up for it.
"""

from dataclasses import dataclass

import numpy as np

from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, evaluation_jobs
from icm_pipeline.methods.assignment import assign_options, target_shares
from icm_pipeline.pipeline.table import is_least_change


@dataclass(frozen=True)
class Rotation:
    """Evaluation images in the order in which arms take them."""

    jobs: list[Job]
    options: list[int]
    """The index of what each is pushed to."""

    def stretch(self, first: int, count: int) -> "Rotation":
        """Return so many images from one on, beginning again after the last; no image twice."""
        places = [(first + step) % len(self.jobs) for step in range(min(count, len(self.jobs)))]
        return Rotation([self.jobs[place] for place in places], [self.options[place] for place in places])


def rotation(settings: Settings) -> Rotation:
    """Return all evaluation images, so that any stretch has its share of every prompt's images of every option.

    Options are the run's own; by quotas where that would go by what images show.
    """
    jobs, method, rng = evaluation_jobs(settings), settings.method, np.random.default_rng(settings.seed)
    prompts, shares = [job.prompt_index for job in jobs], target_shares(settings)
    how = "quota" if is_least_change(settings) else method.assignment
    options = assign_options(prompts, shares, how, method.draw_size, settings.seed)
    strata, places = np.array(prompts) * len(shares) + options, np.empty(len(jobs))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        places[rng.permutation(members)] = (np.arange(len(members)) + rng.random()) / len(members)
    order = np.argsort(places)
    return Rotation([jobs[index] for index in order], [int(options[index]) for index in order])
