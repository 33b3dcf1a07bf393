"""CLIP-I and CLIP-T: (cos + 1) / 2 between an image's embedding and its twin's, or its prompt's (the paper, section 5).

CLIP-I says how much of the picture stayed, CLIP-T how well it still fits the prompt.
"""

import numpy as np

from icm_pipeline.arrays import Floats


def mapped_cosine(a: Floats, b: Floats) -> Floats:
    """Return (cos + 1) / 2 for each pair of rows of a and b, both [n, d]; raises ValueError if shapes differ."""
    if a.shape != b.shape:
        raise ValueError(f"Pairs need equally many embeddings of one width, found {a.shape} and {b.shape}.")
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return (cosine + 1) / 2


def pair_by_id(ids: list[str], others: list[str]) -> list[int]:
    """Return, for every id, where it stands in `others`; raises ValueError naming ids that stand on one side only."""
    if set(ids) != set(others):
        lonely = sorted(set(ids) ^ set(others))
        raise ValueError(f"{len(lonely)} image(s) have no twin, the first: {lonely[:5]}.")
    position = {image_id: index for index, image_id in enumerate(others)}
    return [position[image_id] for image_id in ids]
