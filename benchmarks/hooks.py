"""The host's time per recorded and per steered layer and step, where arithmetic is next to nothing.

    python benchmarks/hooks.py                          # this build
    python benchmarks/hooks.py --against ../before/src  # and another checkout's, in turns, with the ratio

A UNet with the layers of SDXL (70 self-attention, 70 cross-attention, 70 feed-forward) is a few channels wide, so a
step costs what Python and torch's dispatch cost: on a GPU that waits for its host this time is lost. Each build runs in
a process of its own, on one core. As such a machine changes its speed within seconds, a round is a plain run, one in
the context and a plain one again, and of each run the median call of the denoiser counts, from the third on: what it
takes beyond a plain one's, divided by the layers. What a whole run of one step takes beyond a plain one is of a call of
the pipeline: attaching, registering, a first call of every layer, bringing back.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

FEW = 20  # layers whose time is lost among a step's
STEPS, SETTLED = 8, 2  # the first calls find out what holds for all others
WAYS = ("recorded", "steered", "steered in 6")


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

    def recorded(num_steps: int) -> None:
        with record(pipe) as seen:
            run(num_steps)
        assert seen.recordings

    def steered(among: list[str], num_steps: int) -> None:
        with steer(pipe, vectors, option="a", alpha=1.0, layers=among):
            run(num_steps)

    ways: dict[str, tuple[Callable[[int], None], int]] = {
        "recorded": (recorded, len(recording.kinds)),
        "steered": (partial(steered, layers), len(layers)),
        "steered in 6": (partial(steered, layers[:6]), 6),
    }
    calls, forward = list[float](), type(pipe.unet).forward

    @wraps(forward)
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.thread_time()
        result = forward(*args, **kwargs)
        calls.append(time.thread_time() - started)
        return result

    def beyond(way: Callable[[int], None], num_steps: int) -> tuple[float, float]:
        """Return what a whole run takes beyond a plain one, and what a settled call of the denoiser does."""
        wholes, settled = list[float](), list[float]()
        for work in (run, way, run):
            calls.clear()
            started = time.thread_time()
            work(num_steps)
            wholes.append(time.thread_time() - started)
            settled.append(statistics.median(calls[min(SETTLED, num_steps - 1) :]))
        return wholes[1] - (wholes[0] + wholes[2]) / 2, settled[1] - (settled[0] + settled[2]) / 2

    type(pipe.unet).forward = timed
    with torch.inference_mode():
        print(*(count for _, count in ways.values()), flush=True)
        for line in sys.stdin:
            way, count = ways[line.strip()]
            print(beyond(way, STEPS)[1] / count, beyond(way, 1)[0], flush=True)


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
    print("| way | layers | build | us a layer and step | ms a call of one step |\n|---|---|---|---|---|")
    for way in WAYS:
        of_layers, of_calls = (
            {name: statistics.median(getattr(build, times)[way]) for name, build in builds.items()}
            for times in ("layers", "calls")
        )
        count = builds["here"].counts[way]
        told = count > FEW
        for name in builds:
            print(f"| {way} | {count} | {name} | {f'{of_layers[name]:.2f}' if told else ''} | {of_calls[name]:.1f} |")
        if args.against:
            a_layer = f"{of_layers['here'] / of_layers['before']:.3f}" if told else ""
            print(f"| {way} | | here / before | {a_layer} | {of_calls['here'] / of_calls['before']:.3f} |")


if __name__ == "__main__":
    main()
