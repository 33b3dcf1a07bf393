"""ICM, the paper's method: probes find the layers, and their tokens are shifted along the probes' directions.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026,
    https://arxiv.org/abs/2604.06052
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import Method, MethodInputs

if TYPE_CHECKING:
    from icm_pipeline.backbones.base import Backbone
    from icm_pipeline.methods.vectors import SteeringVectors

VECTORS = "vectors.safetensors"  # of the steered layers, with alpha and window: all that steering elsewhere takes


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.methods.shift import Shift

    shift = Shift(inputs.vectors, [inputs.option_of[job.image_id] for job in jobs], inputs.strength_of(jobs))
    return hooked(backbone, inputs.layers, shift, len(jobs))


def _keep(inputs: MethodInputs, folder: Path) -> None:
    keep_used(inputs.vectors, inputs, folder)


def keep_used(vectors: "SteeringVectors", inputs: MethodInputs, folder: Path) -> None:
    """Write vectors with how they were used, and with the readers that there are."""
    from icm_pipeline.methods.readers import FILE_NAME, load_readers

    used = replace(inputs.strength, num_steps=inputs.settings.model.num_steps)
    foretold = inputs.artifacts.get("foretell")
    readers = load_readers(foretold.path(FILE_NAME)) if foretold else ()
    words = inputs.settings.attribute.words if "assign" in inputs.artifacts else {}
    kept = replace(vectors, strength=used, readers=readers, words=words, tuned=inputs.tuned)
    kept.save(folder / VECTORS)


def _words(steering: Any) -> list[str]:
    unit = "" if steering.alpha_unit == "relative" else " (activation units)"
    first, last = steering.first_step, steering.last_step
    unusual = {
        f"{steering.direction.replace('_', ' ')} direction": steering.direction != "probe",
        window_in_words(first, "end" if last is None else last): first > 0 or last is not None,
        "one vector for all steps": steering.vector == "mean",
        "norm-preserving": steering.norm_preserving,
        f"drawn per {steering.assignment}": steering.assignment in ("image", "batch"),
        f"least change{_read_after(steering.look)}": steering.assignment == "least_change",
        f"the best of {steering.tries} tries": steering.tries > 1,
        f"towards {steering.target_shares}": steering.target_shares is not None,
        "towards shares of each prompt": steering.shares_by_prompt is not None,
    }
    layers = f"{layers_in_words(steering.rule, len(steering.layers))} {KIND_NAMES[steering.kind]}"
    alpha = f"alpha {alpha_in_words(steering.alpha, steering.tuned)}{unit}"
    return [layers, alpha, *(word for word, applies in unusual.items() if applies)]


def alpha_in_words(alpha: float, tuned: Mapping[str, float] | None) -> str:
    """Return an alpha, or `auto` with that of each option."""
    return f"auto ({', '.join(f'{option} {own:.3g}' for option, own in tuned.items())})" if tuned else f"{alpha:g}"


def _read_after(look: int | str | None) -> str:
    return "" if look is None else f" by a look ({look})" if look == "auto" else f" by a look after {look} steps"


def layers_in_words(rule: str, k: int) -> str:
    words = {"top": f"best {k}", "named": f"{k} named", "causal": f"most effective {k}"}
    return words.get(rule, f"{rule} {k}")


def window_in_words(first: int | None, last: int | str | None) -> str:
    """Return the steered steps in words; what is None is left unsaid, and `end` is the last step."""
    end = "the end" if last == "end" else last
    if first is None:
        return f"to {end}" if last == "end" else f"to step {end}"
    return f"from step {first}" if last is None else f"steps {first} to {end}"


METHOD = Method(
    "icm", _applied, _words, needs=("probe", "select"), reads=("alpha", "method"), in_layers=True,
    from_first_step=True, keep=_keep,
    asks_for="labelled probe images with activations, linear probes",
)  # fmt: skip
