"""Settings that are well on their own and cannot work, or are not read, beside the others."""

import math

from icm_pipeline.config.relevance import READ_BY_RULE
from icm_pipeline.config.schema import ConfigError, Settings


def check_combinations(settings: Settings) -> None:
    """Refuse settings that do not go together; raises ConfigError naming them and what to change."""
    _check_batch(settings)
    _check_window(settings)
    _check_layers(settings)
    _check_solver(settings)
    _check_shares(settings)
    _check_jobs(settings)
    _check_folders(settings)
    _check_tracker(settings)


def _check_batch(settings: Settings) -> None:
    if settings.compute.grow_batch and settings.compute.device == "cpu":
        raise ConfigError(
            "compute.grow_batch=true needs a GPU, which says when its memory is full; set compute.batch_size."
        )


def _check_window(settings: Settings) -> None:
    """Refuse a window of steered steps that is empty or ends beyond the last step.

    Unless it ends where the model's own does: that is meant for the model's own number of steps.
    """
    first, last, steps = settings.method.first_step, settings.method.last_step, settings.model.num_steps
    if last is not None and last < first:
        raise ConfigError(f"method.last_step={last} lies before method.first_step={first}: no step would be steered.")
    if first >= steps:
        raise ConfigError(f"method.first_step={first} lies beyond the last of {steps} steps (0-based).")
    if last is not None and last >= steps and last != settings.model.steering.last_step:
        raise ConfigError(
            f"method.last_step={last} lies beyond the last of {steps} steps (0-based). To steer to the end: "
            "method.last_step=null."
        )


def _check_layers(settings: Settings) -> None:
    """Refuse names that the rule does not read. k, which the model gives too, may stand beside every rule."""
    layers = settings.layers
    if layers.names and "names" not in READ_BY_RULE[layers.rule]:
        raise ConfigError(
            f"layers.names=[{','.join(layers.names)}] are not read by layers.rule={layers.rule}. To steer them add "
            "layers=named, otherwise layers.names=[]."
        )


def _check_solver(settings: Settings) -> None:
    if settings.probe.solver == "scikit_learn" and settings.probe.device != "cpu":
        raise ConfigError(
            f"probe.solver=scikit_learn computes on the CPU only, not on probe.device={settings.probe.device}. Set "
            "probe.device=cpu, or probe.solver=batched."
        )


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
    if settings.folders.table is not None and settings.folders.names:
        raise ConfigError(
            f"folders.table={settings.folders.table} and folders.names exclude each other: beside a table no name is "
            "read. Leave out one of them; a table called images.csv is found without folders.table."
        )


def _check_tracker(settings: Settings) -> None:
    """Refuse a mode that trackers of files do not read. With tracker=none a mode that an experiment sets may stay."""
    tracker = settings.tracker
    if tracker.name in ("csv", "tensorboard") and tracker.mode != "offline":
        raise ConfigError(
            f"tracker.mode={tracker.mode} is read by tracker=wandb only; tracker={tracker.name} writes files, whatever "
            "the mode. Set tracker.mode=offline, or tracker=none to keep nothing."
        )
