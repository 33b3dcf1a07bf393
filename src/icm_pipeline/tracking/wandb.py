"""Figures, tables and pictures of a run in W&B, offline by default."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

BEGIN_SECONDS = 60  # that an online run tries to reach W&B; then it is kept offline
FINISH_SECONDS = 300  # that closing an online run waits for its uploads; the rest stays on disk for `wandb sync`


class WandbTracker:
    """One W&B run per job.

    Offline it begins when the first value is logged, so that a job with nothing to do leaves no run; online it begins
    at once, so that a missing login is noticed before anything is computed; raises ValueError then. Where W&B cannot be
    reached the run is kept offline. Whatever W&B refuses later is told once, as a warning, and the job goes on.
    """

    def __init__(
        self,
        mode: str,
        project: str,
        entity: str | None,
        group: str,
        job_type: str,
        name: str,
        tags: list[str],
        folder: Path,
        config: dict[str, Any],
    ) -> None:
        self._options: dict[str, Any] = {
            "mode": mode, "project": project, "entity": entity, "group": group, "job_type": job_type, "name": name,
            "tags": tags, "dir": str(folder), "config": config, "reinit": "finish_previous",
        }  # fmt: skip
        self._run: Any = None
        self._warned = self._refused = False
        if mode == "online":
            self._begun()

    def _begun(self) -> Any:
        if self._run is None:
            import wandb

            Path(str(self._options["dir"])).mkdir(parents=True, exist_ok=True)
            settings = wandb.Settings(
                silent=True, console="off", x_disable_stats=True, init_timeout=BEGIN_SECONDS,
                finish_timeout=FINISH_SECONDS,
            )  # fmt: skip
            try:
                self._run = wandb.init(**self._options, settings=settings)
            except wandb.errors.Error as error:
                if isinstance(error, wandb.errors.CommError) and "Timed out" in str(error):
                    log.warning("W&B cannot be reached; the run is kept offline, for `wandb sync`.")
                    self._options["mode"] = "offline"
                    return self._begun()
                raise ValueError(
                    f"W&B could not begin a run ({error}). Log in with `wandb login`, or set tracker.mode=offline or "
                    "tracker=none."
                ) from error
            log.info("wandb: %s run in %s", self._options["mode"], self._run.dir)
        return self._run

    def _guarded(self, action: Callable[[Any], object]) -> None:
        """Do something with the run; what goes wrong is told once, because tracking must not stop the work."""
        if self._refused:
            return
        try:
            action(self._begun())
        except Exception as error:
            self._refused = self._run is None  # it cannot begin, so it is not tried again
            if not self._warned:
                log.warning(
                    "W&B does not take what is logged (%s: %s); the job goes on, its results are in the artifacts.",
                    type(error).__name__, error,
                )  # fmt: skip
            self._warned = True

    def metrics(self, values: dict[str, float]) -> None:
        self._guarded(lambda run: run.log(values))

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        def add(run: Any) -> None:
            import wandb

            run.log({name: wandb.Table(columns=columns, data=rows)})

        self._guarded(add)

    def image(self, name: str, path: Path) -> None:
        def add(run: Any) -> None:
            import wandb

            run.log({name: wandb.Image(str(path))})

        self._guarded(add)

    def artifact(self, stage: str, key: str, parents: dict[str, str], folder: Path) -> None:
        """Log a W&B artifact that refers to the folder (nothing is uploaded), and the key as `lineage/<stage>`.

        W&B lets an offline run make artifacts but not use any, so the parents stand in the artifact's metadata.
        """

        def add(run: Any) -> None:
            import wandb

            made = wandb.Artifact(f"{stage}-{key}", type=stage, metadata={"key": key, "parents": parents})
            made.add_reference(folder.resolve().as_uri(), checksum=False)
            run.log_artifact(made)
            run.summary[f"lineage/{stage}"] = key

        self._guarded(add)

    def close(self, failed: bool = False) -> None:
        if self._run is not None:
            self._guarded(lambda run: run.finish(exit_code=1 if failed else 0))
            self._run = None
