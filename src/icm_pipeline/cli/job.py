"""A job: compose the configuration, check it, run the stage, tell what came out."""

import logging
import os
import secrets
import sys
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from icm_pipeline.cli.errors import USER_ERRORS, clear_errors, end_with
from icm_pipeline.cli.outcome import Outcome, is_reported, outcome_of, report_started, report_sweep_of, tell
from icm_pipeline.cli.running import HydraJob, RunningSweep, this_command
from icm_pipeline.config.compose import config_words, register_resolvers, to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.saved import primary_config
from icm_pipeline.config.schema import Settings
from icm_pipeline.machine.memory import keep_freed_memory
from icm_pipeline.methods.registry import log_choice
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.table import stages_help, stages_of
from icm_pipeline.results.sweeps import read_sweep, write_result
from icm_pipeline.tracking.base import Tracker
from icm_pipeline.tracking.registry import make_tracker

log = logging.getLogger(__name__)


def run() -> None:
    """Run what the command line asks for; whatever a user can mend ends in one message and exit code 1."""
    register_schema()
    register_resolvers()
    OmegaConf.register_new_resolver("help_of_stages", stages_help, replace=True)
    run_id = secrets.token_hex(3)  # sets apart the folders of commands that start in the same second
    OmegaConf.register_new_resolver("run_id", lambda: run_id, replace=True)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands its errors on instead of printing a traceback
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is not worth a traceback
    sweep, failure, told = RunningSweep(), None, ""
    before = this_command.set(sweep)
    try:
        sys.argv[1:], primary = primary_config(sys.argv[1:])
        of_hydra = hydra.main(version_base="1.3", config_path=str(conf_path()), config_name=primary)
        of_hydra(partial(main, sweep))()
    except Exception as error:
        failure = error
    finally:
        this_command.reset(before)
    if sweep.plan and sweep.plan.jobs:
        from icm_pipeline.planning.tables import print_plan

        print_plan(sweep.plan)
    elif sweep.begun and is_reported(sweep.config.stage):
        told = report_started(sweep)
    if isinstance(failure, USER_ERRORS) and str(failure) in told:
        sys.exit("error: jobs of the sweep failed, as told above")
    if failure is not None:
        end_with(failure)


def main(sweep: RunningSweep, cfg: Any) -> float | tuple[float, float] | None:
    """Run one job; return FD of an evaluated job, which a sweeper can minimise, or (FD, CLIP-I) if it takes two."""
    known = HydraConfig.get()
    overrides, direction = list(known.overrides.task), known.sweeper.get("direction")
    job = HydraJob(
        folder=Path(known.runtime.output_dir),
        overrides=overrides,
        words=[*config_words(known), *overrides],
        sweep_folder=Path(known.sweep.dir) if known.mode == RunMode.MULTIRUN else None,
        takes_two=not isinstance(direction, str | None),
    )
    with clear_errors(job):
        os.chdir(known.runtime.cwd)  # a cluster's worker may start elsewhere than the command did
        settings = to_settings(cfg)
        if not job.words:
            tell_what_begins(settings)
        if not any(word.startswith("method.name=") for word in overrides):
            log_choice(known.runtime.choices.get("method") or settings.method.name, settings.method.name)
        outcome = run_job(settings, job, sweep)
        tell(outcome)
        return outcome.objective(job.takes_two)


def tell_what_begins(settings: Settings) -> None:
    """Say what a command of no words does: minutes of work, where somebody may have wanted to see what there is."""
    log.info("stage=%s on %s into %s; --help lists the commands", settings.stage, settings.model.name,
             settings.paths.outputs)  # fmt: skip


def run_job(settings: Settings, job: HydraJob, sweep: RunningSweep) -> Outcome:
    """Run what the settings ask for, and track it."""
    check_stage(settings)
    if settings.stage == "plan":
        from icm_pipeline.cli.preflight import check_family
        from icm_pipeline.planning.plan import Plan

        check_family(settings, stages_of(settings))
        sweep.plan = sweep.plan or Plan()
        sweep.plan.add(settings, job.overrides)
        return Outcome()
    if settings.stage == "explore":
        from icm_pipeline.explore.opening import explore

        return Outcome(files=tuple(explore(settings, job.overrides, sweep.models)))
    of_sweep = settings.sweep or job.sweep_folder
    tracker = make_tracker(settings, job.folder, Path(of_sweep).resolve() if of_sweep else None)
    try:
        outcome = _run(settings, job, sweep, tracker)
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close()
    return outcome


def _run(settings: Settings, job: HydraJob, sweep: RunningSweep, tracker: Tracker) -> Outcome:
    if settings.compute.device == "cpu":
        keep_freed_memory()
    if settings.stage == "pretrain":
        from icm_pipeline.pretrain.parts import PretrainPlan, pretrain

        pretrain(PretrainPlan(settings, tracker))
        return Outcome()
    if settings.sweep is not None:
        report_sweep_of(read_sweep(Path(settings.sweep).resolve(), Path(settings.paths.outputs)), tracker)
        return Outcome()
    # With torch, which --help and a shell's completion do without.
    from icm_pipeline.machine.threads import limited_threads
    from icm_pipeline.pipeline.run import Pipeline

    pipeline = Pipeline(settings, job.words, tracker, job.folder, sweep.forced, sweep.models)
    with limited_threads(settings.compute.num_threads):
        if missing := pipeline.missing(settings.stage):
            from icm_pipeline.cli.preflight import check_usable

            check_usable(settings, missing)
        artifact = pipeline.run(settings.stage)
    if job.sweep_folder is not None or artifact not in pipeline.reused:
        for reused in pipeline.reused:
            pipeline.track(reused)
    write_result(job.folder, job.overrides, pipeline.folders())
    return outcome_of(pipeline, artifact) if artifact else Outcome()
