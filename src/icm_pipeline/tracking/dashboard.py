"""What a dashboard shows of each stage, read from the artifact, so that a cache hit looks like a run.

The names are stable; docs/tracking.md lists them and the panels to lay out from them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from icm_pipeline.images.table import SAMPLES
from icm_pipeline.results.sweeps import Sweep
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import NoTracker, Tracker


def track_artifact(tracker: Tracker, artifact: Artifact, show: Callable[[Tracker, Artifact], None]) -> None:
    """Log an artifact's lineage, what its stage shows of it, and its contact sheet."""
    if isinstance(tracker, NoTracker):
        return  # nothing to read files for
    tracker.artifact(artifact.stage, artifact.key, artifact.manifest.parents, artifact.folder)
    show(tracker, artifact)
    if SAMPLES in artifact.manifest.files:
        tracker.image(f"{artifact.stage}/samples", artifact.path(SAMPLES))


def track_sweep(
    tracker: Tracker, sweep: Sweep, table: tuple[list[str], list[list[str]]], figures: Sequence[Path]
) -> None:
    """Log a sweep's table (titles and cells), its best figures and its pictures."""
    best = min(sweep.jobs, key=lambda job: job.fd)
    tracker.table("sweep/jobs", *table)
    values = {
        "sweep/num_jobs": len(sweep.jobs), "sweep/num_left_out": len(sweep.left_out),
        "sweep/num_on_front": sum(sweep.front()), "sweep/lowest_fd": best.fd, "sweep/clip_i_at_lowest_fd": best.clip_i,
    }  # fmt: skip
    tracker.metrics(values)
    for path in figures:
        tracker.image(f"sweep/{path.stem}", path)
