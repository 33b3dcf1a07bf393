"""Recording and steering against plain generation on the embedded model: ratios with their spread, extra memory.

    python benchmarks/recording.py --small      # a check, seconds
    python benchmarks/recording.py              # 20 steps, batches of 16

Plain, recorded at every site, steered in four layers by hooks, and with the same shift folded into biases: in every
round one after the other in one process, each ratio to the plain run of the same round. Only the denoising loop is
timed; the copy of the recording to the CPU is part of it. benchmarks/full_size.py does it for large models on a GPU.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from timing import in_turns, load, machine, print_ratios, resident_mib

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.generation.jobs import Job, make_jobs
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder, Recording
from icm_pipeline.methods.folding import Folded, constant_shifts
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors

STRENGTH = Strength(1.0, "activation", 0, None, None)
NUM_STEERED = 4


def constant_vectors(recording: Recording, layers: list[str]) -> SteeringVectors:
    """Return random directions, the same at every step, so that they can be folded too."""
    steps = len(recording.steps)
    drawn = {layer: torch.randn(1, 2, recording.activations[layer].shape[2]) for layer in layers}
    return SteeringVectors(
        directions={
            layer: torch.nn.functional.normalize(values, dim=-1).expand(steps, -1, -1)
            for layer, values in drawn.items()
        },
        mean_norms={layer: torch.ones(steps) for layer in layers},
        steps=tuple(recording.steps), noise_levels=tuple(recording.noise_levels), options=("a", "b"), model="random",
        attribute="random",
    )  # fmt: skip


def record(backbone: Backbone, batch: int, num_steps: int) -> Recording:
    recorder = Recorder(list(range(num_steps)))
    with hooked(backbone, backbone.layers, recorder, batch):
        denoise(backbone, portraits(batch))
    return recorder.recording()


def portraits(batch: int) -> list[Job]:
    return make_jobs(["a portrait of a person"], batch, 0, "probe")


def ways(backbone: Backbone, batch: int, num_steps: int) -> dict[str, Callable[[], object]]:
    jobs = portraits(batch)
    attention = [site.layer for site in backbone.sites if site.kind == "self_attention"]
    steered = attention[:: max(1, len(attention) // NUM_STEERED)][:NUM_STEERED]
    vectors = constant_vectors(record(backbone, batch, num_steps), steered)
    shift = Shift(vectors, 0, STRENGTH)

    def within(context: Callable[[], AbstractContextManager[Any]]) -> Callable[[], object]:
        def run() -> None:
            with context():
                denoise(backbone, jobs)

        return run

    return {
        "plain": within(nullcontext),
        f"recorded at {len(backbone.sites)} sites": partial(record, backbone, batch, num_steps),
        f"steered in {len(vectors.layers)} layers": within(lambda: hooked(backbone, vectors.layers, shift, batch)),
        "the same shift folded": within(lambda: Folded(backbone, constant_shifts(vectors, 0, STRENGTH))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:tiny", help="an embedded model or a local pipeline folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--small", action="store_true", help="2 steps, batches of 2, 2 rounds")
    args = parser.parse_args()
    if args.small:
        args.steps, args.batch, args.rounds = 2, 2, 2
    backbone = load(args.model, args.steps, f"compute.device={args.device}")
    runs = ways(backbone, args.batch, args.steps)
    for run in runs.values():
        run()  # warms up
    seconds = in_turns(runs, args.rounds)
    print(f"{machine()}\n{args.model}, batch {args.batch}, {args.steps} steps, {args.rounds} rounds")
    print_ratios(seconds, "plain", "way")
    recording = record(backbone, args.batch, args.steps)
    mib = sum(pooled.nbytes for pooled in recording.activations.values()) / 2**20
    print(f"a recording takes {mib:.1f} MiB, twice that while it leaves, of the process's {resident_mib():.0f} MiB")


if __name__ == "__main__":
    main()
