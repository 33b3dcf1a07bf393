"""Start-up: `--help` and a finished run against what they must not wait for, the import of torch and diffusers.

    python benchmarks/startup.py

Every command is a new process, in turns; a ratio below 1 says that the command ends before the libraries would even be
loaded. A small whole run is made first, in a temporary folder, so that the run that is timed finds everything done.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from timing import in_turns, machine, print_ratios

SMALL = (
    "generate.images_per_prompt=1", "model.num_steps=4", "evaluate.images_per_prompt=2", "evaluate.bootstrap=10",
    "probe.min_per_option=2", "method.first_step=0", "method.last_step=null", "tracker=none",
)  # fmt: skip


def command(*words: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    imports = "import torch, diffusers"
    with tempfile.TemporaryDirectory(prefix="icm-startup-") as folder:
        outputs = f"paths.outputs={Path(folder) / 'outputs'}"
        whole = command("-m", "icm_pipeline", outputs, *SMALL)
        whole()
        ways = {
            imports: command("-c", "import torch, diffusers; diffusers.DiffusionPipeline"),
            "icm --help": command("-m", "icm_pipeline", "--help"),
            "icm ls": command("-m", "icm_pipeline", "ls", "--outputs", str(Path(folder) / "outputs")),
            "a finished stage=all": whole,
        }
        seconds = in_turns(ways, args.rounds)
    print(machine())
    print_ratios(seconds, imports, "command")


if __name__ == "__main__":
    main()
