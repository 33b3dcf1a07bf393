"""The demo from nothing, in a folder of its own: seconds, and what it says.

    python benchmarks/demo.py                       # on the CPU
    python benchmarks/demo.py compute.device=cuda   # words of the command line, for every stage

The time is that of the whole command, the start of Python included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import machine, note, timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--figures", type=Path, help="a file that the figures are appended to, as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"paths.outputs={folder}", "hydra.run.dir=${paths.outputs}/run", "tracker=none"]
        command = [sys.executable, "-m", "icm_pipeline", *outputs, *args.words]
        seconds = timed(lambda: subprocess.run(command, check=True))
        found = next(Path(folder).glob("artifacts/evaluate/*/metrics.json"))
        fairness = json.loads(found.read_text("utf-8"))
    print(f"{machine()}\nthe demo {' '.join(args.words)}: {seconds:.1f} s")
    note(args.figures, part="demo", words=args.words, seconds=seconds, evaluation=fairness)


if __name__ == "__main__":
    main()
