"""Make what src/icm_pipeline/explore/shipped holds for a model and an attribute, of the artifacts of a finished run.

    python benchmarks/ship_vectors.py PROBE SELECT FORETELL ALPHA LAST_STEP

takes the folders of three artifacts of one run, and how that steered. Directions and readers are kept in half
precision, of two opposite directions the second alone, and the probes of the selected layer that tells best: together
a sixth of what they are in a run.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from icm_pipeline.explore.readings import PROBES
from icm_pipeline.explore.shipped import SHIPPED
from icm_pipeline.methods.publishing import FILE_NAME
from icm_pipeline.methods.readers import FILE_NAME as READERS
from icm_pipeline.methods.readers import load_readers
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import load_vectors
from icm_pipeline.results.scores import Scores, Selection

HALVED = ("direction/", "reader/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("probe", "select", "foretell"):
        parser.add_argument(name, type=Path)
    parser.add_argument("alpha", type=float)
    parser.add_argument("last_step", type=int)
    given = parser.parse_args()
    vectors = load_vectors(given.probe / "vectors-probe.safetensors")
    num_steps = int(vectors.made_with["num_steps"])
    strength = Strength(given.alpha, "relative", 0, given.last_step, num_steps)
    folder = SHIPPED / f"{vectors.model}-{vectors.attribute}"
    folder.mkdir(parents=True, exist_ok=True)
    replace(vectors, strength=strength, readers=load_readers(given.foretell / READERS)).save(folder / FILE_NAME)
    _halve(folder / FILE_NAME)
    for name, source in ((Scores.FILE, given.probe), (Selection.FILE, given.select)):
        content = json.loads((source / name).read_text("utf-8"), parse_float=lambda text: round(float(text), 4))
        (folder / name).write_text(json.dumps(content, separators=(",", ":")) + "\n", "utf-8")
    layers = json.loads((given.select / Selection.FILE).read_text("utf-8"))["layers"]
    best = max(layers, key=vectors.scores.__getitem__)
    probes = load_file(given.probe / PROBES)
    save_file({name: values for name, values in probes.items() if name.split("/")[1] == best}, folder / PROBES)
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>9} {path}")


def _halve(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    halved = {name: _kept(values).half() if name.startswith(HALVED) else values for name, values in tensors.items()}
    save_file(halved, path, metadata=metadata)


def _kept(values: Tensor) -> Tensor:
    """Return directions [T, options, d]; of two options the second's alone where the first's are their opposite."""
    is_pair = values.ndim == 3 and values.shape[1] == 2 and torch.equal(values[:, 0], -values[:, 1])
    return values[:, 1:].contiguous() if is_pair else values


if __name__ == "__main__":
    main()
