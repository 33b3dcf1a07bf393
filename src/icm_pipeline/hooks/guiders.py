"""Which prediction a call of the denoiser is for, where a guider of diffusers says it.

A guider, as modular pipelines have one, divides a step into predictions, each of them a call of its own with one row
for every image, and names them: the conditional, the unconditional, one with layers skipped or attention perturbed.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.backbones.guidance import CONDITIONAL
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.wrapping import wrapped

GUIDERS = ("guider", "ocr_guider")  # of a pipeline
PREPARE_INPUTS = ("prepare_inputs", "prepare_inputs_from_block_state")  # of a guider: what each prediction is given


def guiders_of(pipe: Any) -> list[Any]:
    """Return the guiders that a pipeline may ask."""
    found = (getattr(pipe, name, None) for name in GUIDERS)
    return [guider for guider in found if guider is not None]


def listen_to_guiders(pipe: Any, clock: StepClock, stack: ExitStack) -> None:
    """Tell the clock the names of each pass's predictions, in the order of their calls, while the stack lasts.

    Raises BackboneError when a guider names none that is known to be conditional.
    """

    def preparing(guider: Any, prepare: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        batches = prepare(*args, **kwargs)
        names = [str(getattr(batch, guider._identifier_key)) for batch in batches]
        if CONDITIONAL not in names:
            raise BackboneError(
                f"{type(guider).__name__} calls its predictions {', '.join(names)}, none of them {CONDITIONAL}, so "
                "which is the conditional one is not known."
            )
        clock.tell_predictions(names)
        return batches

    for guider in guiders_of(pipe):
        for method in PREPARE_INPUTS:
            stack.enter_context(wrapped(guider, method, partial(preparing, guider)))
