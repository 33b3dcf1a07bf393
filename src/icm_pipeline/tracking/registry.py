"""The tracker that the configuration asks for."""

import os
from dataclasses import asdict
from pathlib import Path

from icm_pipeline.config.schema import Settings
from icm_pipeline.results.sweeps import sweep_name
from icm_pipeline.tracking.base import NoTracker, Tracker
from icm_pipeline.tracking.files import CsvTracker, TensorBoardTracker
from icm_pipeline.tracking.wandb import WandbTracker


def make_tracker(settings: Settings, folder: Path, sweep: Path | None) -> Tracker:
    """Return the configured tracker; a W&B run is grouped with those of its sweep, or of the model and attribute.

    folder: where the tracker writes; sweep: the folder of the sweep that the job, or the report, belongs to.
    """
    tracker, config = settings.tracker, asdict(settings)
    if tracker.name == "none" or (tracker.name == "wandb" and tracker.mode == "disabled"):
        return NoTracker()
    if tracker.name == "csv":
        return CsvTracker(folder / "tracker")
    if tracker.name == "tensorboard":
        return TensorBoardTracker(folder / "tensorboard", config)
    made_by = settings.model.name if settings.images is None else Path(settings.images).resolve().name
    subject = f"{made_by}-{settings.attribute.name}"
    task = "sweep-report" if settings.sweep else settings.stage
    number = f"-{folder.name}" if sweep and not settings.sweep else ""
    group = tracker.group or (sweep_name(sweep) if sweep else subject)
    told = os.environ.get  # what no setting of ours decides, W&B's users say in the environment
    return WandbTracker(
        tracker.mode, Path(told("WANDB_DIR") or folder), project=tracker.project, entity=tracker.entity, group=group,
        job_type=told("WANDB_JOB_TYPE") or task, name=told("WANDB_NAME") or f"{task}-{subject}{number}",
        tags=[made_by, settings.attribute.name, task, *filter(None, told("WANDB_TAGS", "").split(","))], config=config,
    )  # fmt: skip
