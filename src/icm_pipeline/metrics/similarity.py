"""CLIP-I and CLIP-T: (cos + 1) / 2 between an image's embedding and its twin's, or its prompt's.

CLIP-I says how much of the picture stayed, CLIP-T how well it still fits the prompt.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026.
    https://arxiv.org/abs/2604.06052 (section 5)
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
    """Return the index of every id in `others`; raises ValueError naming ids that one side lacks."""
    if set(ids) != set(others):
        lonely = sorted(set(ids) ^ set(others))
        raise ValueError(f"{len(lonely)} image(s) have no twin, the first: {lonely[:5]}.")
    position = {image_id: index for index, image_id in enumerate(others)}
    return [position[image_id] for image_id in ids]
