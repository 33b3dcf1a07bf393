"""Latent direction: a vector in the UNet's middle block h with which images of "a woman" are predicted well under "a
person". It then means "woman" under any prompt.

h + scale v[k], v[k] the least of |prediction(a x + s e, neutral prompt, h + v[k]) - target|^2 over latents x that the
model makes of prompts that name option k, over noise and steps; one whole map for all steps, or with `shape=channel`
one number a channel.

References:
    Self-Discovering Interpretable Diffusion Latent Directions for Responsible Text-to-Image Generation, 2024,
    https://arxiv.org/abs/2311.17216
Departures: the error is that of what the model predicts (v, flow), which weighs steps of much noise more than that of
the noise does; the sampler's steps alone, in place of all 1,000; prompts are pairs with and without the option's word,
of several subjects in place of "a person"; gradients are clipped. The published fit takes 20 epochs of 1,000 images an
option, in batches of 8 at a learning rate of 0.1.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import DRAWN, WINDOW, Fit, Method, MethodInputs
from icm_pipeline.methods.concepts import trained_by
from icm_pipeline.methods.latent_editing import no_bottleneck

if TYPE_CHECKING:
    from icm_pipeline.backbones.base import Backbone

SHAPES = ("map", "channel")


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    import torch

    from icm_pipeline.methods.bottleneck import map_shape, save_shifts, shifted
    from icm_pipeline.methods.denoising import Denoiser
    from icm_pipeline.methods.examples import LATENTS, make_examples
    from icm_pipeline.methods.training import forget, frozen, train

    settings, params = inputs.settings, inputs.settings.method.params
    num_options = len(settings.attribute.options)
    num_images = params["images"] * num_options
    examples = make_examples(backbone, settings, [1 / num_options] * num_options, num_images, folder)
    denoiser, (places, channels) = Denoiser(backbone, examples.neutral), map_shape(backbone)
    shape = num_options, places if params["shape"] == "map" else 1, channels
    vectors = torch.zeros(shape, device=examples.latents.device, requires_grad=True)

    def loss(update: int, generator: torch.Generator) -> torch.Tensor:
        noisy, prompts, options, target = examples.noised(denoiser, params["batch"], generator)
        with shifted(backbone, vectors[options]):
            return (denoiser.predict(noisy, prompts) - target).square().mean()

    with frozen(backbone.denoiser):
        train({"vectors": vectors}, loss, params["updates"], params["learning_rate"], settings.seed, folder)
    save_shifts(backbone, vectors, folder)
    forget(folder, LATENTS)
    return num_images


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.methods.bottleneck import shifts_applied

    return shifts_applied(backbone, inputs, jobs)


def _draws(settings: Settings) -> bool:
    if (shape := settings.method.params.get("shape")) not in SHAPES:
        raise ConfigError(f"method.params.shape={shape} is not known; choose from {', '.join(SHAPES)}.")
    return True


METHOD = Method(
    name="latent_direction",
    applied=_applied,
    words=lambda steering: ["latent direction", f"scale {steering.params['scale']:g}"],
    reads=(*WINDOW, *DRAWN),
    params=("scale", "shape", "images", "updates", "batch", "learning_rate"),
    from_first_step=True,
    draws=_draws,
    why_not=no_bottleneck,
    fit=Fit(_fit, reads=trained_by("shape", "images", "updates", "batch", "learning_rate")),
    asks_for="images of prompts that name options; training; a UNet",
    published={"images": 1000, "updates": 2500},  # of each option, images here too
    for_each_option=("updates",),
)
