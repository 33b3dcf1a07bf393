"""ICM's shift without its pictures and its judge: directions from pairs of prompts, in the layers that pairs agree in.

`fit` records prompts that name options at every site of the model, and makes steering vectors of them (`paired`). They
are added as ICM's are: alpha times the drawn option's direction, in the k best layers of a kind, or in those named.

References:
    CASteer: Cross-Attention Steering for Controllable Concept Erasure, 2026, https://arxiv.org/abs/2503.09630
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026,
    https://arxiv.org/abs/2604.06052 (the sites and the shift)
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import Fit, Method, MethodInputs
from icm_pipeline.methods.concepts import trained_by
from icm_pipeline.methods.icm import VECTORS, alpha_in_words, keep_used

if TYPE_CHECKING:
    from icm_pipeline.backbones.base import Backbone
    from icm_pipeline.methods.vectors import SteeringVectors


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    from icm_pipeline.hooks.recording import Recording
    from icm_pipeline.methods.fitting import fit_vectors
    from icm_pipeline.methods.paired import PAIRS
    from icm_pipeline.methods.prompt_pairs import RECORDED, forget_recorded, prompt_jobs, recorded
    from icm_pipeline.progress import working

    settings, attribute = inputs.settings, inputs.settings.attribute
    made, options = prompt_jobs(settings, settings.method.params["pairs"]).named(), list(attribute.options)
    with working("fit", len(made.jobs), "image") as work:
        outputs, levels = recorded(backbone, backbone.layers, made.jobs, settings, folder / RECORDED, work)
    kinds = {layer: backbone.site(layer).kind for layer in outputs}
    fit_vectors(
        [Recording(kinds, list(range(len(levels))), levels, outputs)], [options[label] for label in made.labels],
        options, direction=PAIRS, model=settings.model.name, attribute=attribute.name, words=attribute.words,
    ).save(folder / VECTORS)  # fmt: skip
    forget_recorded(folder)
    return len(made.jobs)


def chosen(vectors: "SteeringVectors", params: dict[str, Any]) -> "SteeringVectors":
    """Return the vectors of the layers that are named, or of the k best of a kind; raises ConfigError if too few."""
    if params["names"]:
        return vectors.of_layers(params["names"])
    layers = [layer for layer in vectors.layers if vectors.kinds[layer] == params["kind"]]
    if len(layers) < params["k"]:
        raise ConfigError(
            f"method.params.k={params['k']}: {vectors.model} has {len(layers)} layers of the kind {params['kind']}."
        )
    return vectors.of_layers(layers).best(params["k"])


def vectors_of(inputs: MethodInputs) -> "SteeringVectors":
    """Return what steers."""
    from icm_pipeline.methods.vectors import load_vectors

    method = inputs.settings.method
    vectors = chosen(load_vectors(inputs.artifacts["fit"].path(VECTORS)), method.params)
    return vectors.averaged() if method.vector == "mean" else vectors


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.methods.shift import Shift

    vectors = vectors_of(inputs)
    shift = Shift(vectors, [inputs.option_of[job.image_id] for job in jobs], inputs.strength_of(jobs))
    return hooked(backbone, vectors.layers, shift, len(jobs))


def _words(steering: Any) -> list[str]:
    params = steering.params
    named, best = f"{len(params['names'])} named layers", f"best {params['k']} {KIND_NAMES[params['kind']]}"
    unit = "" if steering.alpha_unit == "relative" else " (activation units)"
    alpha = f"alpha {alpha_in_words(steering.alpha, steering.tuned)}{unit}"
    return ["prompt pairs", named if params["names"] else best, alpha]


METHOD = Method(
    name="pairs",
    applied=_applied,
    words=_words,
    reads=("alpha", "method"),
    params=("pairs", "kind", "k", "names"),
    from_first_step=True,
    fit=Fit(_fit, reads=(*trained_by("pairs"), "model.sites")),
    asks_for="prompts that name options, no images",
    keep=lambda inputs, folder: keep_used(vectors_of(inputs), inputs, folder),
)
