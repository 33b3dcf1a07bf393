"""`icm push`: the steering vectors of a finished run, on the hub, with all that its artifacts tell about them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from icm_pipeline.images.table import SAMPLES
from icm_pipeline.methods.publishing import FILE_NAME, HubError
from icm_pipeline.methods.vectors import load_vectors
from icm_pipeline.methods.vectors_card import About, card
from icm_pipeline.pipeline.table import kinds_of_stages
from icm_pipeline.results.evaluation import Evaluation
from icm_pipeline.results.verdicts import Verdicts
from icm_pipeline.store.artifacts import Artifact, ArtifactError
from icm_pipeline.store.shelf import Shelf, read_shelf


def run_push(words: Sequence[str]) -> int:
    """Publish an artifact's vectors, or print their card, and return the exit code."""
    parser = argparse.ArgumentParser("icm push", description="Publish the steering vectors of a run on the hub.")
    parser.add_argument("artifact", help="of stage=steer: its folder, its key or the beginning of its key")
    parser.add_argument("repository", help="user/name; it is made if it is not there")
    parser.add_argument("--license", help="of the vectors, as mit or cc-by-4.0")
    parser.add_argument("--private", action="store_true", default=None, help="make the repository for you alone")
    parser.add_argument("--replace-card", action="store_true", help="write over a README.md that is not icm_pipeline's")
    parser.add_argument("--card", action="store_true", help="only print the card; nothing is sent")
    parser.add_argument("--outputs", default="outputs", metavar="FOLDER", help="the outputs folder (default: outputs)")
    arguments = parser.parse_args(words)
    try:
        shelf = read_shelf(Path(arguments.outputs), kinds_of_stages())
        artifact = shelf.find(arguments.artifact)
        if not (artifact.folder / FILE_NAME).exists():
            raise ArtifactError(f"{artifact.folder} holds no {FILE_NAME}: give an artifact of stage=steer (icm ls).")
        vectors, about = load_vectors(artifact.path(FILE_NAME)), about_of(shelf, artifact, arguments.license)
        pictures = [path] if (path := artifact.folder / SAMPLES).exists() else []
        if arguments.card:
            print(card(vectors, arguments.repository, about), end="")
            if arguments.repository.count("/") != 1:
                print(f"{arguments.repository} is no user/name, as the hub wants it.", file=sys.stderr)
            return 0
        page = vectors.push_to_hub(
            arguments.repository, judge=about.judge, license=about.license, figures=about.figures,
            verdicts=about.verdicts, pictures=pictures, private=arguments.private,
            replace_card=arguments.replace_card,
        )  # fmt: skip
    except (ArtifactError, HubError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Published: {page}")
    return 0


def about_of(shelf: Shelf, steered: Artifact, license: str | None) -> About:
    """Return what the artifacts around a steered one tell: who judged, what was measured, what an audit found."""
    evaluations = _made_from(shelf, "evaluate", "steer", steered.key)
    audits = _made_from(shelf, "audit", "probe", steered.manifest.parents.get("probe", ""))
    return About(
        judge=_judge(shelf, steered),
        license=license,
        figures=_figures(Evaluation.read(evaluations[-1])) if evaluations else {},
        verdicts=_verdicts(Verdicts.read(audits[-1])) if audits else {},
    )


def _made_from(shelf: Shelf, stage: str, parent: str, key: str) -> list[Artifact]:
    """Return a stage's artifacts that were made from a parent, the oldest first."""
    found = [a for a in shelf.artifacts.values() if a.stage == stage and a.manifest.parents.get(parent) == key]
    return sorted(found, key=lambda artifact: artifact.manifest.made_at or 0)


def _judge(shelf: Shelf, steered: Artifact) -> str | None:
    """Return who said what the probes' images show, None if the labels are not there any more."""
    for key in shelf.ancestors([steered.key]):
        made = shelf.artifacts.get(key)
        config = made.manifest.config if made is not None and made.stage == "label" else {}
        if "labeler.kind" in config:
            names = dict.fromkeys(str(config.get(f"labeler.{name}") or "") for name in ("kind", "model"))
            return " ".join(name for name in names if name)
    return None


def _figures(found: Evaluation) -> dict[str, str]:
    fairness, figures = found.fairness, dict[str, str]()
    if fairness.fd_original is not None:
        figures["FD of unsteered images (0 is fair)"] = f"{fairness.fd_original.mean:.3f}"
    low, high = fairness.fd.interval_95
    figures["FD of steered images (95 %)"] = f"{fairness.fd.mean:.3f} ({low:.3f} to {high:.3f})"
    if found.obeyed is not None:
        figures["images that show what they were steered to"] = f"{found.obeyed:.0%}"
    if found.clip_i is not None:
        figures["CLIP-I, likeness to the unsteered twin"] = f"{found.clip_i:.3f}"
    figures |= {f"pairs that keep {name.replace('_', ' ')}": f"{share:.0%}" for name, share in found.kept.items()}
    return figures | {"images": str(found.num_images)}


def _verdicts(found: Verdicts) -> dict[str, str]:
    verdicts = dict[str, str]()
    for claim in found.claims:
        low, high = claim.finding.interval_95
        effect = f"{claim.finding.effect:.2f} ({low:.2f} to {high:.2f}) {claim.finding.unit}"
        verdicts[claim.finding.says] = f"{claim.verdict}: {effect}"
    return verdicts
