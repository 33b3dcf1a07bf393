"""Steering as a LoRA file beside `steer` and `fold`: the table of docs/lora.md.

    icm experiment=fresh model=tiny
    python benchmarks/lora.py outputs/artifacts/evaluate/tiny-gender-<key>

The steered and the plain images are those of the run, of prompts and seeds that chose nothing. A LoRA file for each
option is exported at the run's alpha and loaded by diffusers' own `load_lora_weights`; the adapters' weight at which
the judge sees the options as clearly as under `steer` is found on tuning prompts and seeds. With it the run's images
are made again. Intervals are of 95 %: obeyed by Clopper and Pearson, CLIP-I over images, FD by resampling them.
"""

import argparse
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from joint import images_of
from look import in_settings
from scipy import stats
from timing import machine, note

from icm_pipeline import SteeringVectors, fold, load_vectors, steer
from icm_pipeline.arrays import Floats
from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.registry import load_backbone
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, tuning_jobs
from icm_pipeline.images.table import ImageRow, Pictures, read_table
from icm_pipeline.labelers.clip import ClipJudge
from icm_pipeline.labelers.registry import load_labeler
from icm_pipeline.methods.folding import FoldingError
from icm_pipeline.metrics.fairness import discrepancy_by_prompt
from icm_pipeline.metrics.intervals import bootstrap_interval, paired_change
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.metrics.resampling import Estimate
from icm_pipeline.metrics.similarity import mapped_cosine
from icm_pipeline.store.artifacts import Artifact, open_artifact

RESAMPLES = 2000
Towards = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Asked:
    """Images to make, the option that each is steered to, and the judge that looks at them."""

    settings: Settings
    jobs: list[Job]
    options: list[str]

    @property
    def wanted(self) -> Any:
        return np.array([list(self.settings.attribute.options).index(option) for option in self.options])

    def made(self, backbone: Backbone, towards: Towards) -> list[Any]:
        """Return the images, made for each option in the context that steers to it."""
        images: list[Any] = [None] * len(self.jobs)
        for option in self.settings.attribute.options:
            places = [index for index, own in enumerate(self.options) if own == option]
            for start in range(0, len(places), 32):
                part = places[start : start + 32]
                with towards(option):
                    made = images_of(backbone, [self.jobs[index] for index in part])
                for index, image in zip(part, made, strict=True):
                    images[index] = image
        return images

    def shown(self, images: Sequence[Any]) -> Floats:
        """Return the probabilities of the options [n, options]."""
        attribute = self.settings.attribute
        asked = {attribute.name: attribute.options}
        return load_labeler(self.settings.judge).label(images, asked)[attribute.name]

    def clarity(self, images: Sequence[Any]) -> float:
        """Return the mean probability of the option that was wanted."""
        return float(self.shown(images)[np.arange(len(self.jobs)), self.wanted].mean())


@dataclass(frozen=True)
class Way:
    """What the judge and CLIP see in the images of one way."""

    shown: Floats
    obeyed: Floats
    likeness: Floats


@contextmanager
def adapters(backbone: Backbone, vectors: SteeringVectors) -> Iterator[Callable[[float], Towards]]:
    """Load a LoRA file for each option by diffusers' own loader; yield what makes a way of a weight."""
    pipe = backbone.pipe

    def weighted(weight: float) -> Towards:
        @contextmanager
        def towards(option: str) -> Iterator[None]:
            pipe.set_adapters([f"to_{option}"], [weight])
            yield

        return towards

    with TemporaryDirectory() as folder:
        for option in vectors.options:
            file = Path(folder, f"{option}.safetensors")
            vectors.export_lora(file, option, window=(0, None))
            pipe.load_lora_weights(file, adapter_name=f"to_{option}")
        try:
            yield weighted
        finally:
            pipe.unload_lora_weights()


