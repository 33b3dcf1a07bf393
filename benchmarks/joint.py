"""Several attributes at once: the table of docs/least_change.md, from what `steer` does with two vectors.

    python benchmarks/joint.py --small     # a check, about a minute
    python benchmarks/joint.py             # the embedded model, gender and age, 4 prompts x 24 images

Directions and readers of both attributes are fitted to the first images of the probe dataset; then every way makes the
same evaluation images, a call for each prompt, and the embedded classifier, which labeled the former too, judges them.
Joint FD is of the product of its probabilities. Kept is the second attribute where only the first is pushed.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
from look import in_settings, strength
from timing import machine

from icm_pipeline import SteeringVectors, fit_vectors, overlaps, record, steer
from icm_pipeline.arrays import Bools, Floats, Ints
from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.registry import load_backbone
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, evaluation_jobs, probe_jobs
from icm_pipeline.generation.sampling import batches, decode, denoise
from icm_pipeline.labelers.base import Labeler, Questions
from icm_pipeline.labelers.registry import load_labeler
from icm_pipeline.methods import joint
from icm_pipeline.methods.cells import every_cell, shown_options
from icm_pipeline.metrics.fairness import fairness_discrepancy

DIRECTIONS = ("pattern", "probe")


@dataclass(frozen=True)
class Made:
    """The images of a way by prompt, as the judge sees them."""

    seen: list[tuple[Floats, ...]]
    """[n, options] of each attribute, for each prompt."""
    options: list[Ints]
    """[n, attributes] that they were to show; -1 for none."""
    steered: list[Bools]
    """[n, attributes]."""


def images_of(backbone: Backbone, jobs: list[Job]) -> list[Any]:
    return [sample.image for sample in decode(backbone, jobs, denoise(backbone, jobs))]


def judged(labeler: Labeler, images: list[Any], asked: Questions) -> tuple[Floats, ...]:
    found = labeler.label(images, asked)
    return tuple(found[name] for name in asked)


def fitted(
    settings: Sequence[Settings], backbone: Backbone, labeler: Labeler, num_images: int
) -> dict[str, list[SteeringVectors]]:
    """Return the vectors of every attribute in all layers, with readers, by direction."""
    asked = {each.attribute.name: each.attribute.options for each in settings}
    recordings, images = [], []
    for jobs in batches(probe_jobs(settings[0])[:num_images], settings[0].compute.batch_size):
        with record(backbone.pipe) as seen:
            images += images_of(backbone, jobs)
        recordings += seen.recordings
    shown = shown_options(judged(labeler, images, asked)).T
    vectors: dict[str, list[SteeringVectors]] = {direction: [] for direction in DIRECTIONS}
    for each, places in zip(settings, shown, strict=True):
        options = list(each.attribute.options)
        labels = [options[place] if place >= 0 else None for place in places]
        for direction in DIRECTIONS:
            found = fit_vectors(
                recordings, labels, options, direction=direction, C=each.probe.C, model=each.model.name,
                attribute=each.attribute.name, words=each.attribute.words,
            )  # fmt: skip
            vectors[direction].append(replace(found, strength=strength(each)))
    return vectors


def best_layers(vectors: Sequence[SteeringVectors], k: int) -> list[list[str]]:
    """Return k layers of each attribute, those that its probes are best in and no attribute before it has."""
    taken: list[list[str]] = []
    for each in vectors:
        free = [layer for layer in each.layers if not any(layer in layers for layers in taken)]
        taken.append(each.of_layers(free).best(k).layers)
    return taken


def in_layers(
    vectors: Sequence[SteeringVectors], layers: Sequence[list[str]], alphas: Sequence[float]
) -> list[SteeringVectors]:
    """Return each attribute's vectors in some layers, to be used with an alpha."""
    chosen = []
    for each, those, alpha in zip(vectors, layers, alphas, strict=True):
        assert each.strength is not None
        chosen.append(replace(each.of_layers(those), strength=replace(each.strength, alpha=alpha)))
    return chosen


def pushed(backbone: Backbone, jobs: list[Job], vectors: list[SteeringVectors]) -> tuple[list[Any], Ints, Bools]:
    """Push every image to a cell, the cells in turn."""
    cells = every_cell([each.options for each in vectors])
    chosen = [cells[place % len(cells)] for place in range(len(jobs))]
    with steer(backbone.pipe, vectors, chosen):
        images = images_of(backbone, jobs)
    options = _indices(vectors, chosen)
    return images, options, np.ones(options.shape, np.bool_)


def looked(
    backbone: Backbone, jobs: list[Job], vectors: list[SteeringVectors], look: int, turned: bool = True
) -> tuple[list[Any], Ints, Bools]:
    """Push those images that need it along what they need; turned: with directions made orthogonal, as `steer` does."""
    cells = every_cell([each.options for each in vectors])
    shares = dict.fromkeys(cells, 1 / len(cells))
    with (
        nullcontext() if turned else patch.object(joint, "orthogonal", list),
        steer(backbone.pipe, vectors, shares=shares, look=look) as looks,
    ):
        images = images_of(backbone, jobs)
    return images, _indices(vectors, looks[0].options), looks[0].steered


def _indices(vectors: Sequence[SteeringVectors], cells: Sequence[Sequence[str | None]]) -> Ints:
    """Return the index of each attribute's option [n, attributes], -1 where a prompt names one."""
    rows = [[-1 if name is None else of.options.index(name) for of, name in zip(vectors, cell, strict=True)]
            for cell in cells]  # fmt: skip
    return np.array(rows)


