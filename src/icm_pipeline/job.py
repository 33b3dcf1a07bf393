"""A job: compose the configuration, check it, run the stage, print what came out."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError

from icm_pipeline.artifacts import Artifact, ArtifactError, write_json
from icm_pipeline.config import Settings, conf_path, register_schema
from icm_pipeline.pipeline import Pipeline
from icm_pipeline.stage_table import check_stage
from icm_pipeline.tables import print_metrics, print_ranking
from icm_pipeline.tracking import NoTracker, Tracker, WandbTracker
from icm_pipeline.validation import to_settings

log = logging.getLogger("icm_pipeline")

# What a user can mend: bad values, damaged or missing artifacts, files that cannot be used, too big a batch.
USER_ERRORS = (
    ValueError, ArtifactError, OSError, ModuleNotFoundError, FloatingPointError, MemoryError, SafetensorError,
)  # fmt: skip
RANKING_ROWS = 12  # of the ranking that a whole run prints


@hydra.main(version_base="1.3", config_path=str(conf_path()), config_name="config")
def main(cfg: Any) -> float | None:
    """Run one job; return FD of an evaluated job, which a sweeper can minimise."""
    with _ClearErrors():
        settings = to_settings(cfg)
        check_stage(settings.stage, ("pretrain",))
        folder = Path(HydraConfig.get().runtime.output_dir)
        tracker = make_tracker(settings, folder)
        try:
            result = _run(settings, tracker, folder)
        except BaseException:
            tracker.close(failed=True)
            raise
        tracker.close()
        return result


def _run(settings: Settings, tracker: Tracker, folder: Path) -> float | None:
    if settings.stage == "pretrain":
        _pretrain(settings, tracker)
        return None
    pipeline = Pipeline(settings, list(HydraConfig.get().overrides.task), tracker, logs=folder)
    artifact = pipeline.run(settings.stage)
    write_json(folder / "artifacts.json", pipeline.folders())
    return _show(pipeline, artifact) if artifact else None


class _ClearErrors:
    """End a single job with one message and exit code 1; let a sweep see the exception and go on with other jobs."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, USER_ERRORS) and HydraConfig.get().mode == RunMode.RUN:
            log.debug("details", exc_info=error)
            sys.exit(f"error: {error}")


def make_tracker(settings: Settings, folder: Path) -> Tracker:
    """Return the configured tracker; its run shares a group with all runs of the model and attribute or the sweep."""
    from omegaconf import OmegaConf

    tracker = settings.tracker
    if tracker.name == "none" or tracker.mode == "disabled":
        return NoTracker()
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    subject = f"{settings.model.name}-{settings.attribute.name}"
    return WandbTracker(
        mode=tracker.mode,
        project=tracker.project,
        entity=tracker.entity,
        group=tracker.group or (Path(HydraConfig.get().sweep.dir).name if sweep else subject),
        name=f"{settings.stage}-{subject}",
        tags=[settings.model.name, settings.attribute.name, settings.stage],
        folder=folder,
        config=OmegaConf.to_container(OmegaConf.structured(settings), resolve=True),  # type: ignore[arg-type]
    )


def _show(pipeline: Pipeline, artifact: Artifact) -> float | None:
    """Print what a job is asked for: the ranking, the metrics, the figures' paths; return FD if the job has one."""
    stage = artifact.manifest["stage"]
    if stage == "select":
        print_ranking(artifact.read_json("selection.json"))
    if stage not in ("evaluate", "report"):
        return None
    evaluated, selected = pipeline.find("evaluate"), pipeline.find("select")
    assert evaluated is not None and selected is not None
    metrics = evaluated.read_json("metrics.json")
    if stage == "report":
        print_ranking(selected.read_json("selection.json"), RANKING_ROWS)
    print_metrics(metrics)
    for name in sorted(name for name in artifact.manifest["files"] if name.endswith((".png", ".md"))):
        print(artifact.folder / name)
    return float(metrics["fd"]["mean"])


def _pretrain(settings: Settings, tracker: Tracker) -> None:
    from icm_pipeline.pretrain.parts import PretrainPlan, pretrain

    config = settings.pretrain
    folder, shipped = Path(config.folder), Path(__file__).parent / "zoo"
    plan = PretrainPlan(
        model=settings.model.name,
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
        num_steps=settings.model.num_steps,
        guidance_scale=settings.model.guidance_scale,
        attributes={other.name: other.options for other in settings.evaluate.drift.values()},
        evaluation_prompts=settings.attribute.evaluation_prompts,
        tracker=tracker,
    )
    pretrain(config.part, plan)


def run() -> None:
    """Run what the command line asks for; whatever a user can mend ends in one message and exit code 1."""
    register_schema()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands its errors on instead of printing a traceback
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is not worth a traceback
    entry: Callable[[], None] = main
    try:
        entry()
    except OSError as error:  # a job's own have been told; this one kept Hydra from beginning the job
        sys.exit(f"error: {error}. Set paths.outputs to a folder that can be written.")
    except (*USER_ERRORS, HydraException, OmegaConfBaseException) as error:
        reason = f"\n{error.__cause__}" if error.__cause__ else ""
        sys.exit(f"error: {error}{reason}")
