"""The same pieces without Hydra: steer and record any known pipeline that its user has loaded himself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import Site
from icm_pipeline.backbones.registry import attach
from icm_pipeline.folding import Folded, FoldingError, constant_shifts
from icm_pipeline.hooks import StepClock, hooked
from icm_pipeline.interventions.shift import Shift
from icm_pipeline.recording import Recorder, Recording
from icm_pipeline.vectors import SteeringVectors, Strength, load_vectors


@contextmanager
def steer(
    pipe: Any,
    vectors: SteeringVectors | str | Path,
    option: str | Sequence[str],
    *,
    layers: Sequence[str] | None = None,
    alpha: float | Sequence[float] | None = None,
    alpha_unit: str | None = None,
    window: tuple[int, int | None] | None = None,
    norm_preserving: bool | None = None,
) -> Iterator[None]:
    """Steer what a diffusers pipeline makes inside the context towards an option.

    vectors: steering vectors or the path of their file; option, alpha: one for every image, or one for each; layers:
    None for all that the vectors have. What is None is as the vectors were used last: alpha, its unit (`relative` to
    the layer's mean activation length, or `activation`), the window of steered steps. A window that is given is its
    first and last step, None for the run's last, and counts in the run's own steps.

        with steer(pipe, "vectors.safetensors", option="woman"):
            images = pipe("a face of a doctor", num_images_per_prompt=4).images

    Raises ValueError for an option, a layer or a pipeline that is not known, for a window that holds no step, and where
    the number of options or alphas is not the number of images.
    """
    chosen = vectors if isinstance(vectors, SteeringVectors) else load_vectors(vectors)
    chosen = chosen if layers is None else chosen.of_layers(layers)
    alphas: list[float] | None = None
    if isinstance(alpha, Sequence):
        alphas = list(alpha)
        alpha = max(alphas, default=0.0)
    strength = _strength(chosen.strength, alpha, alpha_unit, window, norm_preserving)
    names = option if isinstance(option, str) else list(option)
    indices = chosen.option_index(names) if isinstance(names, str) else [chosen.option_index(name) for name in names]
    shift = Shift(
        chosen,
        indices,
        strength.alpha if alphas is None else alphas,
        relative=strength.alpha_unit == "relative",
        first_step=strength.first_step,
        last_step=strength.last_step,
        norm_preserving=strength.norm_preserving,
        num_steps=strength.num_steps,
    )
    with hooked(attach(pipe), chosen.layers, shift):
        yield


def fold(
    pipe: Any,
    vectors: SteeringVectors | str | Path,
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

        fold(pipe, vectors.averaged(), "woman", alpha=5.0, alpha_unit="activation", both_halves=True)
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
    chosen = vectors if isinstance(vectors, SteeringVectors) else load_vectors(vectors)
    chosen = chosen if layers is None else chosen.of_layers(layers)
    strength = _strength(chosen.strength, alpha, alpha_unit, window, norm_preserving)
    return Folded(attach(pipe), constant_shifts(chosen, chosen.option_index(option), strength))


def _strength(
    used: Strength | None,
    alpha: float | None,
    alpha_unit: str | None,
    window: tuple[int, int | None] | None,
    norm_preserving: bool | None,
) -> Strength:
    """Return how strongly to steer: as it was done last, except for what is given."""
    if used is None:
        if alpha is None:
            raise ValueError("These vectors were not used to steer yet, so they know no alpha: give alpha=.")
        used = Strength(alpha, "activation", 0, None, None)
    if alpha_unit not in (None, "relative", "activation"):
        raise ValueError(f"alpha_unit={alpha_unit!r} is not known; choose relative or activation.")
    given = {"alpha": alpha, "alpha_unit": alpha_unit, "norm_preserving": norm_preserving}
    strength = replace(used, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    if window is None:
        return strength
    first, last = window
    if first < 0 or (last is not None and last < first):
        raise ValueError(f"window={window} holds no step: give the first and the last step, None for the run's last.")
    return replace(strength, first_step=first, last_step=last, num_steps=None)


class Record:
    """What `record` saw: a Recording for each call of the pipeline."""

    def __init__(self, steps: Sequence[int] | None) -> None:
        self._steps = steps
        self._recorders: list[Recorder] = []
        self._run: int | None = None

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
        if clock.run != self._run:
            self._leave_device()
            self._run = clock.run
            self._recorders.append(Recorder(list(range(clock.num_steps) if self._steps is None else self._steps)))
        self._recorders[-1](tokens, site, clock)

    def _leave_device(self) -> None:
        for recorder in self._recorders[-1:]:
            recorder.leave_device()

    @property
    def recordings(self) -> list[Recording]:
        """One for each call so far; raises ValueError or FloatingPointError for one that was not recorded whole."""
        return [recorder.recording() for recorder in self._recorders]


@contextmanager
def record(pipe: Any, layers: Sequence[str] | None = None, steps: Sequence[int] | None = None) -> Iterator[Record]:
    """Pool the activations of a diffusers pipeline inside the context: the mean over image tokens, conditional rows.

    layers: None for every site of the model's family; steps: None for every denoising step.

        with record(pipe) as seen:
            pipe("a face of a doctor", num_images_per_prompt=4)
        seen.recordings[0].activations  # {layer: [4, steps, width]}

    Raises ValueError for a layer or a pipeline that is not known.
    """
    backbone, seen = attach(pipe), Record(steps)
    if layers is not None and not layers:
        raise ValueError(f"layers=[] records nothing; give some of {', '.join(backbone.layers)}.")
    with hooked(backbone, backbone.layers if layers is None else layers, seen):
        yield seen
    seen._leave_device()
