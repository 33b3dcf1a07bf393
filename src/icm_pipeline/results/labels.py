"""Which option each image shows."""

import csv

import numpy as np

from icm_pipeline.images.table import read_table
from icm_pipeline.store.artifacts import Artifact

LABELS = "labels.csv"


def read_labels(labelled: Artifact, images: Artifact, options: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the option index (-1: not recognisable) and the prompt index of every image, in the images' order."""
    with labelled.path(LABELS).open(newline="", encoding="utf-8") as file:
        found = {row["id"]: row["option"] for row in csv.DictReader(file)}
    rows = read_table(images)
    labels = [options.index(found[row.image_id]) if found[row.image_id] else -1 for row in rows]
    return np.array(labels), np.array([row.prompt_index for row in rows])
