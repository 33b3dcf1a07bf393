"""What Hydra knows of a job, as values, and what the jobs of one command share."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from icm_pipeline.backbones.loaded import ModelCache

if TYPE_CHECKING:
    from icm_pipeline.planning.plan import Plan


@dataclass(frozen=True)
class HydraJob:
    """What Hydra knows of a job."""

    folder: Path
    """The job's own, for its log, its result and its tracker's files."""
    overrides: list[str]
    """The settings on its command line."""
    words: list[str]
    """A command line for its configuration: options that name folders and file, and the settings."""
    sweep_folder: Path | None
    """That of the multirun, if it is a job of one."""
    takes_two: bool = False
    """Whether its sweeper takes two figures."""


@dataclass
class RunningSweep:
    """What the jobs of one command share: those of a multirun, or the one job of a plain command.

    Launchers pickle it with each job. In a worker process it becomes one empty sweep for all jobs of the command, so
    that a worker loads a model once; jobs that force or plan run in the command's own process.
    """

    folder: Path | None = None
    """Of a multirun, which writes there from its first job on."""
    config: Any = None
    """The configuration that the jobs of a multirun vary."""
    forced: set[str] = field(default_factory=set)
    """Keys of what its jobs made because of force=true."""
    plan: "Plan | None" = None
    """What its jobs that only plan come to."""
    models: ModelCache = field(default_factory=ModelCache)
    command: str = field(default_factory=lambda: uuid4().hex)
    """Sets its pickles apart from those of other commands."""

    @property
    def begun(self) -> bool:
        """Whether it is a multirun that wrote anything; not if Hydra refused it before its first job."""
        return self.folder is not None and self.folder.is_dir() and any(self.folder.iterdir())

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return _in_worker, (self.command,)


@lru_cache(maxsize=1)
def _in_worker(command: str) -> RunningSweep:
    return RunningSweep(command=command)


# Where the callback, which Hydra makes itself, finds the sweep of its command. Jobs do not need it: `run` binds the
# sweep to the function that Hydra calls for each.
this_command: ContextVar[RunningSweep] = ContextVar("this_command")
