"""Figures, tables and pictures of a run in W&B, offline by default."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)

BEGIN_SECONDS = 60  # how long an online run tries to reach W&B before it goes on offline
FINISH_SECONDS = 300  # how long closing an online run waits for uploads; the rest stays on disk for `wandb sync`


class WandbTracker(Tracker):
    """One W&B run per job.

    An offline run begins with the first value logged, so that a job with nothing to do leaves none. An online run
    begins at once, so that a missing login raises ValueError before anything is computed; if W&B cannot be reached, it
    goes on offline. Later errors are logged once, as a warning, and the job goes on.
    """

    def __init__(self, mode: str, folder: Path, **options: Any) -> None:
        """options: what else `wandb.init` takes: project, entity, group, job_type, name, tags, config."""
        self._options = {"mode": mode, "dir": str(folder), "reinit": "finish_previous", **options}
        self._run: Any = None
        self._warned = self._refused = False
        if mode == "online":
            self._started()

    def _started(self) -> Any:
        if self._run is None:
            import wandb

            Path(self._options["dir"]).mkdir(parents=True, exist_ok=True)
            waits = {"init_timeout": BEGIN_SECONDS, "finish_timeout": FINISH_SECONDS}
            settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, **waits)
            try:
                self._run = wandb.init(**self._options, settings=settings)
            except wandb.errors.Error as error:
                if isinstance(error, wandb.errors.CommError) and "Timed out" in str(error):
                    log.warning("W&B cannot be reached; the run is kept offline, for `wandb sync`.")
                    self._options["mode"] = "offline"
                    return self._started()
                advice = "Log in with `wandb login`, or set tracker.mode=offline or tracker=none."
                raise ValueError(f"W&B could not begin a run ({error}). {advice}") from error
            log.info("wandb: %s run in %s", self._options["mode"], self._run.dir)
        return self._run

    def _guarded(self, action: Callable[[Any, Any], object]) -> None:
        """Call `action(run, wandb)`; an error is logged once and swallowed, because tracking must not stop the work."""
        if self._refused:
            return
        try:
            import wandb

            action(self._started(), wandb)
        except Exception as error:
            self._refused = self._run is None  # it cannot begin, so it is not tried again
            if not self._warned:
                what = f"{type(error).__name__}: {error}"
                log.warning(
                    "W&B does not take what is logged (%s); the job goes on, its results are in the artifacts.", what
                )
            self._warned = True

    def metrics(self, values: dict[str, float]) -> None:
        self._guarded(lambda run, wandb: run.log(values))

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        self._guarded(lambda run, wandb: run.log({name: wandb.Table(columns=columns, data=rows)}))

    def image(self, name: str, path: Path) -> None:
        self._guarded(lambda run, wandb: run.log({name: wandb.Image(str(path))}))

    def page(self, name: str, path: Path) -> None:
        self._guarded(lambda run, wandb: run.log({name: wandb.Html(path.read_text("utf-8"), inject=False)}))

    def artifact(self, stage: str, key: str, parents: dict[str, str], folder: Path) -> None:
        """Log a W&B artifact that refers to the folder (nothing is uploaded), and the key as `lineage/<stage>`.

        An offline run can make W&B artifacts but not use any, so the parents stand in the artifact's metadata.
        """

        def add(run: Any, wandb: Any) -> None:
            made = wandb.Artifact(f"{stage}-{key}", type=stage, metadata={"key": key, "parents": parents})
            made.add_reference(folder.resolve().as_uri(), checksum=False)
            run.log_artifact(made)
            run.summary[f"lineage/{stage}"] = key

        self._guarded(add)

    def close(self, failed: bool = False) -> None:
        if self._run is not None:
            self._guarded(lambda run, wandb: run.finish(exit_code=1 if failed else 0))
            self._run = None
