"""Settings that are well on their own and cannot work, or are not read, beside the others."""

import math
from collections.abc import Iterator
from itertools import chain

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.relevance import READ_BY_RULE
from icm_pipeline.config.schema import Settings


def check_combinations(settings: Settings) -> None:
    """Refuse settings that do not go together; raises ConfigError naming them and what to change."""
    for message in chain(_of_steering(settings), _of_running(settings), _of_files(settings)):
        raise ConfigError(message)


def _of_steering(settings: Settings) -> Iterator[str]:
    first, last, steps = settings.method.first_step, settings.method.last_step, settings.model.num_steps
    if last is not None and last < first:
        yield f"method.last_step={last} lies before method.first_step={first}: no step would be steered."
    if first >= steps:
        yield f"method.first_step={first} lies beyond the last of {steps} steps (0-based)."
    # Where the model's own window ends is meant for the model's own number of steps.
    if last is not None and last >= steps and last != settings.model.steering.last_step:
        yield (
            f"method.last_step={last} lies beyond the last of {steps} steps (0-based). To steer to the end: "
            "method.last_step=null."
        )
    layers = settings.layers
    if layers.names and "names" not in READ_BY_RULE[layers.rule]:  # k, which the model gives too, may always stand
        yield (
            f"layers.names=[{','.join(layers.names)}] are not read by layers.rule={layers.rule}. To steer them add "
            "layers=named, otherwise layers.names=[]."
        )
    shares, options = settings.method.target_shares, list(settings.attribute.options)
    if shares is not None and len(shares) != len(options):
        yield f"method.target_shares has {len(shares)} numbers for {len(options)} options: {options}."
    if shares is not None and (min(shares) < 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6)):
        yield f"method.target_shares={shares} must be non-negative and sum to 1 (sum {sum(shares):g})."
    yield from _of_shares_by_prompt(settings)
    yield from _of_least_change(settings)


def _of_shares_by_prompt(settings: Settings) -> Iterator[str]:
    shares, options = settings.method.shares_by_prompt, list(settings.attribute.options)
    source = "method.shares_by_prompt" if settings.method.shares_table is None else settings.method.shares_table
    if shares and settings.method.target_shares is not None:
        yield f"method.target_shares and {source} exclude each other: leave out one of them."
    missing = [prompt for prompt in settings.attribute.evaluation_prompts if prompt not in shares] if shares else []
    if missing and settings.images is None:
        yield f"{source} has no shares for {len(missing)} evaluation prompts, the first {missing[0]!r}."
    for prompt, own in shares.items():
        are_numbers = isinstance(own, list) and all(isinstance(share, float) for share in own)
        if not are_numbers or len(own) != len(options) or min(own) < 0 or not math.isclose(sum(own), 1.0, abs_tol=1e-6):
            yield (
                f"{source}: the shares of {prompt!r} are {own}; they must be {len(options)} numbers, one per option "
                f"({', '.join(options)}), non-negative and of sum 1."
            )


def _of_least_change(settings: Settings) -> Iterator[str]:
    method, steps = settings.method, settings.model.num_steps
    first, look, is_asked = method.first_step, method.look, method.assignment == "least_change"
    if look is not None and not is_asked:
        yield f"method.look={look} is read by method.assignment=least_change only, not by {method.assignment}."
    if method.tries > 1 and (look is not None or not is_asked):
        yield (
            f"method.tries={method.tries} is read by method.assignment=least_change only, and not with method.look, "
            "which is there to make fewer images. Set method.tries=1, or take method=look."
        )
    if isinstance(look, int) and look >= steps:
        yield f"method.look={look} leaves none of {steps} steps to steer: look after fewer."
    if isinstance(look, int) and look <= first:
        yield (
            f"method.look={look} ends before the first steered step, {first} (0-based), so an image would be read "
            "before it can change: look after more steps, or steer from an earlier one (method.first_step)."
        )
    number, shares = (
        settings.evaluate.images_per_prompt,
        method.target_shares or [1.0] * len(settings.attribute.options),
    )
    num_wanted = sum(share > 0 for share in shares)
    if is_asked and number < num_wanted:
        yield (
            f"evaluate.images_per_prompt={number} images cannot show {num_wanted} options: with "
            "method.assignment=least_change every prompt gets its shares. Make more images of each."
        )


def _of_running(settings: Settings) -> Iterator[str]:
    if settings.compute.grow_batch and settings.compute.device == "cpu":
        yield "compute.grow_batch=true needs a GPU, which says when its memory is full; set compute.batch_size."
    if settings.probe.solver == "scikit_learn" and settings.probe.device != "cpu":
        yield (
            f"probe.solver=scikit_learn computes on the CPU only, not on probe.device={settings.probe.device}. Set "
            "probe.device=cpu, or probe.solver=batched."
        )
    shards, shard, devices = settings.shards, settings.shard, settings.devices
    if shard is not None and not 0 <= shard < shards:
        yield f"shard={shard} is none of the {shards} shards, which count from 0. Set shards=... as well."
    if devices and shards > 1:
        yield f"devices={devices} and shards={shards} exclude each other: devices makes the shards itself."
    if settings.force and (shards > 1 or devices):
        yield (
            "force=true lets one job make everything again; several would undo each other's work. Delete the "
            "artifact's folder instead, or leave out shards and devices."
        )


def _of_files(settings: Settings) -> Iterator[str]:
    if settings.folders.table is not None and settings.folders.names:
        yield (
            f"folders.table={settings.folders.table} and folders.names exclude each other: beside a table no name is "
            "read. Leave out one of them; a table called images.csv is found without folders.table."
        )
    tracker = settings.tracker
    if tracker.name in ("csv", "tensorboard") and tracker.mode != "offline":  # beside none, an experiment's may stay
        yield (
            f"tracker.mode={tracker.mode} is read by tracker=wandb only; tracker={tracker.name} writes files, whatever "
            "the mode. Set tracker.mode=offline, or tracker=none to keep nothing."
        )
