"""Print the tables of results of README.md and docs/results.md, from what the shipped experiments left on disk.

python benchmarks/results_table.py [outputs]                    the ways of steering the embedded model (`make results`)
python benchmarks/results_table.py --architectures [outputs]    the embedded architectures (experiment=architectures)
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from hydra import compose, initialize_config_dir

from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.report.wording import describe
from icm_pipeline.results.evaluation import Evaluation
from icm_pipeline.results.scores import Scores
from icm_pipeline.tracking.base import NoTracker

EXPERIMENTS = ("cross_attention", "gender", "all_layers", "random_k", "worst_k", "age", "skin_tone")  # the rows
ORDER = ("gender", "age", "skin_tone")
MODELS = ("tiny", "tiny_sdxl", "tiny_sana", "tiny_flux")
KINDS = ("self_attention", "cross_attention", "feed_forward")


def ways_of_steering(outputs: Path) -> list[tuple[str, ...]]:
    """Return a heading and a row per experiment that was evaluated, with the settings that it is shipped with."""
    rows: list[tuple[str, ...]] = [("attribute", "steered", "FD before", "FD after (95 %)", "obeyed", "CLIP-I", "kept")]
    for _, evaluation in evaluated(outputs, [[f"experiment={name}"] for name in EXPERIMENTS]):
        rows.append((evaluation.attribute.replace("_", " "), *figures(evaluation)))
    return rows


def architectures(outputs: Path) -> list[tuple[str, ...]]:
    """Return a heading and, for gender, each architecture's accuracy by kind of site and what steering did."""
    kinds = tuple(f"accuracy, {kind.replace('_', '-')}" for kind in KINDS)
    rows = [("model", *kinds, "steered", "FD before", "FD after (95 %)", "obeyed", "CLIP-I", "kept")]
    for pipeline, evaluation in evaluated(outputs, [["experiment=architectures", f"model={name}"] for name in MODELS]):
        rows.append((evaluation.model, *accuracies(pipeline), *figures(evaluation)))
    return rows


def evaluated(outputs: Path, runs: Iterable[list[str]]) -> list[tuple[Pipeline, Evaluation]]:
    """Return the run of each command line's words with its evaluation; what is not there is named."""
    found = []
    register_schema()
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        for words in runs:
            settings = to_settings(compose("config", overrides=words))
            settings.paths.outputs = str(outputs)
            pipeline = Pipeline(settings, words, NoTracker())
            artifact = pipeline.find("evaluate")
            if artifact is None:
                print(f"{' '.join(words)} was not evaluated with the settings it is shipped with", file=sys.stderr)
            else:
                found.append((pipeline, Evaluation.read(artifact)))
    return found


def accuracies(pipeline: Pipeline) -> list[str]:
    """Return the mean held-out accuracy of each kind of site, over layers and steps, of the probes behind a run."""
    probe = pipeline.find("probe")
    if probe is None:
        return ["?"] * len(KINDS)
    by_kind = Scores.read(probe).by_kind
    return [f"{sum(by_kind[kind]) / len(by_kind[kind]):.2f}" if kind in by_kind else "none" for kind in KINDS]


def figures(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the way of steering and what came of it."""
    after, kept = evaluation.after, evaluation.kept
    assert evaluation.steering is not None
    return (
        describe(evaluation.steering),
        f"{evaluation.before.mean:.3f}",
        "{:.3f} ({:.3f} to {:.3f})".format(after.mean, *after.interval_95),
        f"{evaluation.obeyed:.0%}",
        f"{evaluation.clip_i:.3f}",
        ", ".join(f"{name.replace('_', ' ')} {kept[name]:.0%}" for name in ORDER if name in kept),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", nargs="?", default="outputs")
    parser.add_argument("--architectures", action="store_true")
    args = parser.parse_args()
    table = architectures if args.architectures else ways_of_steering
    heading, *rows = table(Path(args.outputs))
    if not rows:
        sys.exit(f"No evaluation of them lies in {args.outputs}: run `make results` or experiment=architectures.")
    print(f"| {' | '.join(heading)} |")
    print("|---" * len(heading) + "|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
