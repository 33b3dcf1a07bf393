"""What a setting may be on its own: one of some choices, or a number within bounds."""

import math
from dataclasses import dataclass
from operator import attrgetter

from icm_pipeline.config.choices import ASSIGNMENTS, DIRECTIONS, DTYPES, FACES, JUDGES, RULES, SITE_KINDS, SOLVERS
from icm_pipeline.config.schema import ConfigError, Settings

CHOICES: dict[str, tuple[str, ...]] = {
    "layers.rule": RULES,
    "layers.kind": SITE_KINDS,
    "probe.solver": SOLVERS,
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


@dataclass(frozen=True)
class Bounds:
    """Which numbers a setting may be; `above` and `below` are themselves excluded. null: what null stands for.

    Without any of them every finite number will do; null is none unless it stands for something.
    """

    least: int | None = None
    above: int | None = None
    most: int | None = None
    below: int | None = None
    null: str | None = None

    def admit(self, value: float | None) -> bool:
        """Say whether a setting may have a value."""
        if value is None:
            return self.null is not None
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {"at least": self.least, "more than": self.above, "at most": self.most, "less than": self.below}
        said = " and ".join(f"{words} {limit}" for words, limit in limits.items() if limit is not None)
        return f"{said or 'a finite number'}" + (f", or null for {self.null}" if self.null else "")


# The most that the random generator of KID's subsets takes; jobs' own seeds, two million for each, stay below 2**63.
SEEDS = Bounds(least=0, most=2**32 - 1)
COUNT = Bounds(least=1)
BOUNDS: dict[str, Bounds] = {
    "seed": SEEDS,
    "alpha": Bounds(),
    "shards": COUNT,
    "model.num_steps": COUNT,
    "model.guidance_scale": Bounds(),
    "model.batch_size": COUNT,
    "model.decode_batch_size": Bounds(least=1, null="the whole batch"),
    "model.num_threads": Bounds(least=1, null="torch's own choice"),
    "timesteps.start": Bounds(least=0, below=1),  # a share of the steps
    "timesteps.count": Bounds(least=1, null="every step"),
    "layers.k": COUNT,
    "layers.seed": SEEDS,
    "labeler.batch_size": COUNT,
    "judge.batch_size": COUNT,
    "method.draw_size": COUNT,
    "method.first_step": Bounds(least=0),
    "method.last_step": Bounds(least=0, null="the end"),
    "generate.images_per_prompt": COUNT,
    "generate.shard_size": COUNT,
    "probe.C": Bounds(above=0),
    "probe.max_iter": COUNT,
    "probe.test_share": Bounds(above=0, below=1),
    "probe.min_per_option": Bounds(least=2),
    "evaluate.images_per_prompt": COUNT,
    "evaluate.bootstrap": COUNT,
    "evaluate.clip.batch_size": COUNT,
    "plan.seconds_per_image": Bounds(above=0, null="what finished artifacts took"),
    "pretrain.num_portraits": COUNT,
    "pretrain.num_held_out": COUNT,
    "pretrain.num_quality_images": COUNT,
}
# Mappings from each part that is trained to a number.
BOUNDS_BY_PART: dict[str, Bounds] = {
    "pretrain.steps": COUNT,
    "pretrain.batch_sizes": COUNT,
    "pretrain.learning_rates": Bounds(above=0),
}


def check_values(settings: Settings) -> None:
    """Refuse a value that its setting may never have; raises ConfigError naming it and what it may be."""
    for dotted, choices in CHOICES.items():
        found = attrgetter(dotted)(settings)
        if found not in choices:
            raise ConfigError(f"{dotted}={found} is not known. Choose one of: {', '.join(choices)}.")
    for dotted, bounds in BOUNDS.items():
        _check_number(dotted, attrgetter(dotted)(settings), bounds)
    for dotted, bounds in BOUNDS_BY_PART.items():
        for part, value in attrgetter(dotted)(settings).items():
            _check_number(f"{dotted}.{part}", value, bounds)


def _check_number(dotted: str, value: float | None, bounds: Bounds) -> None:
    if not bounds.admit(value):
        raise ConfigError(f"{dotted}={value} must be {bounds}.")
