"""How cost grows: time and memory of probing, recording and generation against images, layers, steps and options.

    python benchmarks/growth.py --small      # a check, seconds; draws into the system's temporary folder
    python benchmarks/growth.py              # under four minutes on two cores; draws docs/growth.png

From one base case, one quantity at a time is made larger. The exponent is the slope of the least-squares line through
the logarithms: 1 is in proportion, 0 is not at all. Times are the fastest of several rounds. Probing is the stage's
work on synthetic activations, reading included; recording and generation run the embedded model, in batches, decoding
included. Memory is the process's peak above what it had before, for recording the buffers that are kept.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from probes import fit_here, make_files
from timing import load, machine, peak_mib, timed

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.generation.jobs import make_jobs
from icm_pipeline.generation.sampling import batches, decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder, Recording
from icm_pipeline.localization.probes import split_samples
from icm_pipeline.machine.threads import num_cores
from icm_pipeline.report.figures.style import figure

MIB = 2**20
COLORS = {"images": "#0072b2", "layers": "#d55e00", "steps": "#009e73", "options": "#cc79a7"}
FLAT_SHARE = 0.02  # of a largest value: below it there is nothing to take a logarithm of


@dataclass(frozen=True)
class Case:
    """How much there is of everything."""

    images: int
    layers: int
    steps: int
    options: int = 2


@dataclass(frozen=True)
class Cost:
    seconds: float
    mib: float


Measure = Callable[[Case, int], Cost]


def probing(width: int, folder: Path) -> Measure:
    """Return what measures the probes' stage on files of this width."""

    def measure(case: Case, rounds: int) -> Cost:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            args = argparse.Namespace(**vars(case), C=1.0, device="cpu")
            names, labels = make_files(Path(place), args, width)
            split = split_samples(labels, 0.2, np.random.default_rng(0))

            def fit() -> None:
                fit_here(Path(place), names, labels, split, args)

            fit()  # warms up
            mib = peak_mib(fit)
            return Cost(min(timed(fit) for _ in range(rounds)), mib)

    return measure


def generating(backbone: Backbone, batch_size: int) -> Measure:
    def measure(case: Case, rounds: int) -> Cost:
        def work() -> None:
            run(backbone, case, batch_size, record=False)

        mib = peak_mib(work)
        return Cost(min(timed(work) for _ in range(rounds)), mib)

    return measure


def recording(backbone: Backbone, batch_size: int) -> Measure:
    def measure(case: Case, rounds: int) -> Cost:
        kept: list[Recording] = []
        seconds = [timed(lambda: kept.extend(run(backbone, case, batch_size, record=True))) for _ in range(rounds)]
        tensors = [values for batch in kept for values in batch.activations.values()]
        return Cost(min(seconds), sum(tensor.nbytes for tensor in tensors) / rounds / MIB)

    return measure


def run(backbone: Backbone, case: Case, batch_size: int, record: bool) -> list[Recording]:
    """Make a case's images in batches; with `record` return what was recorded at its first layers, every step."""
    assert backbone.sampling is not None
    backbone = replace(backbone, sampling=replace(backbone.sampling, num_steps=case.steps))
    recordings = []
    for jobs in batches(make_jobs(["a portrait of a person"], case.images, 0, "probe"), batch_size):
        recorder = Recorder(list(range(case.steps)))
        with hooked(backbone, backbone.layers[: case.layers] if record else [], recorder, len(jobs)):
            latents = denoise(backbone, jobs)
        decode(backbone, jobs, latents)
        recordings += [recorder.recording()] if record else []
    return recordings


def exponent(sizes: list[int], values: list[float]) -> float:
    """Return b of values ~ sizes ** b; NaN if a value is next to nothing, as memory that is not used."""
    if min(values) <= FLAT_SHARE * max(values):
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def vary(measure: Measure, base: Case, over: dict[str, list[int]], rounds: int) -> dict[str, dict[int, Cost]]:
    """Return the cost of every size of each quantity, the others as in the base case."""
    known: dict[Case, Cost] = {}
    found: dict[str, dict[int, Cost]] = {}
    for quantity, sizes in over.items():
        cases = {size: replace(base, **{quantity: size}) for size in sizes}
        for case in cases.values():
            if case not in known:
                known[case] = measure(case, rounds)
        found[quantity] = {size: known[case] for size, case in cases.items()}
    return found


def print_growth(name: str, found: dict[str, dict[int, Cost]]) -> None:
    for quantity, costs in found.items():
        for unit, form in (("seconds", ".2f"), ("mib", ".1f")):
            values = [getattr(cost, unit) for cost in costs.values()]
            cells = ", ".join(f"{size}: {value:{form}}" for size, value in zip(costs, values, strict=True))
            print(f"| {name} | {quantity} | {unit} | {cells} | {exponent(list(costs), values):.2f} |", flush=True)


