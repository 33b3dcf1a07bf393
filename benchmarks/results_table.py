"""Print the README's tables of results from the evaluations on disk.

python benchmarks/results_table.py [outputs]                    the ways of steering the embedded model (`make results`)
python benchmarks/results_table.py --architectures [outputs]    the embedded architectures (experiment=architectures)
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from icm_pipeline.artifacts import Artifact
from icm_pipeline.lineage import Shelf, parents_of, read_shelf, stage_of, subject_of
from icm_pipeline.plots.comparison import describe

ORDER = ("gender", "age", "skin_tone")
MODELS = ("tiny", "tiny_sdxl", "tiny_sana", "tiny_flux")
KINDS = ("self_attention", "cross_attention", "feed_forward")


def ways_of_steering(shelf: Shelf) -> list[tuple[str, ...]]:
    """Return a heading and one row per evaluation of the embedded model."""
    found = [evaluation.read_json("metrics.json") for evaluation in evaluations(shelf, "tiny")]
    known = [metrics for metrics in found if metrics["attribute"] in ORDER]
    known.sort(key=lambda m: (ORDER.index(m["attribute"]), m["steering"]["rule"] != "top", describe(m["steering"])))
    heading = ("attribute", "steered", "FD before", "FD after (95 %)", "obeyed", "CLIP-I", "kept")
    return [heading, *((m["attribute"].replace("_", " "), describe(m["steering"]), *figures(m)) for m in known)]


def architectures(shelf: Shelf) -> list[tuple[str, ...]]:
    """Return a heading and, for gender, each architecture's accuracy by kind of site and what steering did."""
    kinds = tuple(f"accuracy, {kind.replace('_', '-')}" for kind in KINDS)
    rows = [("model", *kinds, "steered", "FD before", "FD after (95 %)", "obeyed", "CLIP-I", "kept")]
    for model in MODELS:
        for evaluation in evaluations(shelf, model):
            metrics = evaluation.read_json("metrics.json")
            steering = metrics["steering"]
            chosen = (metrics["attribute"], steering["rule"], steering["kind"])
            if chosen == ("gender", "top", "self_attention"):
                rows.append((model, *accuracies(shelf, evaluation), describe(steering), *figures(metrics)))
    return rows


def evaluations(shelf: Shelf, model: str) -> list[Artifact]:
    found = shelf.artifacts.values()
    return [one for one in found if stage_of(one) == "evaluate" and subject_of(one)[0] == model]


def accuracies(shelf: Shelf, evaluation: Artifact) -> list[str]:
    """Return the mean held-out accuracy of each kind of site, over layers and steps, of the probes behind it."""
    waiting = [evaluation]
    while stage_of(waiting[0]) != "probe":
        waiting += [shelf.artifacts[key] for key in parents_of(waiting.pop(0))]
    layers = waiting[0].read_json("scores.json")["layers"].values()
    by_kind = {kind: [row["score"] for row in layers if row["kind"] == kind] for kind in KINDS}
    return [f"{sum(values) / len(values):.2f}" if values else "none" for values in by_kind.values()]


def figures(metrics: dict[str, Any]) -> tuple[str, ...]:
    low, high = metrics["fd"]["interval_95"]
    shown = [name for name in ORDER if name in metrics["kept"]]
    return (
        f"{metrics['fd_original']['mean']:.3f}",
        f"{metrics['fd']['mean']:.3f} ({low:.3f} to {high:.3f})",
        f"{metrics['obeyed']:.0%}",
        f"{metrics['clip_i']:.3f}",
        ", ".join(f"{name.replace('_', ' ')} {metrics['kept'][name]:.0%}" for name in shown),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", nargs="?", default="outputs")
    parser.add_argument("--architectures", action="store_true")
    args = parser.parse_args()
    shelf = read_shelf(Path(args.outputs))
    heading, *rows = architectures(shelf) if args.architectures else ways_of_steering(shelf)
    if not rows:
        sys.exit(f"No evaluation of them lies in {args.outputs}: run `make results` or experiment=architectures.")
    print(f"| {' | '.join(heading)} |")
    print("|---" * len(heading) + "|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
