"""The vectors that the package ships for the embedded models, so that exploring one begins without a run.

They are those of experiment=fresh, in half precision: benchmarks/ship_vectors.py made them of its artifacts. Of two
options whose directions are opposite the second's are kept.
"""

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from icm_pipeline.config.choices import EMBEDDED
from icm_pipeline.config.schema import Settings
from icm_pipeline.explore.material import Material
from icm_pipeline.explore.readings import PROBES, read_layer
from icm_pipeline.methods.publishing import FILE_NAME
from icm_pipeline.methods.vectors import load_vectors
from icm_pipeline.results.records import from_json
from icm_pipeline.results.scores import Scores, Selection

SHIPPED = Path(__file__).resolve().parent / "shipped"


def shipped_materials(settings: Settings, without: Collection[str] = ()) -> list[Material]:
    """Return what is shipped for the configured model, the configured attribute first; without: attributes to skip."""
    if not settings.model.path.startswith(EMBEDDED):
        return []
    known = {settings.attribute.name: settings.attribute, **settings.evaluate.drift}
    found = []
    for name, attribute in known.items():
        folder = SHIPPED / f"{settings.model.path.removeprefix(EMBEDDED)}-{name}"
        if folder.is_dir() and name not in without:
            own = replace(settings, attribute=attribute)
            found.append(replace(_read(folder, own), words=(f"attribute={name}",)))
    return found


def _read(folder: Path, settings: Settings) -> Material:
    vectors = load_vectors(folder / FILE_NAME)
    directions = {layer: _of_all_options(values.float()) for layer, values in vectors.directions.items()}
    vectors = replace(vectors, directions=directions, words=settings.attribute.words)
    scores: Scores = from_json(Scores, json.loads((folder / Scores.FILE).read_text("utf-8")))
    selection: Selection = from_json(Selection, json.loads((folder / Selection.FILE).read_text("utf-8")))
    reading = read_layer(folder / PROBES, vectors.scores, vectors.noise_levels)
    return Material(settings.attribute.name, settings, vectors, tuple(selection.layers), scores, reading)


def _of_all_options(directions: Tensor) -> Tensor:
    """Return directions [T, options, d]; of one that is kept for two the opposite before it."""
    return torch.cat([-directions, directions], dim=1) if directions.shape[1] == 1 else directions
