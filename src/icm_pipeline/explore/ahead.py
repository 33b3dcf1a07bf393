"""The slider's next places, made while nobody asks, so that going there costs nothing."""

import atexit
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue

from icm_pipeline.explore.material import Material
from icm_pipeline.explore.setting import NOTCHES, REACH, Setting, at_position, position_of
from icm_pipeline.explore.studio import USER_ERRORS, Studio
from icm_pipeline.explore.turns import GaveWayError

LONGEST_STEP = 30  # seconds of a denoising step that is waited for
MOST_NOTCHES = 3  # to each side of where the slider stands


def next_places(setting: Setting, material: Material, left: str, right: str) -> list[Setting]:
    """Return a setting with the slider at the places around its own, the nearest first."""
    most, at = REACH * material.alpha, position_of(setting, left)
    wanted = [
        round(at + side * number * most / NOTCHES, 6) for number in range(1, MOST_NOTCHES + 1) for side in (1, -1)
    ]
    return [at_position(setting, place, left, right) for place in wanted if 0 < abs(place) <= most]


class Ahead:
    """A thread that makes settings nobody asked for yet, of those that were told last."""

    def __init__(self, studio: Studio) -> None:
        self._studio, self._told = studio, SimpleQueue[tuple[Material, Sequence[Setting]] | None]()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        atexit.register(self.end)

    def tell(self, material: Material, settings: Sequence[Setting]) -> None:
        """Say what is to be made next."""
        self._told.put((material, settings))

    def end(self) -> None:
        """Leave what is being made: a thread inside of the model when the program ends would abort it."""
        self._told.put(None)
        self._studio.leave_unasked()
        self._thread.join(timeout=LONGEST_STEP)

    def _work(self) -> None:
        while (told := self._told.get()) is not None:
            material, settings = told
            # What cannot be made is told to the user who asks for it.
            with suppress(GaveWayError, *USER_ERRORS):
                for setting in settings:
                    if self._told.empty():
                        self._studio.make_ahead(material, setting)
