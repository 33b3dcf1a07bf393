"""The host's time per recorded and per steered layer and step, where arithmetic is next to nothing.

    python benchmarks/hooks.py                          # this build
    python benchmarks/hooks.py --against ../before/src  # and another checkout's, in turns, with the ratio

A UNet with the layers of SDXL (70 self-attention, 70 cross-attention, 70 feed-forward) is a few channels wide, so a
step costs what Python and torch's dispatch cost: on a GPU that waits for its host this time is lost. Each build runs in
a process of its own, on one core. A round takes CPU times of its thread one right after the other, as such a machine
changes its speed within seconds: of a short and a long run, plain and not. What the long run takes beyond the short one
is divided by layers and steps; what the short one takes beyond that (attaching, registering, bringing back) is of a
call.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHORT, STEPS = 1, 8
WAYS = ("recorded", "steered")


def worker() -> None:
    """Answer every way named on stdin with the seconds of a layer and step, and of a call beside them."""
    import torch
    from full_size import sdxl

    from icm_pipeline import SteeringVectors, record, steer

    torch.set_num_threads(1)
    torch.manual_seed(0)

    def few(*shape: int) -> torch.Tensor:
        return torch.randn(2, *(min(size, 8) for size in shape))

    pipe, embeds = sdxl(
        few, sample_size=8, block_out_channels=(8, 8, 8), norm_num_groups=4, attention_head_dim=(1, 1, 1),
        text_width=8, pooled_width=8,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)

    def run(num_steps: int = STEPS) -> None:
        pipe(**embeds, height=64, width=64, num_inference_steps=num_steps, output_type="latent")

    with record(pipe) as seen:
        run()
    recording = seen.recordings[0]
    layers = [layer for layer, kind in recording.kinds.items() if kind == "self_attention"]
    vectors = SteeringVectors(
        directions={layer: torch.nn.functional.normalize(torch.randn(STEPS, 2, 8), dim=-1) for layer in layers},
        mean_norms={layer: torch.ones(STEPS) for layer in layers},
        steps=tuple(recording.steps), noise_levels=tuple(recording.noise_levels), options=("a", "b"), model="random",
        attribute="random",
    )  # fmt: skip

    def recorded(num_steps: int = STEPS) -> None:
        with record(pipe) as seen:
            run(num_steps)
        assert seen.recordings

    def steered(num_steps: int = STEPS) -> None:
        with steer(pipe, vectors, option="a", alpha=1.0):
            run(num_steps)

    ways: dict[str, tuple[Callable[[int], Any], int]] = {
        "recorded": (recorded, len(recording.kinds)), "steered": (steered, len(layers)),
    }  # fmt: skip
    with torch.inference_mode():
        print(*(count for _, count in ways.values()), flush=True)
        for line in sys.stdin:
            way, count = ways[line.strip()]
            beyond = {steps: _seconds(way, steps) - _seconds(run, steps) for steps in (STEPS, SHORT)}
            a_layer = (beyond[STEPS] - beyond[SHORT]) / (STEPS - SHORT) / count
            print(a_layer, beyond[SHORT] - SHORT * count * a_layer, flush=True)


def _seconds(work: Callable[[int], Any], num_steps: int) -> float:
    started = time.thread_time()
    work(num_steps)
    return time.thread_time() - started


class Build:
    """A process that runs one checkout."""

    def __init__(self, source: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.counts = dict(zip(WAYS, map(int, self._answer().split()), strict=True))
        self.layers: dict[str, list[float]] = {way: [] for way in WAYS}
        self.calls: dict[str, list[float]] = {way: [] for way in WAYS}

    def _answer(self) -> str:
        assert self._process.stdout
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("A build stopped: see its message above.")
        return answer

    def run(self, way: str) -> None:
        assert self._process.stdin
        print(way, file=self._process.stdin, flush=True)
        a_layer, a_call = map(float, self._answer().split())
        self.layers[way].append(1e6 * a_layer)
        self.calls[way].append(1e3 * a_call)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="the src folder of another checkout")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker()
        return
    sources = {"here": Path(__file__).parents[1] / "src"} | ({"before": args.against} if args.against else {})
    builds = {name: Build(source.resolve()) for name, source in sources.items()}
    for number in range(args.rounds):
        for way in WAYS:
            for build in list(builds.values())[:: 1 if number % 2 else -1]:
                build.run(way)
    print("| way | layers | build | us a layer and step | ms a call |\n|---|---|---|---|---|")
    for way in WAYS:
        for name, build in builds.items():
            times = f"{statistics.median(build.layers[way]):.2f} | {statistics.median(build.calls[way]):.1f}"
            print(f"| {way} | {build.counts[way]} | {name} | {times} |")
        if args.against:
            here, before = (statistics.median(build.layers[way]) for build in builds.values())
            print(f"| {way} | | here / before | {here / before:.3f} | |")


if __name__ == "__main__":
    main()
