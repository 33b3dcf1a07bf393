"""Shares that are kept over many calls: what was made so far says what the next images may be."""

import json
import threading
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.methods.assignment import least_change
from icm_pipeline.store.files import write_json


class Balance:
    """Shares of options and how many images of each were made; threads may use one together.

    An image alone is left as it is while its option is not ahead of its share, so that a service of single images comes
    to the shares over time, whatever their order, and changes few. Threads that choose at once know nothing of each
    other's images until these are counted; what they are ahead by then, later images make up for. Of several attributes
    the options are cells, as ("woman", "old").

    Example:
        balance = Balance({"woman": 0.5, "man": 0.5})
        with steer(pipe, vectors, shares=balance, look=6):
            image = pipe("a face of a doctor").images[0]
        balance.save("balance.json")  # and later Balance.read("balance.json")
    """

    def __init__(self, shares: Mapping[Any, float], counts: Mapping[Any, int] | None = None) -> None:
        """Raises ValueError for shares that do not add up to 1 and for counts of other options."""
        self.shares = checked_shares(shares)
        counts = {} if counts is None else counts
        known = isinstance(counts, Mapping) and all(name in self.shares for name in counts)
        if not known or not all(isinstance(n, Integral) and n >= 0 for n in counts.values()):
            raise ValueError(
                f"counts={counts}: give how many images, 0 or more, for {', '.join(map(str, self.shares))}."
            )
        self._counts = {name: int(counts.get(name, 0)) for name in self.shares}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Balance({self.shares}, counts={self.counts})"

    @property
    def counts(self) -> dict[Any, int]:
        """How many images of each option were made."""
        with self._lock:
            return dict(self._counts)

    def assign(self, probabilities: Floats, rng: np.random.Generator) -> Ints:
        """Return an option for each of the next images [n], in the order of the shares; nothing is counted yet.

        probabilities: [n, options] of what each shows. As few as possible are given another option than they show.
        """
        lower, upper = bounds(list(self.counts.values()), list(self.shares.values()), len(probabilities))
        return least_change(probabilities, lower, upper, rng)

    def count(self, options: Ints) -> None:
        """Count images that were made with these options."""
        with self._lock:
            for name, made in zip(self.shares, np.bincount(options, minlength=len(self.shares)), strict=True):
                self._counts[name] += int(made)

    def save(self, path: str | Path) -> None:
        """Write shares and counts as JSON, by one rename."""
        write_json(Path(path), {"shares": _written(self.shares), "counts": _written(self.counts)})

    @classmethod
    def read(cls, path: str | Path) -> "Balance":
        """Read what `save` wrote; raises ValueError for another or a damaged file."""
        try:
            content = json.loads(Path(path).read_text("utf-8"))
            return cls(_unwritten(content["shares"]), _unwritten(content["counts"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read as a balance: {error!r}") from error


def _written(values: dict[Any, Any]) -> Any:
    """Return what JSON can hold of values by option, or by cell of several attributes."""
    return [[list(key), value] for key, value in values.items()] if isinstance(next(iter(values)), tuple) else values


def _unwritten(values: Any) -> dict[Any, Any]:
    return {tuple(key): value for key, value in values} if isinstance(values, list) else values


def checked_shares(shares: Mapping[Any, float]) -> dict[Any, float]:
    """Return shares by option; raises ValueError unless they are two or more, none negative, and add up to 1."""
    check_mapping(shares)
    if not all(isinstance(share, Real) and share >= 0 for share in shares.values()):
        raise ValueError(f"shares={dict(shares)}: give each option a share from 0 to 1.")
    if len(shares) < 2 or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"shares={dict(shares)} add up to {sum(shares.values()):g}: the shares of all options make 1.")
    return {name: _double(share) for name, share in shares.items()}


def check_mapping(shares: Any) -> None:
    """Raise ValueError for shares that do not say which option each is of."""
    if not isinstance(shares, Mapping):
        raise ValueError(f'shares={shares!r}: say which option each is of, as {{"woman": 0.5, "man": 0.5}}.')


def _double(share: Any) -> float:
    """Return a share as it is written, so that 0.2 in single precision is 0.2."""
    return float(str(share) if isinstance(share, np.floating) else share)


def bounds(counts: list[int], shares: list[float], num_images: int) -> tuple[Ints, Ints]:
    """Return how many of the next images each option gets at least and at most [options].

    With them every option is within one image of its share of all so far, where what was made before allows that;
    otherwise the options that are furthest behind get the images.
    """
    wanted = (sum(counts) + num_images) * np.array(shares) - np.array(counts)
    lower = np.maximum(np.floor(wanted + 1e-9), 0).astype(np.int64)
    upper = np.maximum(np.ceil(wanted - 1e-9), 0).astype(np.int64)
    if lower.sum() <= num_images:
        return lower, upper
    given = np.zeros(len(shares), np.int64)
    for _ in range(num_images):
        given[(wanted - given).argmax()] += 1
    return given, given
