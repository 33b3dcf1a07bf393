"""A job: compose the configuration, check it, run the stage, print what came out."""

import logging
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from yaml import YAMLError

from icm_pipeline import callbacks
from icm_pipeline.artifacts import METRICS, SELECTION, Artifact, ArtifactError
from icm_pipeline.callbacks import StartedSweep
from icm_pipeline.command_words import config_words
from icm_pipeline.composition_errors import explain
from icm_pipeline.config import Settings, conf_path, register_schema
from icm_pipeline.memory import keep_freed_memory
from icm_pipeline.shared_batches import SharedBatches
from icm_pipeline.stage_table import check_stage
from icm_pipeline.sweeps import STOPPED, Sweep, read_sweep, write_result
from icm_pipeline.tables import print_metrics, print_ranking, print_sweep
from icm_pipeline.trackers import make_tracker
from icm_pipeline.tracking import Tracker
from icm_pipeline.validation import register_resolvers, to_settings

if TYPE_CHECKING:
    from icm_pipeline.pipeline import Pipeline
    from icm_pipeline.planning.plan import Plan

log = logging.getLogger("icm_pipeline")

# What a user can mend: bad values, damaged or missing artifacts, files that cannot be used, too big a batch.
USER_ERRORS = (
    ValueError, ArtifactError, OSError, ModuleNotFoundError, FloatingPointError, MemoryError, SafetensorError,
)  # fmt: skip
# What names a launcher's or sweeper's plugin in an error, and the extra that brings it.
PLUGIN_EXTRAS = {
    "launcher/submitit": "slurm", "launcher/joblib": "joblib", "launcher/ray": "ray", "sweeper/optuna": "optuna",
}  # fmt: skip
REPORTED = ("all", "evaluate", "report")  # stages after which there is something to report of a sweep
RANKING_ROWS = 12  # of the ranking that a whole run prints


planned: "Plan | None" = None  # what the jobs of this process that only plan come to

shared: SharedBatches | None = None  # by the jobs of this process

forced: set[str] = set()  # keys of what the jobs of this process made because of force=true


@hydra.main(version_base="1.3", config_path=str(conf_path()), config_name="config")
def main(cfg: Any) -> float | tuple[float, float] | None:
    """Run one job; return FD of an evaluated job, which a sweeper can minimise, or (FD, CLIP-I) if it takes two."""
    with _ClearErrors():
        os.chdir(HydraConfig.get().runtime.cwd)  # a cluster's worker may start elsewhere than the command did
        settings = to_settings(cfg)
        check_stage(settings.stage, ("pretrain", "plan"))
        if settings.stage == "plan":
            _plan(settings)
            return None
        folder = Path(HydraConfig.get().runtime.output_dir)
        sweep = settings.sweep or (HydraConfig.get().sweep.dir if _in_sweep() else None)
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
        _pretrain(settings, tracker)
        return None
    if settings.sweep is not None:
        _report_sweep(read_sweep(Path(settings.sweep).resolve(), Path(settings.paths.outputs)), tracker)
        return None
    from icm_pipeline.dashboard import track_artifact  # with torch, which --help and a shell's completion do without
    from icm_pipeline.parallel import limit_threads
    from icm_pipeline.pipeline import Pipeline

    limit_threads(settings.model.num_threads)
    overrides = list(HydraConfig.get().overrides.task)
    words = [*config_words(HydraConfig.get()), *overrides]
    pipeline = Pipeline(settings, words, tracker, logs=folder, shared=_shared_batches(), forced=forced)
    missing = pipeline.missing(settings.stage)
    if missing:
        from icm_pipeline.stages.preflight import refuse_unusable

        refuse_unusable(settings, missing)
    artifact = pipeline.run(settings.stage)
    if _in_sweep() or artifact not in pipeline.reused:
        for reused in pipeline.reused:
            track_artifact(tracker, reused)
    write_result(folder, overrides, pipeline.folders())
    return _show(pipeline, artifact) if artifact else None


def _shared_batches() -> SharedBatches | None:
    """Return what the jobs of this process's sweep make for one another, None outside of one."""
    global shared
    if shared is None and callbacks.started and callbacks.started[-1].alphas:
        shared = SharedBatches(callbacks.started[-1].alphas)
    return shared


def _plan(settings: Settings) -> None:
    """Plan a job and print it; the jobs of a sweep are added up and printed once the last of them is planned."""
    global planned
    from icm_pipeline.planning.plan import Plan
    from icm_pipeline.planning.tables import print_plan

    planned = planned or Plan()
    planned.add(settings, HydraConfig.get().overrides.task)
    if not _in_sweep():
        print_plan(planned)


def _print_planned_sweep() -> None:
    from icm_pipeline.planning.tables import print_plan

    if planned is not None and planned.jobs:
        print_plan(planned)


def _in_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


