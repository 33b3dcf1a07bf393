"""Likeness: CLIP-I between twins, CLIP-T of each side with its prompt, known by hand from embeddings of two numbers."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.arrays import spread
from icm_pipeline.evaluation.likeness import Likeness, likeness_of, mean_of
from icm_pipeline.evaluation.pairs import ImagePairs
from icm_pipeline.images.table import ImageRow
from icm_pipeline.results.evaluation import Lost

# By hand, cosines of twins: 0.6, 0 and -1; of originals with their prompts: 1, 0.8 and 0; of steered: 0.6, -0.6 and 0.
EMBEDDED = {
    "original": {"0": (1, 0), "1": (3, 4), "2": (0, 2)},
    "steered": {"0": (3, 4), "1": (4, -3), "2": (0, -1)},
}
PROMPTS = {"a": (1, 0), "b": (0, 1)}


class KnownEmbeddings:
    """An encoder that knows what it is shown by the picture's folder and name."""

    def embed(self, rows: Sequence[ImageRow]) -> np.ndarray:
        seen = [EMBEDDED[row.path.parent.name][row.path.stem] for row in rows if not row.problem]
        return spread([not row.problem for row in rows], np.array(seen, float))

    def embed_prompts(self, prompts: list[str]) -> np.ndarray:
        return np.array([PROMPTS[prompt] for prompt in prompts], float)


@pytest.fixture
def pairs(tmp_path: Path) -> ImagePairs:
    def rows(side: str) -> list[ImageRow]:
        (tmp_path / side).mkdir()
        table = []
        for index, prompt in enumerate(["a", "b", "a"]):
            path = tmp_path / side / f"{index}.png"
            seed = index if side == "original" or index else 7  # the first pair differs
            pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            table.append(ImageRow(str(index), prompt, 0, index, "", path))
        return table

    nobody: Any = None
    return ImagePairs("x", rows("steered"), rows("original"), nobody, None, {}, None, Lost())


def likeness(pairs: ImagePairs) -> dict[str, list[float]]:
    """Return each figure of all images."""
    judging: Any = KnownEmbeddings()
    found = likeness_of(judging, pairs)
    return {field.name: [getattr(image, field.name) for image in found] for field in fields(Likeness)}


def test_clip_i_is_of_twins_and_clip_t_of_each_side_with_its_own_prompt(pairs: ImagePairs) -> None:
    found = likeness(pairs)
    assert found["clip_i"] == pytest.approx([0.8, 0.5, 0.0])
    assert found["clip_t_original"] == pytest.approx([1.0, 0.9, 0.5])
    assert found["clip_t"] == pytest.approx([0.8, 0.2, 0.5])
    assert found["ssim"][1:] == pytest.approx([1, 1])
    assert found["ssim"][0] < 0.5


def test_without_twins_there_is_only_clip_t_of_the_images_themselves(pairs: ImagePairs) -> None:
    found = likeness(replace(pairs, twins=None))
    assert found["clip_t"] == pytest.approx([0.8, 0.2, 0.5])
    assert all(np.isnan(values).all() for values in (found["clip_i"], found["clip_t_original"], found["ssim"]))


def test_an_image_without_a_prompt_or_a_picture_is_nan_in_its_own_place(pairs: ImagePairs) -> None:
    assert pairs.twins is not None
    rows, twins = list(pairs.rows), list(pairs.twins)
    rows[0] = replace(rows[0], prompt="")
    twins[2] = replace(twins[2], problem="no such file")
    found = likeness(replace(pairs, rows=rows, twins=twins))
    assert found["clip_i"] == pytest.approx([0.8, 0.5, np.nan], nan_ok=True)
    assert found["clip_t"] == pytest.approx([np.nan, 0.2, 0.5], nan_ok=True)
    assert found["clip_t_original"] == pytest.approx([np.nan, 0.9, np.nan], nan_ok=True)
    assert np.isnan(found["ssim"]).tolist() == [False, False, True]


def test_a_mean_is_of_what_is_there() -> None:
    assert mean_of(np.array([0.25, np.nan, 0.75])) == 0.5
    assert mean_of(np.array([np.nan])) is None
