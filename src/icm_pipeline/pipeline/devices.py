"""Several devices of one machine: a process of this program on each, through the shares of one stage."""

import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from icm_pipeline.config.compose import quoted
from icm_pipeline.store.artifacts import ArtifactError

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0


def run_on_devices(stage: str, setting: str, devices: list[str], overrides: list[str], logs: Path | None) -> None:
    """Make a stage with one process per device, under the same configuration, and wait for all of them.

    setting: the name of the stage's device setting; overrides: the configuration's command-line words; logs: where what
    they print goes. Raises ArtifactError with the last words of the first that failed, when the others have ended.
    """
    folder = logs or Path(tempfile.mkdtemp(prefix="icm-devices-"))
    outputs = [folder / f"{stage}-{index}.log" for index in range(len(devices))]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for index, output in enumerate(outputs):
            words = device_command(stage, index, setting, devices, overrides, folder)
            with output.open("w", encoding="utf-8") as file:
                process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
            processes.append(process)
        log.info("%s: on %s; what each prints is in %s", stage, ", ".join(devices), folder)
        codes = [process.wait() for process in processes]
    finally:
        _stop(processes)
    for code, device, output in zip(codes, devices, outputs, strict=True):
        if code != 0:
            lines = [line.strip() for line in output.read_text("utf-8", "replace").splitlines() if line.strip()]
            errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
            told = " ".join(lines[errors[-1] :] if errors else lines[-1:])  # the last error, else the last line
            raise ArtifactError(f"{stage} on {device} ended with code {code}: {told} (all of it: {output}).")


def device_command(
    stage: str, index: int, setting: str, devices: list[str], overrides: list[str], folder: Path
) -> list[str]:
    """Return the command of the process that makes a share of a stage on a device; it is not tracked."""
    kept = [word for word in overrides if not word.lstrip("+~").startswith(("tracker=", "tracker."))]
    return [
        sys.executable, "-m", "icm_pipeline", *kept, f"stage={stage}", f"shards={len(devices)}", f"shard={index}",
        "devices=[]", f"{setting}={devices[index]}", "tracker=none",
        "hydra.mode=RUN", f"hydra.run.dir={quoted(folder / f'{stage}-{index}')}",
    ]  # fmt: skip


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End the processes that still run, as when this one is told to stop."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
