"""Which tests each diffusers class passed on random weights, and the models shipped here that were trained as it."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from icm_pipeline.zoo.paths import ZOO

FILE = Path(__file__).with_suffix(".json")
"""Written by tools/proofs.py."""


class Proof(NamedTuple):
    """What a class was tested as ("a denoiser": prompts are embeddings), and which tests it passed."""

    kind: str
    tests: tuple[str, ...]


@cache
def proofs() -> dict[str, list[Proof]]:
    """Return what was tested, by class."""
    found: dict[str, list[Proof]] = {}
    for group in json.loads(FILE.read_text("utf-8")):
        for name in group["classes"]:
            found.setdefault(name, []).append(Proof(group["as"], tuple(group["tests"])))
    return found


@cache
def trained() -> dict[str, str]:
    """Return the names of the embedded models by their pipelines' classes."""
    indexes = {path.parent.name: json.loads(path.read_text("utf-8")) for path in sorted(ZOO.glob("*/model_index.json"))}
    return {index["_class_name"]: name for name, index in indexes.items()}
