"""What a job prints at its end and hands to a sweeper."""

import shlex
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from icm_pipeline.cli.errors import USER_ERRORS
from icm_pipeline.cli.running import RunningSweep
from icm_pipeline.config.compose import as_value, to_settings
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
    from icm_pipeline.report.sweep_page import sweep_cautions, sweep_cells
    from icm_pipeline.report.sweep_report import FOLDER, HTML_PAGE, report_sweep
    from icm_pipeline.tracking.dashboard import track_sweep

    files = sorted(report_sweep(sweep).iterdir())
    track_sweep(tracker, sweep, sweep_cells(sweep), [path for path in files if path.suffix == ".png"])
    tracker.page("sweep/page", sweep.folder / FOLDER / HTML_PAGE)
    title = f"{count_text(len(sweep.jobs), 'job')} of {sweep.folder}"
    print_sweep(title, *sweep_cells(sweep, kept=False), sweep.left_out, sweep_cautions(sweep))
    for path in files:
        print(path)


def report_started(started: RunningSweep) -> str:
    """Report on a multirun of this command; whatever keeps the report from being made is told.

    Returns what was told as an error.
    """
    assert started.folder is not None
    try:
        settings = replace(to_settings(started.config), stage="report", sweep=str(started.folder))
        sweep = read_sweep(started.folder, Path(settings.paths.outputs))
        with closing(make_tracker(settings, started.folder, started.folder)) as tracker:
            report_sweep_of(sweep, tracker)
    except USER_ERRORS as error:
        print(f"No report on the sweep: {error}", file=sys.stderr)
        return str(error)
    again = shlex.join(["python", "-m", "icm_pipeline", "stage=report", f"sweep={as_value(started.folder)}"])
    print(f"The sweep's report again: {again}")
    return ""


@dataclass(frozen=True)
class Outcome:
    """What a job is asked for; what it was not asked for is not there."""

    selection: Selection | None = None
    ranking_rows: int | None = None
    """Layers of the ranking to print, beside the chosen ones; None: all."""
    evaluation: Evaluation | None = None
    files: tuple[Path, ...] = ()
    """Figures and pages."""

    def objective(self, takes_two: bool) -> float | tuple[float, float] | None:
        """Return what a sweeper minimises: FD, or FD and CLIP-I where it takes two and both are there."""
        if self.evaluation is None:
            return None
        fd, clip_i = self.evaluation.after.mean, self.evaluation.clip_i
        return (fd, clip_i) if takes_two and clip_i is not None else fd


def outcome_of(pipeline: "Pipeline", artifact: Artifact) -> Outcome:
    """Return what a job is asked for that ended in an artifact."""
    stage = STAGES[artifact.stage]
    others = [other for name in stage.tells(pipeline.settings) if (other := pipeline.find(name)) is not None]
    selected, evaluated = (
        next((each for each in (artifact, *others) if kind.FILE in each.manifest.files), None)
        for kind in (Selection, Evaluation)
    )
    own = _files(artifact, (".png", ".md", ".html")) if stage.kind == "result" else []
    return Outcome(
        None if selected is None else Selection.read(selected),
        RANKING_ROWS if others else None,
        None if evaluated is None else Evaluation.read(evaluated),
        (*own, *(page for other in others for page in _files(other, (".md",)))),
    )


def _files(artifact: Artifact, suffixes: tuple[str, ...]) -> list[Path]:
    return [artifact.folder / name for name in sorted(artifact.manifest.files) if name.endswith(suffixes)]


def tell(outcome: Outcome) -> None:
    """Print it: the ranking, the metrics, the figures' paths."""
    if outcome.selection is not None:
        print_ranking(outcome.selection, outcome.ranking_rows)
    if outcome.evaluation is not None:
        print_metrics(outcome.evaluation)
    for path in outcome.files:
        print(path)
