"""How far to push: bisection to the smallest alpha that turns a wanted share of the images that must change.

Up to the alpha that the model recommends, an image has a threshold: what turned at some alpha is taken to turn at a
larger one too, and what did not turn, not to turn at a smaller one. So an alpha costs only the images of which that is
not known yet, the stubborn first, and it is decided as soon as enough of them turned or too many did not: the answer is
that of trying all images at every alpha (curtailed sampling), for a fraction of them. Beyond that alpha pictures may
break and turn back, so there nothing is taken for granted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FARTHEST, NEAREST = 2.0, 1 / 16  # of the alpha that the model recommends: beyond, pictures break
FEW, ROUGH = 8, 1.5  # images and factor of a first search, which tells where to look
MOST_IMAGES = 300  # of a model, for all options
PRECISION = 1.05  # the factor between an alpha that is enough and one that is not, at which the search ends


@dataclass(frozen=True)
class Tried:
    """What is known of one alpha."""

    alpha: float
    flips: int
    """The images that show the option, among those of which it is known."""
    images: int


@dataclass(frozen=True)
class Tuned:
    """The alpha of an option, and how it was found."""

    alpha: float
    share: float = 0.0
    """Of the images that must change, those known to do so at this alpha; the search may have needed no more."""
    reached: bool = False
    """Whether that is the wanted share; if not, no alpha that was tried turns more."""
    images: int = 0
    """That must change."""
    made: int = 0
    """How often one of them was made, steered."""
    curve: tuple[Tried, ...] = ()


@dataclass(frozen=True)
class Budget:
    """How many images a search may take."""

    most: int
    num_unsteered: int
    num_candidates: int
    """The images that must change to an option: so many, or fewer where fewer show another one."""
    num_steered: int
    """Steered to one option."""


def budget_for(num_options: int, most: int = MOST_IMAGES) -> Budget:
    """Share out a number of images: for each candidate about three steered ones, which decide its option's alpha.

    Every unsteered image is a candidate of all options but its own; a fifth more are made than if all were as frequent.
    """
    per_option = 1.2 * num_options / (num_options - 1)
    num_candidates = int(most / (3 * num_options + per_option))
    num_unsteered = math.ceil(per_option * num_candidates)
    return Budget(most, num_unsteered, num_candidates, (most - num_unsteered) // num_options)


class _Answers:
    """Which images turned at which alpha."""

    def __init__(
        self, flips: Callable[[float, Sequence[int]], Sequence[bool]], num_images: int, trusted: float, most: int
    ) -> None:
        self._flips, self._trusted, self._left = flips, trusted, most
        self._known: list[dict[float, bool]] = [{} for _ in range(num_images)]
        self.made = 0
        self.tried: list[float] = []

    def turns(self, image: int, alpha: float) -> bool | None:
        """Say whether an image turns at an alpha, None if that is not known."""
        known = self._known[image]
        if alpha in known or alpha > self._trusted:
            return known.get(alpha)
        inside = [(at, turned) for at, turned in known.items() if at <= self._trusted]
        if any(turned and at <= alpha for at, turned in inside):
            return True
        return False if any(not turned and at >= alpha for at, turned in inside) else None

    def counts(self, alpha: float, images: range | None = None) -> tuple[int, int]:
        """Return how many of all or some images are known to turn at an alpha, and how many not to."""
        found = [self.turns(image, alpha) for image in (range(len(self._known)) if images is None else images)]
        return found.count(True), found.count(False)

    def is_enough(self, alpha: float, images: range, needed: int, batch: int) -> bool | None:
        """Say whether so many of some images turn at an alpha, None if what may be made does not suffice to tell."""
        self.tried += [alpha] * (alpha not in self.tried)
        while True:
            turned, failed = self.counts(alpha, images)
            if turned >= needed:
                return True
            if failed > len(images) - needed:
                return False
            if not self._make(alpha, images, batch):
                return None

    def make_all(self, alpha: float, batch: int) -> int:
        """Return how many turn at an alpha, of all as far as they may be made."""
        while self._make(alpha, range(len(self._known)), batch):
            pass
        return self.counts(alpha)[0]

    def _make(self, alpha: float, images: range, batch: int) -> bool:
        unknown = [image for image in images if self.turns(image, alpha) is None]
        unknown.sort(key=self._turned_share)
        chosen = unknown[: min(batch, self._left)]
        for image, turned in zip(chosen, self._flips(alpha, chosen) if chosen else (), strict=True):
            self._known[image][alpha] = turned
        self._left -= len(chosen)
        self.made += len(chosen)
        return bool(chosen)

    def _turned_share(self, image: int) -> tuple[float, float]:
        """Return what sorts the stubborn first: the larger the alphas at which they stayed."""
        known = self._known[image]
        return -max((at for at, turned in known.items() if not turned), default=0.0), float(len(known))


def smallest_alpha(
    flips: Callable[[float, Sequence[int]], Sequence[bool]],
    num_images: int,
    start: float,
    wanted: float,
    most: int,
    batch: int = 8,
) -> Tuned:
    """Search the smallest alpha at which a wanted share of the images turns.

    flips: makes some images, by their index, at an alpha and says of each whether it shows the option; num_images: that
    do not show it unsteered; start: the alpha that the model recommends; most: images that may be made; batch: at once.
    Where even FARTHEST times the start turns too few, the smallest alpha that turns as many as either.
    """
    if not num_images:
        return Tuned(start)
    known, images = _Answers(flips, num_images, start, most), range(num_images)
    bounds = (start * NEAREST, start * FARTHEST)
    near = _search(known, images[:FEW], wanted, start, ROUGH, bounds, batch)
    found = _search(known, images, wanted, min(near or start, start), PRECISION, bounds, batch)
    if found is None:
        num_turned, less = max((known.make_all(alpha, batch), -alpha) for alpha in (start, bounds[1]))
        again = _search(known, images, num_turned / num_images, -less, PRECISION, bounds, batch) if num_turned else None
        found = again or start
    share = known.counts(found)[0] / num_images
    return Tuned(found, share, share >= wanted, num_images, known.made, _curve(known))


def _search(
    known: _Answers, images: range, wanted: float, start: float, precision: float, bounds: tuple[float, float],
    batch: int,
) -> float | None:  # fmt: skip
    """Return the smallest alpha within bounds at which a share of some images turns, None if there is none.

    From the start by growing factors, until there is an alpha that is not enough and one that is, then between these.
    """
    needed = math.ceil(round(wanted * len(images), 9))
    low, high, factor, alpha = 0.0, math.inf, ROUGH, start
    while (enough := known.is_enough(alpha, images, needed, batch)) is not None:
        low, high = (low, alpha) if enough else (alpha, high)
        if high <= max(low * precision, bounds[0]) or low >= bounds[1]:
            break
        if low and high < math.inf:
            alpha = math.sqrt(low * high)
        else:
            alpha = min(max(alpha / factor if enough else alpha * factor, bounds[0]), bounds[1])
            factor *= factor
    return high if high < math.inf else None


def _curve(known: _Answers) -> tuple[Tried, ...]:
    found = [(alpha, *known.counts(alpha)) for alpha in sorted(known.tried)]
    return tuple(Tried(alpha, turned, turned + failed) for alpha, turned, failed in found)
