"""Run `python -m icm_pipeline` as a user would, in a folder of its own."""

import subprocess
import sys
from pathlib import Path

SMALL = (
    "generate.images_per_prompt=1", "generate.shard_size=8", "model.batch_size=8", "model.num_steps=6",
    "evaluate.images_per_prompt=4", "evaluate.bootstrap=20", "probe.min_per_option=3",
    "tracker=none", "method.first_step=0", "method.last_step=null", "alpha=3", "layers.k=6", "probe.C=0.01",
)  # fmt: skip


def command(outputs: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "icm_pipeline", f"paths.outputs={outputs}", *SMALL, *overrides]


def run(outputs: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(outputs, *overrides), cwd=outputs.parent, capture_output=True, text=True, check=False, timeout=600
    )


def artifact_hashes(outputs: Path) -> dict[str, str]:
    """Return {artifact/file: hash} of every file that an artifact below a folder lists."""
    import json

    hashes = {}
    for path in sorted(outputs.glob("artifacts/*/*/manifest.json")):
        if path.parent.suffix in (".partial", ".old"):
            continue
        for name, entry in json.loads(path.read_text())["files"].items():
            hashes[f"{path.parent.relative_to(outputs)}/{name}"] = entry["sha256"]
    return hashes
