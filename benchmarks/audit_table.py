"""Print the table of verdicts of docs/results.md, from the audits that experiment=audit_architectures left on disk.

python benchmarks/audit_table.py [outputs] [--attribute gender] [--intervals]

A column for each model in its order, its newest audit: **supported**, undecided?, ~~refuted~~.
"""

import argparse
import re
import sys
from pathlib import Path

from icm_pipeline.results.verdicts import Claim, Verdicts
from icm_pipeline.store.artifacts import Artifact, open_artifact
from icm_pipeline.store.manifest import MANIFEST

MODELS = ("tiny", "tiny_sdxl", "tiny_sana", "tiny_flux")  # first, in this order; others follow by name
MARKS = {"supported": "**{}**", "undecided": "{}?", "refuted": "~~{}~~"}


def newest_audits(outputs: Path, attribute: str) -> dict[str, dict[str, Claim]]:
    """Return the claims of each model's newest audit by name."""
    folders = (path.parent for path in (outputs / "artifacts" / "audit").glob(f"*/{MANIFEST}"))
    opened = [artifact for folder in folders if (artifact := open_artifact(folder)) is not None]
    newest: dict[str, Artifact] = {}
    for artifact in sorted(opened, key=lambda artifact: artifact.manifest.created):
        if artifact.manifest.attribute == attribute:
            newest[artifact.manifest.model] = artifact
    return {
        model: {claim.finding.claim: claim for claim in Verdicts.read(artifact).claims}
        for model, artifact in sorted(newest.items(), key=lambda item: ([*MODELS, item[0]].index(item[0]), item[0]))
    }


def cell(claim: Claim | None, interval: bool = False) -> str:
    """Return an effect marked by its verdict, with its 95 % interval if that is asked for."""
    if claim is None:
        return ""
    told = MARKS[claim.verdict].format(f"{claim.finding.effect:z.2f}")
    return told + (" ({:z.2f} to {:z.2f})".format(*claim.finding.interval_95) if interval else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", nargs="?", default="outputs", type=Path)
    parser.add_argument("--attribute", default="gender")
    parser.add_argument("--intervals", action="store_true")
    args = parser.parse_args()
    audits = newest_audits(args.outputs, args.attribute)
    if not audits:
        sys.exit(f"No audit of {args.attribute} lies in {args.outputs}: run experiment=audit_architectures.")
    longest_first = sorted(audits.values(), key=len, reverse=True)  # so that rows stand as in a whole audit
    says: dict[str, str] = {}
    for claims in longest_first:
        for name, claim in claims.items():
            says.setdefault(name, re.sub(r"\bbest \d+\b", "best k", claim.finding.says))
    print(f"| claim | {' | '.join(f'`{model}`' for model in audits)} |")
    print("|---" * (1 + len(audits)) + "|")
    for name, sentence in says.items():
        print(f"| {sentence} | {' | '.join(cell(claims.get(name), args.intervals) for claims in audits.values())} |")


if __name__ == "__main__":
    main()
