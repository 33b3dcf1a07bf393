"""Run `python -m icm_pipeline` as a user would, in a folder and a process of its own.

The process is forked from one that has imported what a job imports, so that a command costs its own work and no
imports; `run_afresh` starts Python for it, as a shell does.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

SMALL = (
    "attribute.probe_subjects=[person,human]", "generate.images_per_prompt=1", "generate.shard_size=8",
    "compute.batch_size=8", "model.num_steps=6", "evaluate.images_per_prompt=4", "evaluate.bootstrap=20",
    "probe.min_per_option=3", "tracker=none", "method.first_step=0", "method.last_step=null", "alpha=3", "layers.k=6",
    "probe.C=0.01",
)  # fmt: skip
IMPORTED = (
    "tests.helpers.command_line", "icm_pipeline.__main__", "icm_pipeline.cli.job", "icm_pipeline.cli.preflight",
    "icm_pipeline.cli.housekeeping", "icm_pipeline.backbones.registry", "icm_pipeline.labelers.clip",
    "icm_pipeline.labelers.tiny", "icm_pipeline.planning.plan", "icm_pipeline.planning.tables",
    "icm_pipeline.report.sweep_report", "icm_pipeline.stages.generate", "icm_pipeline.stages.steer",
    "icm_pipeline.stages.probe", "icm_pipeline.stages.evaluate", "icm_pipeline.stages.report",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "transformers.models.clip.modeling_clip",
    "matplotlib.pyplot", "open_clip", "sklearn.metrics", "wandb",
)  # fmt: skip
SECONDS = 600

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(list(IMPORTED))


def words_of(outputs: Path, *overrides: str) -> list[str]:
    return [f"paths.outputs={outputs}", *SMALL, *overrides]


def command(outputs: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "icm_pipeline", *words_of(outputs, *overrides)]


def run_afresh(outputs: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(outputs, *overrides), cwd=outputs.parent, capture_output=True, text=True, check=False, timeout=SECONDS
    )


def run(outputs: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return run_words(words_of(outputs, *overrides), outputs.parent)


def run_words(
    words: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m icm_pipeline` with these words in a folder, and wait for it."""
    with tempfile.TemporaryDirectory() as texts:
        out, err = (Path(texts) / name for name in ("out", "err"))
        process = started(words, folder, out, err, environment)
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, SECONDS)
        return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def started(
    words: list[str], folder: Path, out: Path, err: Path, environment: Mapping[str, str] | None = None
) -> ForkServerProcess:
    """Start `python -m icm_pipeline` with these words in a folder."""
    process = _forking.Process(
        target=_main, args=(words, str(folder), str(out), str(err), dict(environment or os.environ))
    )
    process.start()
    return process


def _main(words: list[str], folder: Path, out: Path, err: Path, environment: dict[str, str]) -> None:
    """What the forked process does: become the command."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for path, descriptor in ((os.devnull, 0), (out, 1), (err, 2)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - multiprocessing closed its own
    import icm_pipeline.__main__ as program

    sys.argv = [program.__file__, *words]
    program.run()


def artifact_hashes(outputs: Path) -> dict[str, str]:
    """Return {artifact/file: hash} of every file that an artifact below a folder lists.

    All but report.html, which tells when the artifacts were made, and where.
    """
    return {name: digest for name, digest in listed_files(outputs).items() if not name.endswith("/report.html")}


def listed_files(outputs: Path) -> dict[str, str]:
    """Return {artifact/file: hash} of every file that an artifact below a folder lists."""
    import json

    hashes = {}
    for path in sorted(outputs.glob("artifacts/*/*/manifest.json")):
        if path.parent.suffix in (".partial", ".old"):
            continue
        for name, entry in json.loads(path.read_text())["files"].items():
            hashes[f"{path.parent.relative_to(outputs)}/{name}"] = entry["sha256"]
    return hashes