def tried(
    weights: Sequence[float], first: float, clarity: Callable[[float], float], wanted: float
) -> dict[float, float]:
    """Return the clarity at weights from that nearest `first` on, until two neighbours have what is wanted between.

    Beyond the weight at which pictures break the options get less clear again: no further ones are tried there.
    """
    found = dict[float, float]()
    place = min(range(len(weights)), key=lambda index: abs(weights[index] - first))
    while 0 <= place < len(weights) and weights[place] not in found:
        clear = found[weights[place]] = clarity(weights[place])
        if clear < wanted and clear < found.get(weights[max(place - 1, 0)], 0.0):
            break
        place += 1 if clear < wanted else -1
    return dict(sorted(found.items()))


def weight_as_clear(found: Mapping[float, float], wanted: float) -> float:
    """Return the weight, between two that were tried, at which the options are as clear as wanted; else the nearest."""
    for (low, below), (high, above) in pairwise(found.items()):
        if below < wanted <= above:
            return low + (wanted - below) / (above - below) * (high - low)
    return min(found, key=lambda weight: abs(found[weight] - wanted))


def with_interval(values: Floats, form: str = ".3f") -> str:
    """Return the mean of a value of each image, with Student's interval."""
    found = Estimate(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5), len(values))
    return f"{found.value:{form}} ({found.interval_95[0]:{form}} to {found.interval_95[1]:{form}})"


def row_of(way: Way, asked: Asked) -> list[str]:
    """Return FD, obeyed and CLIP-I."""
    prompts, rng = [job.prompt for job in asked.jobs], np.random.default_rng(0)
    value = float(np.mean([*discrepancy_by_prompt(way.shown, prompts).values()]))
    low, high = bootstrap_interval(way.shown, prompts, RESAMPLES, rng, strata=asked.wanted)
    share = stats.binomtest(int(way.obeyed.sum()), len(way.obeyed)).proportion_ci()
    obeyed = f"{way.obeyed.mean():.3f} ({share.low:.3f} to {share.high:.3f})"
    return [f"{value:.3f} ({low:.3f} to {high:.3f})", obeyed, with_interval(way.likeness)]


def difference(way: Way, other: Way, asked: Asked) -> list[str]:
    """Return by how much FD, obeyed and CLIP-I are more than those of another way, image by image."""
    prompts, rng = [job.prompt for job in asked.jobs], np.random.default_rng(0)
    value, (low, high) = paired_change(other.shown, way.shown, prompts, RESAMPLES, rng, strata=asked.wanted)
    pairs = ((way.obeyed, other.obeyed), (way.likeness, other.likeness))
    return [f"{value:+.3f} ({low:+.3f} to {high:+.3f})", *(with_interval(mine - its, "+.3f") for mine, its in pairs)]


def asked_of(settings: Settings, rows: Sequence[ImageRow]) -> Asked:
    return Asked(
        settings, [Job(row.image_id, row.prompt, row.prompt_index, row.seed) for row in rows], [r.option for r in rows]
    )


def parent(run: Artifact, stage: str) -> Artifact:
    """Return what an evaluation was made from."""
    (folder,) = run.folder.parents[1].glob(f"{stage}/*-{run.manifest.parents[stage]}")
    found = open_artifact(folder)
    assert found is not None
    return found


