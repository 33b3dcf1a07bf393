"""The same pieces without Hydra: steer and record any known pipeline that its user has loaded himself."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from icm_pipeline.backbones.modules import merges_tokens
from icm_pipeline.backbones.registry import attach
from icm_pipeline.hooks.hooked import Hook, hooked
from icm_pipeline.hooks.looking import looking
from icm_pipeline.hooks.prompts import prompts_seen
from icm_pipeline.hooks.recording import Recorded
from icm_pipeline.methods.balance import Balance
from icm_pipeline.methods.chosen import OneAttribute, check_layers, chosen_vectors, warn_of_another_model
from icm_pipeline.methods.folding import Folded, FoldingError, constant_shifts
from icm_pipeline.methods.joint import Attributes, LookAndSteerJointly
from icm_pipeline.methods.looking import LookAndSteer
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength, is_sequence, plain_numbers
from icm_pipeline.methods.vectors import SteeringVectors

log = logging.getLogger(__name__)


@contextmanager
def steer(
    pipe: Any,
    vectors: OneAttribute | Sequence[OneAttribute],
    option: str | Sequence[Any] | None = None,
    *,
    shares: Mapping[Any, float] | Balance | None = None,
    look: int | Literal["auto"] | None = None,
    layers: Sequence[str] | None = None,
    alpha: float | Sequence[float] | None = None,
    alpha_unit: str | None = None,
    window: tuple[int, int | None] | None = None,
    norm_preserving: bool | None = None,
    num_images: int | None = None,
) -> Iterator[list[Any]]:
    """Steer what a diffusers pipeline makes inside the context: towards an option, or to shares of all options.

    vectors: steering vectors or the path of their file; option, alpha: one for every image, or one for each; layers:
    None for all that the vectors have. What is None is as the vectors were used last: alpha (each option's own where it
    was searched), its unit (`relative` to the layer's mean activation length, or `activation`), the window of steered
    steps. A window that is given is its first and last step, None for the run's last, and counts in the run's whole
    schedule, also where it begins or ends midway. num_images: of a denoising loop of your own, with the pipeline's
    scheduler, or of another pipeline on its parts; a call of the pipeline says how many it makes.

    shares, in an option's place: how often each option is wanted among a call's images of one prompt. Only images that
    would show another option than their share leaves them are steered, and none whose prompt names an option (by the
    vectors' `words`). `look` unsteered steps are read (by the reader that is nearest in noise; "auto", the default:
    until the first reader that foretells 90 % of the images), then the run is set back to the first steered step for
    these images, while the others go on as they were, to the bit: that costs share of steered images x (look - first
    steered step) / steps of a run more. An image alone may be anything that its shares allow, so single images want a
    Balance, which counts over calls, whatever their prompts. Yields a list that gets a Look for each call: the options,
    the probabilities that were read, and who was steered. Callbacks see the repeated steps too.

    Of several attributes at once, vectors are a list, an option is a tuple with one of each, and shares are of such
    tuples, all of them. alpha: one for all, or one for each attribute. As few attributes as possible are changed: each
    image is steered in those alone that it does not show, and not in one of which its prompt names an option; what such
    a prompt leaves open gets shares of its own, and a Balance does not count its images. In layers that several steer
    their directions are made orthogonal; `overlaps` says how far they are not. Yields a list of JointLooks.

    Example:
        with steer(pipe, "vectors.safetensors", option="woman"):
            images = pipe("a face of a doctor", num_images_per_prompt=4).images
        with steer(pipe, "vectors.safetensors", shares={"woman": 0.5, "man": 0.5}, look=6) as looks:
            images = pipe("a face of a doctor", num_images_per_prompt=4).images
        looks[0].steered  # as [True, False, False, False]
        with steer(pipe, ["gender.safetensors", "age.safetensors"], option=("woman", "old")):
            images = pipe("a face of a doctor", num_images_per_prompt=4).images

    Raises ValueError for an option, a layer or a pipeline that is not known, for another alpha_unit without an alpha,
    for vectors of another width than the layer's and, when the pipeline runs, for a window of which it takes no step
    and where the number of options or alphas is not the number of images; with shares for those that do not name every
    option or add up to 1, for vectors without readers and for a look that is beyond the run's steps or ends before the
    first steered one; with several attributes for a list of one, for vectors of different models, options of the same
    name and directions that cannot be made orthogonal. Not with shares: a run that begins midway, skip-layer guidance,
    a ControlNet for a part of the run, caches and compiled denoisers, each of which is named and refused.
    """
    if (option is None) == (shares is None) or (look is not None and shares is None):
        raise ValueError("Give option=, to steer every image, or shares= (with look=), to steer those that need it.")
    aim, how = (option, shares, "auto" if look is None else look), (alpha_unit, window, norm_preserving)
    if isinstance(vectors, SteeringVectors | str | Path):
        chosen, strength = chosen_vectors(vectors, option, layers, alpha, *how)
        used = [chosen]
        changed, steering = _of_one(replace(chosen, tuned={}) if alpha is not None else chosen, strength, *aim)
    else:
        several = _chosen_of_several(vectors, layers, alpha, *how)
        used = [each for each, _ in several]
        changed, steering = _of_several(several, *aim)
    backbone = attach(pipe)
    for each in used:
        warn_of_another_model(each, getattr(backbone.pipe, "name_or_path", None))
    if isinstance(steering, LookAndSteer | LookAndSteerJointly):
        backbone = backbone.with_layers([*steering.read, *changed])
        with (
            looking(backbone, steering.read, changed, steering, num_images),
            prompts_seen(backbone.pipe) as steering.seen,
        ):
            yield steering.looks
        return
    with hooked(backbone.with_layers(changed), changed, steering, num_images, reused=True):
        yield []


def _of_one(
    vectors: SteeringVectors, strength: Strength, option: Any, shares: Any, look: int | str
) -> tuple[list[str], Hook | LookAndSteer | LookAndSteerJointly]:
    """Return the layers that are steered, and the hook for an option or the plan for shares."""
    if shares is not None:
        own = {name: found.alpha for name, found in vectors.tuned.items()}
        return vectors.layers, LookAndSteer(vectors, strength, shares, look, own)
    index_of = vectors.option_index
    indices = index_of(option) if isinstance(option, str) else [index_of(name) for name in option]
    return vectors.layers, Shift(vectors, indices, strength)


def _of_several(
    chosen: list[tuple[SteeringVectors, Strength]], option: Any, shares: Any, look: int | str
) -> tuple[list[str], Hook | LookAndSteer | LookAndSteerJointly]:
    attributes = Attributes([vectors for vectors, _ in chosen], [strength for _, strength in chosen])
    if shares is not None:
        return attributes.layers, LookAndSteerJointly(attributes, shares, look)
    return attributes.layers, attributes.shifts(option)


def fold(
    pipe: Any,
    vectors: OneAttribute,
    option: str,
    *,
    layers: Sequence[str] | None = None,
    alpha: float | None = None,
    alpha_unit: str | None = None,
    window: tuple[int, int | None] | None = None,
    norm_preserving: bool | None = None,
    both_halves: bool = False,
) -> Folded:
    """Fold a constant shift towards an option into the biases of a pipeline's layers, after which it costs nothing.

    The arguments are those of `steer`. A bias shifts every row of a call: without guidance that is what `steer` does;
    with guidance it shifts the unconditional half too, which `steer` does not. both_halves=True says that it is meant.

    Example:
        averaged, whole_run = vectors.averaged(), (0, None)
        fold(pipe, averaged, "woman", alpha=5.0, alpha_unit="activation", window=whole_run, both_halves=True)
        pipe.save_pretrained("steered")

        with fold(pipe, ...):  # for a while: the biases are put back at the end
            images = pipe("a face of a doctor").images

    Raises FoldingError, a ValueError, with the reason where no bias can stand for the shift; nothing is changed then.
    """
    if not both_halves:
        raise FoldingError(
            "A bias shifts every row of a call, the unconditional half of guidance too, and steer() only the "
            "conditional half. Give both_halves=True if the pipeline runs without guidance or both halves are meant."
        )
    chosen, strength = chosen_vectors(vectors, option, layers, alpha, alpha_unit, window, norm_preserving)
    shifts = constant_shifts(chosen, chosen.option_index(option), strength)
    backbone = attach(pipe).with_layers(chosen.layers)
    warn_of_another_model(chosen, getattr(backbone.pipe, "name_or_path", None))
    return Folded(backbone, shifts)


def _chosen_of_several(
    vectors: Sequence[OneAttribute], layers: Sequence[str] | None, alpha: float | Sequence[float] | None, *how: Any
) -> list[tuple[SteeringVectors, Strength]]:
    """Return vectors and strength of each attribute; alpha: one for all, or one for each."""
    if layers is not None:
        raise ValueError("layers= is for one attribute: give each its own, as [gender.of_layers([...]), age].")
    plain = plain_numbers(alpha)
    alphas = list(plain) if is_sequence(plain) else [plain] * len(vectors)
    if len(alphas) != len(vectors):
        raise ValueError(f"{len(alphas)} alphas were given for {len(vectors)} attributes: give one, or one for each.")
    found = [chosen_vectors(each, None, None, one, *how) for each, one in zip(vectors, alphas, strict=True)]
    return found if alpha is None else [(replace(each, tuned={}), strength) for each, strength in found]


@contextmanager
def record(
    pipe: Any, layers: Sequence[str] | None = None, steps: Sequence[int] | None = None, num_images: int | None = None
) -> Iterator[Recorded]:
    """Pool the activations of a diffusers pipeline inside the context: the mean over image tokens, conditional rows.

    layers: None for every site of the model's family; one that is none of them, as a whole block, is read in the same
    way. steps: from 0, None for every step that a run takes. num_images: as in `steer`. With `record` inside of `steer`
    the shifted output is recorded, the other way round the plain one.

    Example:
        with record(pipe) as seen:
            pipe("a face of a doctor", num_images_per_prompt=4)
        seen.recordings[0].activations  # {layer: [4, steps, width]}

    Raises ValueError for a layer, a step or a pipeline that is not known.
    """
    backbone, seen = attach(pipe), Recorded(steps)
    check_layers(layers)
    if layers is not None and not layers:
        raise ValueError(f"layers=[] records nothing; give some of {', '.join(backbone.layers)}.")
    if steps is not None and (not steps or len(set(steps)) != len(steps) or min(steps) < 0):
        raise ValueError(f"steps={list(steps)}: give one or more steps, each once, counted from 0.")
    chosen = backbone.layers if layers is None else layers
    if merges_tokens(backbone.denoiser):
        log.warning("tomesd merges tokens: a merged token counts once in recorded means, however many it stands for.")
    with hooked(backbone.with_layers(chosen), chosen, seen, num_images):
        yield seen
    seen.leave_device()
