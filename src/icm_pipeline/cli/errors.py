"""What a user can mend ends in one message; a sweep goes on with its other jobs."""

import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from traceback import extract_tb

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from yaml import YAMLError

from icm_pipeline.cli.running import HydraJob
from icm_pipeline.config.conf_folder import conf_path
from icm_pipeline.config.help_page import GROUPS
from icm_pipeline.config.mistakes import explain
from icm_pipeline.methods.registry import method_named
from icm_pipeline.results.sweeps import STOPPED, write_result
from icm_pipeline.store.artifacts import ArtifactError
from icm_pipeline.text import did_you_mean, installing

log = logging.getLogger(__name__)

# What a user can mend: bad values, damaged or missing artifacts, files that cannot be used, too big a batch.
USER_ERRORS = (
    ValueError, ArtifactError, OSError, ModuleNotFoundError, FloatingPointError, MemoryError, SafetensorError,
)  # fmt: skip
CHOICE = re.compile(rf"\+?({'|'.join(GROUPS)})(@[\w.]+)?=")
PARAM = re.compile(r"Could not override 'method\.params(?:\.(\w+))?'")
# What names a launcher's or sweeper's plugin in an error, and the extra that brings it.
PLUGIN_EXTRAS = {
    "launcher/submitit": "slurm", "launcher/joblib": "joblib", "launcher/ray": "ray", "sweeper/optuna": "optuna",
}  # fmt: skip


@contextmanager
def clear_errors(job: HydraJob) -> Iterator[None]:
    """End a single job with one message and exit code 1; of a sweep, note the error and go on with other jobs."""
    try:
        yield
    except BaseException as error:
        if job.sweep_folder is not None:
            told = STOPPED if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            with suppress(OSError):  # on a full disk the job's own error is the one to tell
                write_result(job.folder, job.overrides, {}, told)
        elif isinstance(error, USER_ERRORS):
            _write_traceback(error)
            sys.exit(f"error: {error}")
        raise


def _write_traceback(error: BaseException) -> None:
    """Write to the job's log file, and there only, where an error comes from."""
    origin = (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, str(error), (), origin)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            with suppress(OSError):
                handler.handle(record)


def end_with(error: Exception) -> None:
    """End with one message if the error is one that a user can mend, raise it otherwise."""
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        # A job's own have been told; this one kept Hydra from beginning the job.
        sys.exit(f"error: {error}. Set paths.outputs, of a sweep hydra.sweep.dir too, to a folder that can be written.")
    if isinstance(error, (*USER_ERRORS, HydraException, OmegaConfBaseException, YAMLError)):
        if missing := [extra for plugin, extra in PLUGIN_EXTRAS.items() if plugin in str(error)]:
            sys.exit(f"error: this launcher or sweeper is not installed. It needs: {installing(missing[0])}")
        sys.exit(f"error: {_about_param(error, sys.argv[1:]) or explain(error)}")
    if isinstance(error, RecursionError) and any(
        frame.filename.endswith("hydra/_internal/defaults_list.py") for frame in extract_tb(error.__traceback__)
    ):
        sys.exit(
            "error: the `defaults` of a file lead back to itself. Choices are written `- group: choice`, unquoted."
        )
    raise error


def _about_param(error: Exception, words: Sequence[str]) -> str | None:
    """Return what is said of a parameter that the method of a command line's words does not have; None if it is not."""
    unknown = PARAM.search(str(error))
    if unknown is None or (chosen := _chosen_method(words)) is None:
        return None
    known = list(method_named(chosen).params)
    if unknown[1] is None:
        return None if known else f"method={chosen} has no parameters: leave out method.params."
    if unknown[1] in known:
        return None
    return (
        f"method.params.{unknown[1]} is no parameter of method={chosen}."
        f"{did_you_mean(unknown[1], known, 'method.params.')} It has: {', '.join(known) or 'none'}."
    )


def _chosen_method(words: Sequence[str]) -> str | None:
    """Return the method that the choices of a command line come to, None where they do not tell."""
    choices = [word for word in words if CHOICE.match(word)]
    mended = suppress(*USER_ERRORS, HydraException, OmegaConfBaseException)
    with mended, initialize_config_dir(str(conf_path()), version_base="1.3"):
        found = compose("config", choices, return_hydra_config=True)
        is_varied = "method" in (found.hydra.sweeper.get("params") or {})
        return None if is_varied else str(found.method.name)
    return None