def compare(run: Artifact, args: argparse.Namespace) -> None:
    """Print how clear the options are at each weight, and a row for every way."""
    steered = parent(run, "steer")
    vectors = load_vectors(steered.path("vectors.safetensors"))
    words = [f"model={vectors.model}", "experiment=fresh", f"attribute={vectors.attribute}", "tracker=none"]
    words += [] if args.guidance is None else [f"model.guidance_scale={args.guidance}"]
    (settings,) = in_settings(words)
    backbone, constant, used = (
        load_backbone(settings.model, settings.compute),
        vectors.averaged(lengths=True),
        vectors.strength,
    )
    assert used is not None and isinstance(used.alpha, float)
    about = {"part": "lora", "model": vectors.model, "guidance": settings.model.guidance_scale}
    title = f"{vectors.model}, guidance {settings.model.guidance_scale:g}"
    trials = tuning_jobs(settings, args.tuning)
    tuning = Asked(settings, trials, [vectors.options[index % len(vectors.options)] for index in range(len(trials))])
    wanted = tuning.clarity(tuning.made(backbone, lambda option: steer(backbone.pipe, vectors, option)))
    rows = read_table(steered)[: args.images]
    asked = asked_of(settings, rows)
    with adapters(backbone, constant) as weighted:
        found = tried(
            args.weights, 1.0,
            lambda weight: tuning.clarity(tuning.made(backbone, weighted(weight))), wanted,
        )  # fmt: skip
        weight = weight_as_clear(found, wanted)
        listed = ", ".join(f"{at:g}: {value:.3f}" for at, value in found.items())
        print(f"\n{title}: steer {wanted:.3f}; LoRA by weight {listed}; matched at {weight:.2f}", flush=True)
        note(args.figures, **about, wanted=wanted, clarity=found, matched=weight)
        if args.weights_only:
            return
        images = {"LoRA file": asked.made(backbone, weighted(weight))}
    alpha = weight * used.alpha
    try:
        images["fold"] = asked.made(
            backbone,
            lambda option: fold(backbone.pipe, constant, option, alpha=alpha, window=(0, None), both_halves=True),
        )
        pairs = zip(images["fold"], images["LoRA file"], strict=True)
        apart = np.array([np.abs(np.asarray(one, int) - np.asarray(other, int)) for one, other in pairs])
        print(f"fold differs from the LoRA file by {apart.max()} of 255, in {(apart > 0).mean():.1e} of all values")
    except FoldingError as error:
        print(f"fold: {error}")
    images["steer"] = list(Pictures(rows))
    report(images, asked, run, {"steer": used.alpha, "fold": alpha, "LoRA file": alpha}, title, about, args.figures)


def report(
    images: dict[str, list[Any]], asked: Asked, run: Artifact, alphas: dict[str, float], title: str,
    about: dict[str, Any], figures: Path | None,
) -> None:  # fmt: skip
    """Print the table of a model's ways."""
    twins = {row.seed: row for row in read_table(parent(run, "originals"))}
    plain = list(Pictures([twins[job.seed] for job in asked.jobs]))
    clip = ClipJudge(asked.settings.evaluate.clip, "evaluate.clip")
    embedded, ways = clip.embed_images(plain), dict[str, Way]()
    for name, pictures in images.items():
        shown = asked.shown(pictures)
        obeyed = (hard_labels(shown) == asked.wanted).astype(float)
        ways[name] = Way(shown, obeyed, mapped_cosine(clip.embed_images(pictures), embedded))
    fd = float(np.mean([*discrepancy_by_prompt(asked.shown(plain), [job.prompt for job in asked.jobs]).values()]))
    print(f"| {title} | alpha | FD | obeyed | CLIP-I |\n|---|---|---|---|---|\n| plain | | {fd:.3f} | | |")
    for name in (each for each in alphas if each in ways):  # fold refuses some layers
        row = row_of(ways[name], asked)
        print(f"| {name} | {alphas[name]:.3g} | {' | '.join(row)} |")
        note(figures, **about, way=name, alpha=alphas[name], row=row)
    row = difference(ways["LoRA file"], ways["steer"], asked)
    print(f"| LoRA file less steer | | {' | '.join(row)} |", flush=True)
    note(figures, **about, way="LoRA file less steer", row=row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders that stage=evaluate left, of any models")
    parser.add_argument("--images", type=int, help="the first so many of the run (default: all)")
    parser.add_argument("--tuning", type=int, default=48, help="images that weights are tried on")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0])
    parser.add_argument("--guidance", type=float, help="in place of the model's own, with --weights-only")
    parser.add_argument("--weights-only", action="store_true", help="stop when the weight is found")
    parser.add_argument("--figures", type=Path, help="a file that the figures are appended to, as JSON")
    args = parser.parse_args()
    if args.guidance is not None and not args.weights_only:
        parser.error("--guidance makes other images than the run's: give --weights-only too.")
    logging.getLogger("icm_pipeline.methods.lora_file").setLevel(logging.ERROR)
    print(machine())
    for folder in args.runs:
        run = open_artifact(folder)
        if run is None:
            parser.error(f"{folder} is no artifact.")
        compare(run, args)


if __name__ == "__main__":
    main()
