"""Where figures, tables and pictures of a run go: W&B (offline by default) or nowhere."""

import logging
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Tracker(Protocol):
    def metrics(self, values: dict[str, float]) -> None:
        """Log scalars under stable names such as `fd/mean`."""

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Log a table."""

    def image(self, name: str, path: Path) -> None:
        """Log a picture file."""

    def close(self, failed: bool = False) -> None:
        """Finish the run, as failed or not; the tracker cannot be used afterwards."""


class NoTracker:
    """Keeps nothing."""

    def metrics(self, values: dict[str, float]) -> None: ...

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None: ...

    def image(self, name: str, path: Path) -> None: ...

    def close(self, failed: bool = False) -> None: ...


class WandbTracker:
    """One W&B run per job.

    Offline it begins when the first value is logged, so that a job with nothing to do leaves no run; online it begins
    at once, so that a missing login is noticed before anything is computed. Raises ValueError if W&B refuses.
    """

    def __init__(
        self,
        mode: str,
        project: str,
        entity: str | None,
        group: str,
        name: str,
        tags: list[str],
        folder: Path,
        config: dict[str, Any],
    ) -> None:
        self._options: dict[str, Any] = {
            "mode": mode, "project": project, "entity": entity, "group": group, "name": name, "tags": tags,
            "dir": str(folder), "config": config, "reinit": "finish_previous",
        }  # fmt: skip
        self._run: Any = None
        if mode == "online":
            self._begun()

    def _begun(self) -> Any:
        if self._run is None:
            import wandb

            Path(str(self._options["dir"])).mkdir(parents=True, exist_ok=True)
            settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
            try:
                self._run = wandb.init(**self._options, settings=settings)
            except wandb.errors.Error as error:
                raise ValueError(
                    f"W&B could not begin a run ({error}). Log in with `wandb login`, or set tracker.mode=offline or "
                    "tracker=none."
                ) from error
            log.info("wandb: %s run in %s", self._options["mode"], self._run.dir)
        return self._run

    def metrics(self, values: dict[str, float]) -> None:
        self._begun().log(values)

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        import wandb

        self._begun().log({name: wandb.Table(columns=columns, data=rows)})

    def image(self, name: str, path: Path) -> None:
        import wandb

        self._begun().log({name: wandb.Image(str(path))})

    def close(self, failed: bool = False) -> None:
        if self._run is not None:
            self._run.finish(exit_code=1 if failed else 0)
            self._run = None
