"""Vectors from prompt pairs beside those of probes: the tables of docs/pairs.md.

    python benchmarks/pairs.py --models tiny --images 2       # a check, some minutes
    python benchmarks/pairs.py                                 # the embedded models, an hour or two on two cores

Prompts and seeds chose nothing (experiment=fresh). Probes steer at the model's own alpha, which was chosen on other
prompts and seeds; so do pairs in the same layers. In layers of their own their alpha is chosen as a bench does, on
tuning prompts and seeds: of those that keep CLIP-I 0.9 the one of least FD by the labeler. Artifacts there are reused.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from scipy.stats import binomtest, spearmanr

from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.machine.threads import limited_threads
from icm_pipeline.methods.icm import VECTORS
from icm_pipeline.methods.pairs import chosen
from icm_pipeline.methods.vectors import SteeringVectors, load_vectors
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.table import STAGES
from icm_pipeline.results.effects import Effects
from icm_pipeline.results.evaluation import Evaluation
from icm_pipeline.results.scores import Selection
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import NoTracker

MODELS = ("tiny", "tiny_sdxl", "tiny_sana", "tiny_flux")
FRESH = ("experiment=fresh", "tracker=none", "compute.num_threads=1")
BENCH = ("bench.included=true", "bench.size=quick", "bench.sizes.quick.tuning_images=6")
STRENGTHS = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5)  # times the model's own alpha


@dataclass(frozen=True)
class Way:
    """One way of steering, evaluated."""

    vectors: str
    layers: list[str]
    evaluation: Evaluation


def made(pipeline: Pipeline, stage: str) -> Artifact:
    """Return a stage's artifact, made with all that it needs where it is missing."""
    for parent in STAGES[stage].needs(pipeline.settings):
        made(pipeline, parent)
    artifact = pipeline.run(stage)
    assert artifact is not None
    return artifact


def run_of(outputs: Path, *words: str) -> Pipeline:
    settings = to_settings(compose("config", overrides=[*words, f"paths.outputs={outputs}"]))
    return Pipeline(settings, list(words), NoTracker())


def ways(outputs: Path, model: str, num_images: int, num_pairs: int) -> Iterator[Way]:
    """Yield the probes' way, the pairs' in the probes' layers, and the pairs' in layers of their own."""
    run = partial(run_of, outputs, *FRESH, f"model={model}", f"evaluate.images_per_prompt={num_images}")
    probes, pairs = run("method=icm"), ("method=pairs", f"method.params.pairs={num_pairs}")
    evaluated = Evaluation.read(made(probes, "evaluate"))
    selected = Selection.read(made(probes, "select")).layers
    yield Way("probes", selected, evaluated)
    same = run(*pairs, f"method.params.names=[{','.join(selected)}]")
    yield Way("pairs, in the probes' layers", selected, Evaluation.read(made(same, "evaluate")))
    strengths = ",".join(str(round(times * float(probes.settings.alpha), 6)) for times in STRENGTHS)
    own = run(*BENCH, *pairs, f"method.strengths=[{strengths}]")
    fitted = load_vectors(made(own, "fit").path(VECTORS))
    layers = chosen(fitted, own.settings.method.params).layers
    yield Way("pairs, in layers of their own", layers, Evaluation.read(made(own, "evaluate")))


def row_of(way: Way, shared: int) -> tuple[str, ...]:
    found = way.evaluation
    assert found.steering is not None
    assert found.obeyed is not None
    after = "{:.3f} ({:.3f} to {:.3f})".format(found.after.mean, *found.after.interval_95)
    obeying = binomtest(round(found.obeyed * found.num_images), found.num_images).proportion_ci(method="wilson")
    obeyed = f"{found.obeyed:.0%} ({obeying.low:.0%} to {obeying.high:.0%})"
    return (
        found.model, way.vectors, f"{shared} of {len(way.layers)}", f"{found.steering.alpha:.3g}",
        f"{found.before.mean:.3f}", after, obeyed, f"{found.clip_i:.3f}",
    )  # fmt: skip


def vectors_of(outputs: Path, model: str, num_pairs: int) -> tuple[SteeringVectors, dict[str, SteeringVectors]]:
    """Return the pairs' vectors of all layers, and the probes' by direction."""
    fitting = run_of(outputs, *FRESH, f"model={model}", "method=pairs", f"method.params.pairs={num_pairs}")
    pairs = load_vectors(made(fitting, "fit").path(VECTORS))
    probe = made(run_of(outputs, *FRESH, f"model={model}"), "probe")
    names = ("probe", "mean_difference", "pattern")
    return pairs, {name: load_vectors(probe.path(f"vectors-{name}.safetensors")) for name in names}