def draw(path: Path, found: dict[str, dict[str, dict[int, Cost]]], bases: dict[str, Case]) -> None:
    """Draw cost as multiples of the base case's, a column for each work, time above memory; the dots are proportion."""
    units = {"seconds": "time", "mib": "memory"}
    with figure(path, (7.2, 4.2), 2, len(found), sharex=True, sharey="row") as (_, axes):
        for column, (name, quantities) in enumerate(found.items()):
            for axis, (unit, title) in zip(axes[:, column], units.items(), strict=True):
                axis.set_xscale("log", base=2)
                axis.set_yscale("log", base=2)
                for quantity, costs in quantities.items():
                    start = getattr(bases[name], quantity)
                    values = [getattr(cost, unit) for cost in costs.values()]
                    slope = exponent(list(costs), values)
                    first = getattr(costs[start], unit)
                    if np.isnan(slope) or first <= 0:
                        continue
                    axis.plot(
                        [size / start for size in costs], [value / first for value in values], "o-", ms=3.5, lw=1.3,
                        color=COLORS[quantity], label=f"{quantity} {slope:.2f}",
                    )  # fmt: skip
                ends = np.array(axis.get_xlim())
                axis.plot(ends, ends, ":", color="black", lw=0.8, zorder=0)
                axis.set_xlim(ends)
                axis.legend(frameon=False, fontsize=7, title="exponent", title_fontsize=7, loc="upper left")
                for side in (axis.xaxis, axis.yaxis):
                    side.set_major_formatter(lambda value, _: f"{value:g}")
                if column == 0:
                    axis.set_ylabel(f"{title}, base = 1")
            axes[0, column].set_title(name)
            axes[-1, column].set_xlabel("how much of it, base = 1")
        for axis in axes[:, 0]:
            axis.set_ylim(top=3 * axis.get_ylim()[1])  # room for the legends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:tiny", help="an embedded model or a local pipeline folder")
    parser.add_argument("--width", type=int, default=320, help="of the synthetic activations")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=num_cores(), help="of the embedded model")
    parser.add_argument("--figure", type=Path, help="where to draw; docs/growth.png by default")
    parser.add_argument("--folder", type=Path, help="for activations; the system's temporary folder by default")
    parser.add_argument("--small", action="store_true", help="two sizes of everything, one round")
    args = parser.parse_args()
    target = args.figure or Path(__file__).resolve().parents[1] / "docs" / "growth.png"
    probed, drawn, batch_size = Case(400, 8, 20), Case(16, 36, 20), 8
    over: dict[str, dict[str, list[int]]] = {
        "probing": {
            "images": [100, 200, 400, 800], "layers": [4, 8, 16, 32], "steps": [10, 20, 40, 80], "options": [2, 4, 8],
        },
        "recording": {"images": [8, 16, 32], "layers": [9, 18, 36], "steps": [10, 20, 40]},
        "generation": {"images": [8, 16, 32], "steps": [10, 20, 40]},
    }  # fmt: skip
    if args.small:
        args.width, args.rounds = 32, 1
        target = args.figure or Path(tempfile.gettempdir()) / "growth.png"
        probed, drawn, batch_size = Case(60, 2, 4), Case(1, 18, 1), 2
        over = {
            "probing": {"images": [60, 120], "layers": [2, 4], "steps": [4, 8], "options": [2, 4]},
            "recording": {"images": [1, 2], "layers": [18, 36], "steps": [1, 2]},
            "generation": {"images": [1, 2], "steps": [1, 2]},
        }
    backbone = load(args.model, drawn.steps)
    torch.set_num_threads(args.threads)
    run(backbone, replace(drawn, images=1), 1, record=True)  # warms up
    measures: dict[str, Measure] = {
        "probing": probing(args.width, args.folder or Path(tempfile.gettempdir())),
        "recording": recording(backbone, batch_size),
        "generation": generating(backbone, batch_size),
    }
    bases = {"probing": probed, "recording": drawn, "generation": drawn}
    print(f"{machine()}\nactivations of width {args.width}; {args.model} in batches of {batch_size}")
    print("\n| work | varied | unit | size: value | exponent |\n|---|---|---|---|---|")
    found: dict[str, dict[str, dict[int, Cost]]] = {}
    for name, measure in measures.items():
        found[name] = vary(measure, bases[name], over[name], args.rounds)
        print_growth(name, found[name])
    draw(target, found, bases)
    print(f"\n{target}")


if __name__ == "__main__":
    main()
