"""A labeler says what pictures show: images in, a probability per option out."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Floats = NDArray[np.float64]
Questions = dict[str, dict[str, list[str]]]  # attribute -> option -> texts that describe it


class Labeler(Protocol):
    """What the stages need of a judge. A row of NaN means that the judge could not see what it was asked for."""

    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        """Return probabilities {attribute: [n, options]} for PIL images, each looked at once for all questions.

        Raises ValueError for an attribute or option it cannot judge.
        """


def image_batches(images: Sequence[Any], batch_size: int, title: str) -> Iterator[list[Any]]:
    """Yield the images in lists of `batch_size`, opened as they are needed, with a bar if it takes longer."""
    alone = len(images) <= batch_size
    with tqdm(total=len(images), desc=title, unit="image", mininterval=1, delay=2, disable=alone) as bar:
        for start in range(0, len(images), batch_size):
            batch = [images[index] for index in range(start, min(start + batch_size, len(images)))]
            yield batch
            bar.update(len(batch))


def load_labeler(kind: str, model: str, path: str, batch_size: int, device: str) -> Labeler:
    """Load a labeler by its kind; nothing heavy is imported before."""
    if kind == "tiny":
        from icm_pipeline.labelers.tiny import TinyLabeler

        return TinyLabeler(path, batch_size, device)
    if kind == "clip":
        from icm_pipeline.labelers.clip import ClipJudge

        return ClipJudge(model, path, batch_size, device)
    raise ValueError(f"labeler.kind={kind} is not known; choose from clip, tiny.")