def cosines(pairs: SteeringVectors, others: SteeringVectors, layer: str) -> float:
    """Return the cosine of two directions in a layer, mean over recorded steps and options."""
    slots = [pairs.slot(level) for level in others.noise_levels]
    return float((pairs.directions[layer][slots] * others.directions[layer]).sum(-1).mean())


def by_kind(outputs: Path, model: str, num_pairs: int) -> Iterator[tuple[str, ...]]:
    """Yield what the two directions have in common, by kind of layer."""
    pairs, others = vectors_of(outputs, model, num_pairs)
    for kind in dict.fromkeys(pairs.kinds.values()):
        layers = [layer for layer in pairs.layers if pairs.kinds[layer] == kind]
        found = {name: torch.tensor([cosines(pairs, each, layer) for layer in layers]) for name, each in others.items()}
        spread = [f"{each.mean():.2f} ({each.min():.2f} to {each.max():.2f})" for each in found.values()]
        yield model, kind.replace("_", "-"), str(len(layers)), *spread


def by_layer(outputs: Path, model: str, num_pairs: int, kind: str) -> Iterator[tuple[str, ...]]:
    """Yield each layer of a kind: its score by pairs and by probes, and the cosines of their directions."""
    pairs, others = vectors_of(outputs, model, num_pairs)
    effects = pushed_alone(outputs, model)
    for layer in pairs.layers:
        if pairs.kinds[layer] == kind:
            probe = others["probe"].scores[layer]
            told = [f"{cosines(pairs, each, layer):.2f}" for each in others.values()]
            effect = f"{effects.layers[layer].mean:.3f}" if effects and layer in effects.layers else "-"
            yield model, layer, f"{pairs.scores[layer]:.2f}", f"{probe:.2f}", effect, *told


def pushed_alone(outputs: Path, model: str) -> Effects | None:
    """Return what pushing each layer alone does, if an audit has found out."""
    for size in ("full", "quick"):
        run = run_of(outputs, "experiment=audit", "tracker=none", f"model={model}", f"audit.size={size}")
        if artifact := run.find("causal"):
            return Effects.read(artifact)
    return None


def agreement(outputs: Path, model: str, num_pairs: int, kind: str) -> tuple[str, ...]:
    """Return how the layers of a kind rank by pairs, by probes and by their effects, as Spearman's rho."""
    pairs, others = vectors_of(outputs, model, num_pairs)
    effects = pushed_alone(outputs, model)
    layers = [layer for layer in pairs.layers if pairs.kinds[layer] == kind]
    scores = [[each.scores[layer] for layer in layers] for each in (pairs, others["probe"])]
    if effects is None:
        return model, f"{spearmanr(*scores).statistic:.2f}", "-", "-"
    true = [effects.layers[layer].mean for layer in layers]
    return model, *(f"{spearmanr(*both).statistic:.2f}" for both in (scores, (scores[0], true), (scores[1], true)))


def print_table(titles: Sequence[str], rows: Iterator[tuple[str, ...]]) -> None:
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--images", type=int, default=24, help="of each of four prompts")
    parser.add_argument("--pairs", type=int, default=20, help="of prompts")
    parser.add_argument("--directions", action="store_true", help="steer nothing: what the directions have in common")
    parser.add_argument("--layers", action="store_true", help="every self-attention layer by itself, too")
    given, kind = parser.parse_args(), "self_attention"
    models, num_pairs = given.models, given.pairs
    register_schema()

    def steered() -> Iterator[tuple[str, ...]]:
        for model in models:
            selected: set[str] = set()
            for way in ways(given.outputs, model, given.images, num_pairs):
                selected = selected or set(way.layers)
                yield row_of(way, len(selected & set(way.layers)))

    titles = ("model", "vectors", "layers shared", "alpha", "FD before", "FD after (95 %)", "obeyed (95 %)", "CLIP-I")
    directions = tuple(f"cosine with {name}" for name in ("probe", "mean difference", "pattern"))
    with initialize_config_dir(str(conf_path()), version_base="1.3"), limited_threads(1):
        if not given.directions:
            print_table(titles, steered())
        rows = (row for model in models for row in by_kind(given.outputs, model, num_pairs))
        print_table(("model", "kind", "layers", *directions), rows)
        ranks = (agreement(given.outputs, model, num_pairs, kind) for model in models)
        print_table(("model", "pairs and probes", "pairs and effects", "probes and effects"), ranks)
        if given.layers:
            rows = (row for model in models for row in by_layer(given.outputs, model, num_pairs, kind))
            print_table(("model", "layer", "pairs", "probes", "effect", *directions), rows)


if __name__ == "__main__":
    main()