class _ClearErrors:
    """End a single job with one message and exit code 1; let a sweep see the exception and go on with other jobs."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if _in_sweep() and error is not None:
            folder = Path(HydraConfig.get().runtime.output_dir)
            told = STOPPED if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            with suppress(OSError):  # on a full disk the job's own error is the one to tell
                write_result(folder, list(HydraConfig.get().overrides.task), {}, told)
        if isinstance(error, USER_ERRORS) and HydraConfig.get().mode == RunMode.RUN:
            _write_traceback(error)
            sys.exit(f"error: {error}")


def _write_traceback(error: BaseException) -> None:
    """Write to the job's log file, and there only, where an error comes from."""
    origin = (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, str(error), (), origin)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            with suppress(OSError):
                handler.handle(record)


def _report_sweep(sweep: Sweep, tracker: Tracker) -> None:
    from icm_pipeline.plots.sweep_page import sweep_cells
    from icm_pipeline.provenance import count_text
    from icm_pipeline.stages.sweep_report import report_sweep

    report = report_sweep(sweep, tracker)
    print_sweep(
        f"{count_text(len(sweep.jobs), 'job')} of {sweep.folder}", *sweep_cells(sweep, kept=False), sweep.left_out
    )
    for path in sorted(report.iterdir()):
        print(path)


def _report_started(started: StartedSweep) -> None:
    """Report on a multirun of this process; whatever keeps the report from being made is told."""
    try:
        settings = replace(to_settings(started.config), stage="report", sweep=str(started.folder))
        sweep = read_sweep(started.folder, Path(settings.paths.outputs))
        tracker = make_tracker(settings, started.folder, started.folder)
        try:
            _report_sweep(sweep, tracker)
        finally:
            tracker.close()
    except USER_ERRORS as error:
        print(f"No report on the sweep: {error}")
        return
    print(f"The sweep's report again: python -m icm_pipeline stage=report sweep={shlex.quote(str(started.folder))}")


def _show(pipeline: "Pipeline", artifact: Artifact) -> float | tuple[float, float] | None:
    """Print what a job is asked for: the ranking, the metrics, the figures' paths; return what `main` returns."""
    stage = artifact.manifest["stage"]
    if stage == "select":
        print_ranking(artifact.read_json(SELECTION))
    if stage not in ("evaluate", "report"):
        return None
    evaluated, selected = pipeline.find("evaluate"), pipeline.find("select") if stage == "report" else None
    if selected is not None:
        print_ranking(selected.read_json(SELECTION), RANKING_ROWS)
    metrics = None if evaluated is None else evaluated.read_json(METRICS)
    if metrics is not None:
        print_metrics(metrics)
    for name in sorted(name for name in artifact.manifest["files"] if name.endswith((".png", ".md"))):
        print(artifact.folder / name)
    if metrics is None:
        return None
    fd, clip_i = float(metrics["fd"]["mean"]), metrics["clip_i"]
    directions = HydraConfig.get().sweeper.get("direction")
    return fd if directions is None or isinstance(directions, str) or clip_i is None else (fd, float(clip_i))


def _pretrain(settings: Settings, tracker: Tracker) -> None:
    from icm_pipeline.pretrain.parts import PretrainPlan, pretrain
    from icm_pipeline.stages.models import check_device

    config = settings.pretrain
    check_device(config.device, "pretrain.device")
    folder, shipped = Path(config.folder), Path(__file__).parent / "zoo"
    plan = PretrainPlan(
        model=settings.model,
        folder=folder,
        zoo=shipped if config.install else folder / "zoo",
        device=config.device,
        seed=settings.seed,
        num_portraits=config.num_portraits,
        num_held_out=config.num_held_out,
        num_quality_images=config.num_quality_images,
        steps=config.steps,
        batch_sizes=config.batch_sizes,
        learning_rates=config.learning_rates,
        compile=config.compile,
        start_from=shipped if config.from_shipped else None,
        attributes={other.name: other.options for other in settings.evaluate.drift.values()},
        evaluation_prompts=settings.attribute.evaluation_prompts,
        tracker=tracker,
    )
    pretrain(config.part, plan)


def run() -> None:
    """Run what the command line asks for; whatever a user can mend ends in one message and exit code 1."""
    register_schema()
    register_resolvers()
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
        elif sweep.config.stage in REPORTED and sweep.begun():  # not if it was refused before its first job
            _report_started(sweep)
    if failure is not None:
        _tell(failure)


def _tell(error: Exception) -> None:
    """End with one message if the error is one that a user can mend, raise it otherwise."""
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        # A job's own have been told; this one kept Hydra from beginning the job.
        sys.exit(f"error: {error}. Set paths.outputs, of a sweep hydra.sweep.dir too, to a folder that can be written.")
    if isinstance(error, (*USER_ERRORS, HydraException, OmegaConfBaseException, YAMLError)):
        sys.exit(f"error: {explain(error)}{_missing_plugin(str(error))}")
    raise error


def _missing_plugin(message: str) -> str:
    """Return what to install if an error is about a launcher or sweeper whose plugin is not there."""
    for plugin, extra in PLUGIN_EXTRAS.items():
        if plugin in message:
            return f"\nThis launcher or sweeper needs: pip install icm_pipeline[{extra}]"
    return ""
