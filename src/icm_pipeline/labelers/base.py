"""A labeler says what pictures show: images in, a probability per option out."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Labeler(Protocol):
    """What the stages need of a judge. A row of NaN means that the judge could not see what it was asked for."""

    def label(self, images: list[Any], attribute: str, options: dict[str, list[str]]) -> NDArray[np.float64]:
        """Return probabilities [n, options] for PIL images; raises ValueError for an attribute it cannot judge."""


def load_labeler(kind: str, model: str, path: str, batch_size: int, device: str) -> Labeler:
    """Load a labeler by its kind; nothing heavy is imported before."""
    if kind == "tiny":
        from icm_pipeline.labelers.tiny import TinyLabeler

        return TinyLabeler(path, batch_size, device)
    if kind == "clip":
        from icm_pipeline.labelers.clip import ClipJudge

        return ClipJudge(model, path, batch_size, device)
    raise ValueError(f"labeler.kind={kind} is not known; choose from clip, tiny.")
