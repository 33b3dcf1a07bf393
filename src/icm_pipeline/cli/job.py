"""A job: compose the configuration, check it, run the stage, print what came out."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from icm_pipeline.cli import callbacks
from icm_pipeline.cli.errors import ClearErrors, in_sweep, tell
from icm_pipeline.cli.outcome import is_reported, report_started, report_sweep_of, show
from icm_pipeline.config.compose import config_words, register_resolvers, to_settings
from icm_pipeline.config.schema import Settings, conf_path, register_schema
from icm_pipeline.machine.memory import keep_freed_memory
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.table import stages_help
from icm_pipeline.pretrain.stage import run_pretraining
from icm_pipeline.results.sweeps import read_sweep, write_result
from icm_pipeline.tracking.base import Tracker
from icm_pipeline.tracking.registry import make_tracker

if TYPE_CHECKING:
    from icm_pipeline.planning.plan import Plan
log = logging.getLogger("icm_pipeline")

planned: "Plan | None" = None  # what the jobs of this process that only plan come to
forced: set[str] = set()  # keys of what the jobs of this process made because of force=true


@hydra.main(version_base="1.3", config_path=str(conf_path()), config_name="config")
def main(cfg: Any) -> float | tuple[float, float] | None:
    """Run one job; return FD of an evaluated job, which a sweeper can minimise, or (FD, CLIP-I) if it takes two."""
    with ClearErrors():
        os.chdir(HydraConfig.get().runtime.cwd)  # a cluster's worker may start elsewhere than the command did
        settings = to_settings(cfg)
        check_stage(settings)
        if settings.stage == "plan":
            _plan(settings)
            return None
        folder = Path(HydraConfig.get().runtime.output_dir)
        sweep = settings.sweep or (HydraConfig.get().sweep.dir if in_sweep() else None)
        tracker = make_tracker(settings, folder, Path(sweep).resolve() if sweep else None)
        try:
            result = _run(settings, tracker, folder)
        except BaseException:
            tracker.close(failed=True)
            raise
        tracker.close()
        return result


def _run(settings: Settings, tracker: Tracker, folder: Path) -> float | tuple[float, float] | None:
    if settings.model.device == "cpu":
        keep_freed_memory()
    if settings.stage == "pretrain":
        run_pretraining(settings, tracker)
        return None
    if settings.sweep is not None:
        report_sweep_of(read_sweep(Path(settings.sweep).resolve(), Path(settings.paths.outputs)), tracker)
        return None
    # With torch, which --help and a shell's completion do without.
    from icm_pipeline.machine.threads import limited_threads

    with limited_threads(settings.model.num_threads):
        return _run_stages(settings, tracker, folder)


def _run_stages(settings: Settings, tracker: Tracker, folder: Path) -> float | tuple[float, float] | None:
    from icm_pipeline.pipeline.run import Pipeline

    overrides = list(HydraConfig.get().overrides.task)
    words = [*config_words(HydraConfig.get()), *overrides]
    pipeline = Pipeline(settings, words, tracker, logs=folder, forced=forced)
    missing = pipeline.missing(settings.stage)
    if missing:
        from icm_pipeline.cli.preflight import check_usable

        check_usable(settings, missing)
    artifact = pipeline.run(settings.stage)
    if in_sweep() or artifact not in pipeline.reused:
        for reused in pipeline.reused:
            pipeline.track(reused)
    write_result(folder, overrides, pipeline.folders())
    return show(pipeline, artifact) if artifact else None


def _plan(settings: Settings) -> None:
    """Plan a job and print it; the jobs of a sweep are added up and printed once the last of them is planned."""
    global planned
    from icm_pipeline.planning.plan import Plan
    from icm_pipeline.planning.tables import print_plan

    planned = planned or Plan()
    planned.add(settings, HydraConfig.get().overrides.task)
    if not in_sweep():
        print_plan(planned)


def _print_planned_sweep() -> None:
    from icm_pipeline.planning.tables import print_plan

    if planned is not None and planned.jobs:
        print_plan(planned)


def run() -> None:
    """Run what the command line asks for; whatever a user can mend ends in one message and exit code 1."""
    register_schema()
    register_resolvers()
    OmegaConf.register_new_resolver("help_of_stages", stages_help, replace=True)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands its errors on instead of printing a traceback
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is not worth a traceback
    entry: Callable[[], None] = main
    failure: Exception | None = None
    try:
        entry()
    except Exception as error:
        failure = error
    for sweep in callbacks.started:
        if sweep.config.stage == "plan":
            _print_planned_sweep()
        elif is_reported(sweep.config.stage) and sweep.begun():  # not if it was refused before its first job
            report_started(sweep)
    if failure is not None:
        tell(failure)
