"""Which evaluations can stand beside one another: the same originals, judged in the same way, steered differently."""

import logging
from pathlib import Path
from typing import Any

from icm_pipeline.artifacts import MANIFEST, Artifact, ArtifactError, open_artifact
from icm_pipeline.partials import OLD, PARTIAL

log = logging.getLogger(__name__)


def comparable_evaluations(folder: Path, settings: dict[str, Any], originals_key: str) -> tuple[Artifact, ...]:
    """Return the evaluations in a folder of artifacts that share originals and judges, by key.

    settings: the part of the configuration that an evaluation reads. A damaged artifact is left out and named.
    """
    found = []
    for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
        if manifest.parent.name.endswith((PARTIAL, OLD)):
            continue
        try:
            artifact = open_artifact(manifest.parent)
        except ArtifactError as error:
            log.warning("left out of the comparison: %s", error)
            continue
        if artifact is None or artifact.manifest["settings"] != settings:
            continue
        if artifact.manifest["parents"].get("originals") == originals_key:
            found.append(artifact)
    return tuple(sorted(found, key=lambda artifact: artifact.key))
