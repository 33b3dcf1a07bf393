"""Which prompts a pipeline is given: what they say decides whether its images are steered."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.hooks.clock import PREPARE, StepClock
from icm_pipeline.hooks.wrapping import wrapped

ARGUMENTS = ("prompt", "prompt_2", "prompt_3")  # one text encoder may be given words of its own


class SeenPrompts:
    """The prompts of a pipeline's present call, as its own methods were told."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the call before."""
        self._texts: list[str] | None = None
        self._num_images = 0
        self._is_seen = self._is_of_schedule = False

    @property
    def is_numbered(self) -> bool:
        """Whether the call has latents."""
        return self._num_images > 0

    @property
    def prompts(self) -> list[str] | None:
        """The prompt of each image [n]; None before there are latents and where only embeddings were given.

        Where several text encoders are given prompts of their own, an image's are joined by newlines.
        """
        texts = self._texts
        if not texts or not self._num_images or self._num_images % len(texts):
            return None
        return [text for text in texts for _ in range(self._num_images // len(texts))]

    def prompts_of(self, clock: StepClock) -> list[str] | None:
        """Return the prompts of a run's images, None for a run that is another's, such as a loop of one's own."""
        return self.prompts if clock.is_pipelines or self._is_of_schedule else None

    def tell(self, texts: list[str] | None) -> None:
        """Take a call's first prompts; what else it encodes are negative ones."""
        if not self._is_seen:
            self._texts, self._is_seen = texts, True

    def tell_number(self, num_images: int, of_schedule: bool = False) -> None:
        """Take the number of images; of_schedule: told with the schedule of their run, which is no other's then."""
        self._num_images, self._is_of_schedule = num_images, of_schedule


@contextmanager
def prompts_seen(pipe: Any) -> Iterator[SeenPrompts]:
    """Read the prompts of each call of a pipeline while the context lasts, with those of several images repeated.

    A call begins where the pipeline checks its inputs or, where it has no such method, encodes its prompts, the
    negative ones along with them, or prepares latents again without having encoded any. A pipeline without an
    `encode_prompt` tells its prompts where it checks them. One that neither checks nor prepares (ERNIE-Image) has
    encoded them, then its negative ones, when it sets its scheduler; guided but having encoded once, it was given
    embeddings of either, and has no known prompts. Raises BackboneError for a pipeline that tells its prompts nowhere.

    Example:
        with prompts_seen(pipe) as seen:
            pipe(["a face", "a dog"], num_images_per_prompt=2)
        seen.prompts  # ["a face", "a face", "a dog", "a dog"]
    """
    seen, checks, encodes = SeenPrompts(), hasattr(pipe, "check_inputs"), hasattr(pipe, "encode_prompt")
    prepares = next((name for name in PREPARE if hasattr(pipe, name)), None)
    guides = encodes and not checks and hasattr(type(pipe), "do_classifier_free_guidance")
    if not (encodes or checks) or (prepares is None and not guides):
        lacks = f"none of {', '.join(PREPARE)}" if prepares is None else "no encode_prompt or check_inputs"
        raise BackboneError(
            f"A {type(pipe).__name__} has {lacks}, so which prompt each of its images has is not known, and shares "
            "leave alone whom a prompt names. Steer towards an option."
        )

    encoded: list[int] = []  # how many images each encoding was for, since the scheduler was set

    def checking(check_inputs: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        seen.begin()
        if not encodes:
            seen.tell(_texts(inspect.signature(check_inputs).bind(*args, **kwargs).arguments))
        return check_inputs(*args, **kwargs)

    def encoding(encode_prompt: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not checks and (prepares or not encoded or is_all_encoded()):
            seen.begin()
            encoded.clear()
        given = inspect.signature(encode_prompt).bind(*args, **kwargs).arguments
        texts = _texts(given)
        seen.tell(texts)
        if prepares is None:
            encoded.append(len(texts or ()) * given.get("num_images_per_prompt", 1))
        return encode_prompt(*args, **kwargs)

    def is_all_encoded() -> bool:
        return len(encoded) == 1 + bool(getattr(pipe, "do_classifier_free_guidance", False))

    def scheduling(set_timesteps: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if is_all_encoded():
            seen.tell_number(encoded[0], of_schedule=True)
        else:
            seen.begin()
        encoded.clear()
        return set_timesteps(*args, **kwargs)

    def preparing(prepare_latents: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not checks and seen.is_numbered:
            seen.begin()
        result = prepare_latents(*args, **kwargs)
        seen.tell_number(len(result[0] if isinstance(result, tuple) else result))
        return result

    with ExitStack() as stack:
        if checks:
            stack.enter_context(wrapped(pipe, "check_inputs", checking))
        if encodes:
            stack.enter_context(wrapped(pipe, "encode_prompt", encoding))
        if prepares:
            stack.enter_context(wrapped(pipe, prepares, preparing))
        else:
            stack.enter_context(wrapped(pipe.scheduler, "set_timesteps", scheduling))
        yield seen


def _texts(given: dict[str, Any]) -> list[str] | None:
    """Return the texts of each prompt, joined; None if none is given as text."""
    lists = [[value] if isinstance(value, str) else value for name in ARGUMENTS if (value := given.get(name))]
    return ["\n".join(dict.fromkeys(texts)) for texts in zip(*lists, strict=False)] if lists else None