def row_of(made: Made, original: Made) -> list[str]:
    """Return the cells of a way's row."""
    product = [np.einsum("na,nb->nab", *seen).reshape(len(seen[0]), -1) for seen in made.seen]
    discrepancies = [product, *([seen[place] for seen in made.seen] for place in range(2))]
    cells = [f"{np.mean([fairness_discrepancy(each) for each in of]):.3f}" for of in discrepancies]
    if made is original:
        return [*cells, "", "", ""]
    shown, before = (np.concatenate([shown_options(seen) for seen in of.seen]) for of in (made, original))
    options, steered = np.concatenate(made.options), np.concatenate(made.steered)
    first_alone = steered[:, 0] & ~steered[:, 1:].any(1)
    kept = (shown == before)[first_alone, 1]
    obeyed = ((shown == options) | (options < 0)).all(1).mean()
    told = f"{kept.mean():.0%} of {len(kept)}" if len(kept) else ""
    return [*cells, f"{obeyed:.0%}", told, f"{(~steered.any(1)).mean():.0%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="an embedded model, as tiny_sdxl")
    parser.add_argument("--attributes", nargs=2, default=["gender", "age"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, default=24, help="of each prompt")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--look", type=int, default=6)
    parser.add_argument("--layers", type=int, default=3, help="of each attribute")
    parser.add_argument("--alphas", type=float, nargs=2, default=[7.0, 3.0], help="in layers of their own")
    parser.add_argument("--alphas-together", type=float, nargs=2, default=[3.0, 2.0], help="in the same layers")
    parser.add_argument("--fit", type=int, default=320)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true", help="8 steps, 2 prompts of 4 images, a look of 3")
    args = parser.parse_args()
    if args.small:
        args.steps, args.images, args.prompts, args.look, args.fit = 8, 4, 2, 3, 80
    words = [f"model={args.model}", f"model.num_steps={args.steps}", f"compute.device={args.device}"]
    words += [f"evaluate.images_per_prompt={args.images}", "tracker=none"]
    settings = in_settings(*([*words, f"attribute={name}"] for name in args.attributes))
    backbone, labeler = load_backbone(settings[0].model, settings[0].compute), load_labeler(settings[0].judge)
    print(machine())
    vectors = fitted(settings, backbone, labeler, args.fit)
    own = best_layers(vectors["probe"], args.layers)
    together = [[layer for layers in own for layer in layers]] * 2
    apart = {direction: in_layers(vectors[direction], own, args.alphas) for direction in DIRECTIONS}
    same = in_layers(vectors["probe"], together, args.alphas_together)
    readers = [next(r for r in each.readers if r.step + 1 == args.look) for each in same]
    told = " and ".join(f"{r.accuracy:.0%} for {of.attribute}" for r, of in zip(readers, same, strict=True))
    print(f"{args.model}, {args.images} images a prompt, {args.steps} steps; readers right in {told}")
    for direction in DIRECTIONS:
        found = np.array(list(overlaps(*vectors[direction]).values()))
        print(f"overlap, {direction}: {found.min():.2f} to {found.max():.2f}, median {np.median(found):.2f}")
    every = f"{args.layers} layers each"
    both = f"`look={args.look}`, the same {2 * args.layers} layers"
    ways: dict[str, Callable[[list[Job]], tuple[list[Any], Ints, Bools]]] = {
        f"every image pushed, {every}": lambda jobs: pushed(backbone, jobs, apart["probe"]),
        f"`look={args.look}`, {every}, `pattern`": lambda jobs: looked(backbone, jobs, apart["pattern"], args.look),
        f"`look={args.look}`, {every}, `probe`": lambda jobs: looked(backbone, jobs, apart["probe"], args.look),
        f"{both}, made orthogonal": lambda jobs: looked(backbone, jobs, same, args.look),
        f"{both}, as they are": lambda jobs: looked(backbone, jobs, same, args.look, turned=False),
    }
    compare(settings, backbone, labeler, args.prompts, ways)


def compare(
    settings: Sequence[Settings], backbone: Backbone, labeler: Labeler, num_prompts: int,
    ways: Mapping[str, Callable[[list[Job]], tuple[list[Any], Ints, Bools]]],
) -> None:  # fmt: skip
    """Print a row for the originals and for every way."""
    asked = {each.attribute.name: each.attribute.options for each in settings}
    first, second = asked
    of_prompts = [
        [job for job in evaluation_jobs(settings[0]) if job.prompt_index == index] for index in range(num_prompts)
    ]
    original = Made([judged(labeler, images_of(backbone, jobs), asked) for jobs in of_prompts], [], [])
    print(f"\n| way | joint FD | {first} FD | {second} FD | both obeyed | {second} kept where only {first} is pushed "
          "| images untouched |\n|---|---|---|---|---|---|---|")  # fmt: skip
    print(f"| original | {' | '.join(row_of(original, original))} |", flush=True)
    for name, make in ways.items():
        seen, options, steered = [], [], []
        for jobs in of_prompts:
            images, towards, along = make(jobs)
            seen.append(judged(labeler, images, asked))
            options.append(towards)
            steered.append(along)
        print(f"| {name} | {' | '.join(row_of(Made(seen, options, steered), original))} |", flush=True)


if __name__ == "__main__":
    main()
