"""What a job prints at its end and hands to a sweeper."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig

from icm_pipeline.cli.callbacks import StartedSweep
from icm_pipeline.cli.errors import USER_ERRORS
from icm_pipeline.config.compose import to_settings
from icm_pipeline.pipeline.table import STAGES
from icm_pipeline.report.tables import print_metrics, print_ranking, print_sweep
from icm_pipeline.results.evaluation import Evaluation
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.sweeps import Sweep, read_sweep
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.text import count_text
from icm_pipeline.tracking.base import Tracker
from icm_pipeline.tracking.registry import make_tracker

if TYPE_CHECKING:
    from icm_pipeline.pipeline.run import Pipeline

RANKING_ROWS = 12  # of the ranking that a whole run prints


def is_reported(stage: str) -> bool:
    """Say whether a sweep of this stage leaves something to report on."""
    return stage == "all" or (stage in STAGES and STAGES[stage].kind == "result")


def report_sweep_of(sweep: Sweep, tracker: Tracker) -> None:
    """Write a sweep's report, print its table and where its files lie."""
    from icm_pipeline.report.sweep_page import sweep_cells
    from icm_pipeline.report.sweep_report import report_sweep
    from icm_pipeline.tracking.dashboard import track_sweep

    report = report_sweep(sweep)
    track_sweep(tracker, sweep, sweep_cells(sweep), report.figures)
    print_sweep(
        f"{count_text(len(sweep.jobs), 'job')} of {sweep.folder}", *sweep_cells(sweep, kept=False), sweep.left_out
    )
    for path in sorted(report.folder.iterdir()):
        print(path)


def report_started(started: StartedSweep) -> None:
    """Report on a multirun of this process; whatever keeps the report from being made is told."""
    try:
        settings = replace(to_settings(started.config), stage="report", sweep=str(started.folder))
        sweep = read_sweep(started.folder, Path(settings.paths.outputs))
        tracker = make_tracker(settings, started.folder, started.folder)
        try:
            report_sweep_of(sweep, tracker)
        finally:
            tracker.close()
    except USER_ERRORS as error:
        print(f"No report on the sweep: {error}")
        return
    print(f"The sweep's report again: python -m icm_pipeline stage=report sweep={shlex.quote(str(started.folder))}")


def show(pipeline: "Pipeline", artifact: Artifact) -> float | tuple[float, float] | None:
    """Print what a job is asked for: the ranking, the metrics, the figures' paths; return what `main` returns."""
    stage = artifact.stage
    if stage == "select":
        print_ranking(Selection.read(artifact))
    if stage not in ("evaluate", "report"):
        return None
    evaluated, selected = pipeline.find("evaluate"), pipeline.find("select") if stage == "report" else None
    if selected is not None:
        print_ranking(Selection.read(selected), RANKING_ROWS)
    evaluation = None if evaluated is None else Evaluation.read(evaluated)
    if evaluation is not None:
        print_metrics(evaluation)
    for name in sorted(name for name in artifact.manifest.files if name.endswith((".png", ".md"))):
        print(artifact.folder / name)
    if evaluation is None:
        return None
    fd, clip_i = evaluation.fairness.fd.mean, evaluation.clip_i
    directions = HydraConfig.get().sweeper.get("direction")
    return fd if directions is None or isinstance(directions, str) or clip_i is None else (fd, clip_i)
