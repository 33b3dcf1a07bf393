"""How often intervals cover the truth where only images are steered that do not show what they are to (least change).

    python benchmarks/cover.py --repetitions 20     # a check, a second or two a world
    python benchmarks/cover.py                      # the figures of docs/metrics.md, seconds a world

Worlds are planted: what images show, how often the labeler sees it, how often steering obeys, how sure the judge is.
The truth is the mean over many sets. Intervals are those of least change and, beside them, those of quotas.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.methods.assignment import least_change
from icm_pipeline.methods.sparing import least_changed, tried_options
from icm_pipeline.metrics.intervals import bootstrap_interval, paired_change
from icm_pipeline.metrics.least_change import Choosing

NUM_FOR_TRUTH = 1500  # sets of one prompt
NUM_RESAMPLES = 300


@dataclass(frozen=True)
class World:
    """What is planted."""

    num_images: int
    """Of a prompt."""
    shares: Sequence[float]
    """Of the options, unsteered."""
    sharpness: float
    """By how much the logit of what an image shows is larger."""
    obedience: float
    agreement: float
    """How often the labeler sees what is there; else it sees any option."""
    num_prompts: int = 4
    tries: int = 1
    """Of steering, for each image that has to change; of those that turned, by the labeler, any may change least."""

    def one_prompt(self, rng: np.random.Generator) -> tuple[Floats, Floats, Ints, Choosing]:
        """Return the judge's rows before and after [n, K], the options wanted [n] and by what they were chosen."""
        num_options, n = len(self.shares), self.num_images
        true = rng.choice(num_options, n, p=self.shares)
        labels, before = self._seen(rng, true, self.agreement), self._seen(rng, true, 1.0)
        exact = n / num_options
        bounds = (np.full(num_options, int(edge)) for edge in (np.floor(exact), np.ceil(exact)))
        wanted, shown = least_change(labels, *bounds, rng), labels.argmax(1)
        tried = wanted
        if self.tries > 1:
            tried = tried_options([0] * n, shown, wanted, self.tries, int(rng.integers(2**32)))
        turned = np.where(rng.random(n) < self.obedience, tried, true)
        after = self._seen(rng, np.where((tried < 0) | (tried == shown), true, turned), 1.0)
        trial = Choosing(shown)
        if self.tries > 1:
            seen = self._seen(rng, turned, self.agreement).argmax(1)
            wanted = least_changed([0] * n, shown, wanted, tried, seen == tried, rng.random(n))
            trial = Choosing(shown, np.where(tried == shown, -1, tried), seen == tried)
        after[wanted == shown] = before[wanted == shown]
        return before, after, wanted, trial

    def _seen(self, rng: np.random.Generator, labels: Ints, accuracy: float) -> Floats:
        n, num_options = len(labels), len(self.shares)
        shown = np.where(rng.random(n) < accuracy, labels, rng.integers(0, num_options, n))
        logits = rng.normal(0, 1, (n, num_options))
        logits[np.arange(n), shown] += self.sharpness
        rows: Floats = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return rows


WORLDS = (
    World(24, (0.8, 0.2), 6, 0.9, 0.97),
    World(96, (0.8, 0.2), 6, 0.9, 0.97),
    World(96, (0.8, 0.2), 4, 0.6, 0.9),
    World(24, (0.5, 0.5), 6, 0.6, 0.97),
    World(48, (0.6, 0.3, 0.1), 6, 0.7, 0.97),
    World(96, (0.7, 0.1, 0.1, 0.1), 6, 0.7, 0.95),
    World(24, (0.7, 0.1, 0.1, 0.1), 4, 0.9, 0.9),
    World(96, (0.8, 0.2), 6, 0.3, 0.97),  # steering that hardly obeys
    World(48, (0.4, 0.3, 0.2, 0.1), 6, 0.3, 0.95),
    World(96, (0.8, 0.2), 4, 0.6, 0.9, num_prompts=1),
    World(24, (0.8, 0.2), 8, 0.98, 1.0),  # hardly one fails
    World(96, (0.8, 0.2), 8, 0.995, 1.0),
    World(24, (0.6, 0.3, 0.1), 8, 0.98, 1.0),
    World(24, (0.8, 0.2), 6, 0.9, 0.97, tries=3),
    World(48, (0.8, 0.2), 6, 0.6, 0.97, tries=3),
    World(96, (0.8, 0.2), 6, 0.9, 0.97, tries=3),
    World(96, (0.8, 0.2), 4, 0.6, 0.9, tries=3),
    World(24, (0.6, 0.3, 0.1), 6, 0.9, 0.97, tries=3),
    World(48, (0.6, 0.3, 0.1), 6, 0.4, 0.97, tries=3),
    World(96, (0.6, 0.3, 0.1), 6, 0.7, 0.97, tries=3),
    World(96, (0.7, 0.1, 0.1, 0.1), 6, 0.7, 0.95, tries=3),
    World(24, (0.8, 0.2), 6, 0.3, 0.97, tries=3),
    World(96, (0.8, 0.2), 6, 0.3, 0.97, tries=3),
    World(96, (0.8, 0.2), 6, 0.3, 0.97, num_prompts=1, tries=3),
)


def cover(world: World, repetitions: int) -> dict[str, float]:
    """Return the share of repetitions in which each interval contains the truth, by its name."""
    rng, even = np.random.default_rng(0), 1 / len(world.shares)
    means = np.array([[rows.mean(0) for rows in world.one_prompt(rng)[:2]] for _ in range(NUM_FOR_TRUTH)]).mean(0)
    true_before, true_after = np.linalg.norm(means - even, axis=1)
    names = [str(prompt) for prompt in range(world.num_prompts) for _ in range(world.num_images)]
    found = dict.fromkeys(("FD", "FD by quotas", "change", "change by quotas"), 0)
    for _ in range(repetitions):
        parts = [world.one_prompt(rng) for _ in range(world.num_prompts)]
        before, after, wanted = (np.concatenate([part[place] for part in parts]) for place in range(3))
        for end, by in (("", _joined([part[3] for part in parts])), (" by quotas", None)):
            limits = bootstrap_interval(after, names, NUM_RESAMPLES, rng, strata=wanted, by=by)
            found["FD" + end] += _contains(limits, true_after)
            _, limits = paired_change(before, after, names, NUM_RESAMPLES, rng, strata=wanted, by=by)
            found["change" + end] += _contains(limits, true_after - true_before)
    return {name: count / repetitions for name, count in found.items()}


def _joined(parts: Sequence[Choosing]) -> Choosing:
    """Return by what the images of several prompts were chosen."""
    columns = [[getattr(part, name) for part in parts] for name in ("shown", "tried", "turned")]
    return Choosing(*(None if column[0] is None else np.concatenate(column) for column in columns))


def _contains(limits: tuple[float, float], value: float) -> bool:
    return limits[0] - 1e-9 <= value <= limits[1] + 1e-9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=100)
    for planted in WORLDS:
        shares = cover(planted, parser.parse_args().repetitions)
        print(planted, ", ".join(f"{name} {share:.1%}" for name, share in shares.items()), flush=True)
