"""Guidance layouts: which rows of a denoiser call are conditional. What a layout cannot explain raises.

A layout is never guessed from the batch alone: every family names its own, one of `LAYOUTS`.
"""

from collections.abc import Callable
from typing import Any

from icm_pipeline.backbones.base import BackboneError, Call

CONDITIONAL = "pred_cond"  # what guiders of diffusers call the conditional prediction
MODULAR = "one prediction a call"  # the layout of every modular pipeline


def conditional_rows(layout: str, pipe: Any, call: Call) -> slice | None:
    """Return the conditional rows of a call, None if it has none; raises BackboneError for what is not explained.

    Where a guider names the prediction, that counts, and not the layout.
    """
    if call.prediction is not None:
        rows = _part(call, {1: 0})
        return rows if call.prediction == CONDITIONAL else None
    return LAYOUTS[layout](pipe, call)


def unconditional_first(pipe: Any, call: Call) -> slice | None:
    """One call with [unconditional..., conditional...], or conditional only without guidance."""
    _check_single(pipe, call)
    return _part(call, {1: 0, 2: 1})


def skip_layer_guidance(pipe: Any, call: Call) -> slice | None:
    """As `unconditional_first`; then SD3 may predict the conditional rows again with some of its layers left out.

    That is the prediction the image is pushed away from, and left alone.
    """
    if call.index == 1 and call.skips_layers:
        _part(call, {1: 0})
        return None
    return unconditional_first(pipe, call)


def conditional_first(pipe: Any, call: Call) -> slice | None:
    """One call with [conditional..., unconditional...] (Z-Image), or conditional only."""
    _check_single(pipe, call)
    return _part(call, {1: 0, 2: 0})


def conditional_first_of_three(pipe: Any, call: Call) -> slice | None:
    """As `conditional_first`, or three parts, where a picture is followed too: the conditional rows see both.

    Behind them are those of the picture alone and unconditional ones, in either order (InstructPix2Pix, OmniGen).
    """
    _check_single(pipe, call)
    return _part(call, {1: 0, 2: 0, 3: 0})


def embedded(pipe: Any, call: Call) -> slice | None:
    """One call with the conditional rows alone: guidance is an input of the denoiser, or there is none."""
    _check_single(pipe, call)
    return _part(call, {1: 0})


def two_calls(pipe: Any, call: Call) -> slice | None:
    """A conditional call, then with true classifier-free guidance an unconditional one on the same latents (FLUX)."""
    if call.index > 1 or (call.index == 1 and not call.repeats):
        _check_single(pipe, call)
    whole = _part(call, {1: 0})
    return whole if call.index == 0 else None


def one_prediction(pipe: Any, call: Call) -> slice | None:
    """A modular pipeline's call without a guider (FLUX): conditional, and with a row for each image."""
    if getattr(pipe, "guider", None) is not None:
        raise BackboneError(
            f"The denoiser of {type(pipe).__name__} ran without its guider, so what the call is for is not known: set "
            "the guider before the context, and let blocks of your own ask it for the inputs of every prediction."
        )
    return embedded(pipe, call)


def perturbed(pipe: Any, call: Call) -> slice | None:
    """Perturbed-attention guidance: [unconditional..., conditional..., perturbed...], each where it is switched on.

    Perturbed rows are left alone: they are the prediction that the image is pushed away from.
    """
    _check_single(pipe, call)
    is_told = hasattr(type(pipe), "do_classifier_free_guidance")  # other than by PixArt's
    try:
        guided, disturbed = is_told and pipe.do_classifier_free_guidance, pipe.do_perturbed_attention_guidance
    except AttributeError as error:  # what its __call__ sets
        raise BackboneError(
            f"This {type(pipe).__name__} was never called, so whether it guides and perturbs is not known: set its "
            "_guidance_scale and _pag_scale before a loop of your own, as its __call__ does."
        ) from error
    if not is_told:
        return _part(call, {2: 0, 3: 1} if disturbed else {1: 0, 2: 1})
    expected = 1 + bool(guided) + bool(disturbed)
    return _part(call, {expected: 1 if guided else 0})


def _check_single(pipe: Any, call: Call) -> None:
    """Raise BackboneError for a further call in a step."""
    if call.index > 0:
        raise BackboneError(
            f"The denoiser of {type(pipe).__name__} ran {call.index + 1} times in a step, and what the last call is "
            "for is not known. In a loop of your own lay guidance out as the pipeline does, and denoise several images "
            "in one batch or in runs of their own."
        )


def _part(call: Call, part_of: dict[int, int]) -> slice:
    """Return the rows of one part of the call. part_of: rows per image -> which of them is the conditional one."""
    found = call.rows_per_image
    if found not in part_of:
        raise BackboneError(
            f"The denoiser ran on {call.num_rows} rows for {call.num_images} image(s); "
            f"{' or '.join(map(str, part_of))} row(s) an image were expected, so the conditional ones are not known."
        )
    first = part_of[found] * call.num_images
    return slice(first, first + call.num_images)


LAYOUTS: dict[str, Callable[[Any, Call], slice | None]] = {
    "unconditional first": unconditional_first,
    "unconditional first, then with layers skipped": skip_layer_guidance,
    "conditional first": conditional_first,
    "conditional first of two or three": conditional_first_of_three,
    "two calls": two_calls,
    "embedded": embedded,
    "perturbed": perturbed,
    MODULAR: one_prediction,
}
