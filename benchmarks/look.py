"""What it costs to look first: steer(shares=, look=) beside plain generation and steering every image.

    python benchmarks/look.py --small                       # a check, under a minute
    python benchmarks/look.py                               # the embedded model, 16 images, looks of 3, 6 and 8 steps
    python benchmarks/look.py --model tiny_sana --attribute age
    python benchmarks/look.py --vectors vectors.safetensors # with readers that are there already

Without --vectors, as many images as --fit says are made and labeled first, for directions and readers. Every way makes
the same images from prompt to pixels, in every round one after the other in one process; each ratio is to plain
generation of the same round, on the CPU in processor time, which others on the machine disturb less. What is expected
is 1 + share of steered images x (look - first steered step) / steps: the denoiser's rows alone, reading for nothing.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from timing import machine, note, print_ratios, ratios, spread

from icm_pipeline import SteeringVectors, fit_vectors, load_vectors, record, steer
from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.registry import load_backbone
from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, evaluation_jobs, probe_jobs
from icm_pipeline.generation.sampling import batches
from icm_pipeline.labelers.registry import load_labeler
from icm_pipeline.methods.looking import Look
from icm_pipeline.methods.strength import Strength

PLAIN = "plain"


@dataclass
class Way:
    """One way to make the images, and whom it steered."""

    make: Callable[[], list[Look]]
    looks: list[Look] = field(default_factory=list)

    def __call__(self) -> None:
        self.looks = self.make()


def made(backbone: Backbone, jobs: list[Job]) -> list[Any]:
    """Return the pictures of a plain call of the pipeline."""
    sampling = backbone.sampling
    assert sampling is not None
    images: list[Any] = backbone.pipe(
        prompt=[job.prompt for job in jobs], generator=[torch.Generator().manual_seed(job.seed) for job in jobs],
        num_inference_steps=sampling.num_steps, guidance_scale=sampling.guidance_scale, height=sampling.height,
        width=sampling.width, **sampling.options,
    ).images  # fmt: skip
    return images


def plain(backbone: Backbone, jobs: list[Job]) -> list[Look]:
    made(backbone, jobs)
    return []


def steered(backbone: Backbone, jobs: list[Job], vectors: SteeringVectors, **how: Any) -> list[Look]:
    with steer(backbone.pipe, vectors, **how) as looks:
        made(backbone, jobs)
    return looks


def fitted(settings: Settings, backbone: Backbone, num_images: int) -> SteeringVectors:
    """Return the vectors of the best layers, with readers, of the first images of the probe dataset."""
    recordings, images = [], []
    for jobs in batches(probe_jobs(settings)[:num_images], settings.compute.batch_size):
        with record(backbone.pipe) as seen:
            images += made(backbone, jobs)
        recordings += seen.recordings
    options = settings.attribute.options
    found = load_labeler(settings.labeler).label(images, {settings.attribute.name: options})
    labels = [list(options)[place] for place in found[settings.attribute.name].argmax(1)]
    vectors = fit_vectors(recordings, labels, list(options), C=settings.probe.C, model=settings.model.name)
    return vectors.best(settings.model.steering.k)


def strength(settings: Settings) -> Strength:
    how = settings.method
    return Strength(settings.alpha, how.alpha_unit, how.first_step, how.last_step, settings.model.num_steps)


def in_settings(*words: list[str]) -> list[Settings]:
    """Return the settings that each list of the command line's words makes."""
    register_schema()
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        return [to_settings(compose("config", each)) for each in words]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="an embedded model, as tiny_sdxl")
    parser.add_argument("--attribute", default="gender")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--look", type=int, nargs="+", default=[3, 6, 8])
    parser.add_argument("--fit", type=int, default=160)
    parser.add_argument("--vectors", help="a file of steering vectors with readers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--figures", type=Path, help="a file that the figures are appended to, as JSON")
    parser.add_argument("--small", action="store_true", help="8 steps, 4 images, a look of 3, 1 round")
    args = parser.parse_args()
    if args.small:
        args.steps, args.images, args.look, args.fit, args.rounds = 8, 4, [3], 80, 1
    words = [f"model={args.model}", f"attribute={args.attribute}", f"model.num_steps={args.steps}"]
    (settings,) = in_settings([*words, f"compute.device={args.device}", "tracker=none"])
    backbone = load_backbone(settings.model, settings.compute)
    vectors = load_vectors(args.vectors) if args.vectors else fitted(settings, backbone, args.fit)
    if vectors.strength is None:
        vectors = replace(vectors, strength=strength(settings))
    print(machine())
    print(
        f"{args.model}, {args.attribute}, {args.images} images, {args.steps} steps, {torch.get_num_threads()} threads"
    )
    jobs = evaluation_jobs(settings)[: args.images]
    told = {"model": args.model, "attribute": args.attribute, "images": len(jobs), "steps": args.steps}
    for row in compare(backbone, jobs, vectors, args.look, args.rounds):
        note(args.figures, part="look", **told, **row)


def in_turns(ways: Mapping[str, Way], rounds: int, device: str) -> dict[str, list[float]]:
    """Return the seconds of every way in every round; the ways run in turns, in each round from another on."""
    names, clock = list(ways), time.process_time if device == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            started = clock()
            ways[name]()  # its pictures are on the CPU, so that the device has finished
            seconds[name].append(clock() - started)
    return seconds


def compare(
    backbone: Backbone, jobs: list[Job], vectors: SteeringVectors, looks: list[int], rounds: int
) -> list[dict[str, Any]]:
    """Print what each way costs, and what that of each look was expected to be; return the same as rows."""
    shares = dict.fromkeys(vectors.options, 1 / len(vectors.options))
    every = "every image steered"
    ways = {
        PLAIN: Way(partial(plain, backbone, jobs)),
        every: Way(partial(steered, backbone, jobs, vectors, option=vectors.options[0])),
        **{f"look={look}": Way(partial(steered, backbone, jobs, vectors, shares=shares, look=look)) for look in looks},
    }
    for way in ways.values():
        way()  # warms up
    seconds = in_turns(ways, rounds, str(backbone.pipe._execution_device))
    print_ratios(seconds, PLAIN, "way")
    assert backbone.sampling is not None and vectors.strength is not None
    num_steps = backbone.sampling.num_steps
    first = vectors.strength.window(num_steps).start
    rows: list[dict[str, Any]] = [{"way": every, "ratios": ratios(seconds[every], seconds[PLAIN]), "expected": 1.0}]
    print("\n| look | reader's accuracy | steered | cost | expected |\n|---|---|---|---|---|")
    for look in looks:
        (found,) = ways[f"look={look}"].looks
        way, share = f"look={look}", float(found.steered.mean())
        cost, accuracy = ratios(seconds[way], seconds[PLAIN]), float(found.reader.accuracy)
        expected = 1 + share * (look - first) / num_steps
        print(f"| {look} | {accuracy:.2f} | {share:.2f} | {spread(cost)} | {expected:.3f} |")
        rows.append({"way": way, "ratios": cost, "expected": expected, "steered": share, "accuracy": accuracy})
    return rows


if __name__ == "__main__":
    main()
