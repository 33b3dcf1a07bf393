"""A labeler says what pictures show: images in, a probability per option out."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from icm_pipeline.arrays import Floats
from icm_pipeline.progress import working
from icm_pipeline.text import installing

Questions = dict[str, dict[str, list[str]]]  # attribute -> option -> texts that describe it


class Labeler(Protocol):
    """What the stages need of a judge. A row of NaN means that the judge could not see what it was asked for."""

    def label(self, images: Sequence[Any], questions: Questions) -> dict[str, Floats]:
        """Return probabilities {attribute: [n, options]} for PIL images, each looked at once for all questions.

        Raises ValueError for an attribute or option it cannot judge.
        """


def image_batches(images: Sequence[Any], batch_size: int, title: str) -> Iterator[list[Any]]:
    """Yield the images in lists of `batch_size`, opened as they are needed, and show how far it has come."""
    with working(title, len(images), "image") as work:
        for start in range(0, len(images), batch_size):
            batch = [images[index] for index in range(start, min(start + batch_size, len(images)))]
            yield batch
            work.advance(len(batch))


def chosen_as(kind: str, setting: str) -> str:
    """Return the word that chose a judge for a group of the configuration: labeler=clip, labeler@judge=clip."""
    return f"labeler={kind}" if setting == "labeler" else f"labeler@{setting}={kind}"


def require(package: str, extra: str, wanted: str) -> None:
    """Raise ModuleNotFoundError saying what to install if a package is not there; imports nothing."""
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f"{wanted} needs the package {package!r}, which is not installed: {installing(extra)}"
        )


def package_folder(package: str) -> Path | None:
    """Return where an installed package lies without importing it, None if it is not installed."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
