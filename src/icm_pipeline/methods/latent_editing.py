"""Latent editing: shift the UNet's middle block h by the difference of means of images that show an option.

h + alpha |h| u[t, k], u the unit vector from the mean over options to option k's mean of whole maps at step t. With
`asymmetric` the shifted h enters only the predicted clean image, equation 5 of Asyrp, in a second pass of the denoiser:
x_{t-1} = sqrt(abar_{t-1}) P(eps(x_t | h + dh)) + sqrt(1 - abar_{t-1}) eps(x_t | h).

References:
    Diffusion Models already have a Semantic Latent Space (Asyrp), 2023, https://arxiv.org/abs/2210.10960
    Discovering Interpretable Directions in the Semantic Latent Space of Diffusion Models (the supervised means of
    labelled images), 2023, https://arxiv.org/abs/2303.11073
Departures: Asyrp learns its shift from a CLIP loss; here it is the means. No steps are made noisier at the end. The
means are of unpaired images, so they carry what goes with an option.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import DRAWN, LABELLED, LENGTH, WINDOW, Fit, Method, MethodInputs

if TYPE_CHECKING:
    from torch import Tensor

    from icm_pipeline.backbones.base import Backbone, Family
    from icm_pipeline.hooks.clock import StepClock
    from icm_pipeline.methods.learnt import Move


PREDICTED = ("epsilon", "v_prediction")


def no_bottleneck(family: "Family") -> str:
    """Return why a method of the middle block does not apply to a family; empty if it does."""
    return "" if family.bottleneck else "it has no bottleneck; only UNets have one."


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    from icm_pipeline.methods.learnt import directions_and_norm, learn

    return learn(inputs.probe_data, [backbone.family.bottleneck], directions_and_norm, folder)


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.methods.learnt import alphas_of, push

    unit, alphas = inputs.settings.method.alpha_unit, alphas_of(inputs)

    def move(tokens: "Tensor", numbers: Any, options: "Tensor") -> "Tensor":
        return tokens + push(numbers, options, alphas, unit).view(tokens.shape)

    return moved_at_bottleneck(backbone, inputs, jobs, move)


@contextmanager
def moved_at_bottleneck(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job], move: "Move") -> Iterator[None]:
    """Move the middle block's maps by what was learnt of it, with `asymmetric` in the predicted clean image alone."""
    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.methods.learnt import Moving, load_learnt

    more, is_on = backbone.with_bottleneck(), [True]
    moving = Moving(load_learnt(inputs), move, inputs, jobs)

    def hook(tokens: "Tensor", site: Any, clock: "StepClock") -> "Tensor | None":
        return moving(tokens, site, clock) if is_on[0] else None

    with ExitStack() as stack:
        clock = stack.enter_context(hooked(more, [more.family.bottleneck], hook, len(jobs)))
        if inputs.settings.method.params["asymmetric"]:
            _edit_clean_image_alone(more, clock, is_on, stack)
        yield


def _edit_clean_image_alone(backbone: "Backbone", clock: "StepClock", is_on: list[bool], stack: ExitStack) -> None:
    """Let the shift enter the predicted clean image and not the direction to the noisy one, while the stack lasts.

    The direction of a DDIM step is linear in the prediction, so the step of the shifted prediction is put right by what
    the shift changed in it, in units of noise, times sqrt(1 - abar) of the latents that the step leads to.
    """
    from icm_pipeline.backbones.modules import is_compiled
    from icm_pipeline.hooks.wrapping import wrapped

    scheduler, sampling, changed = backbone.pipe.scheduler, backbone.sampling, list["Tensor"]()
    assert sampling is not None
    predicts = scheduler.config.get("prediction_type")
    if type(scheduler).__name__ != "DDIMScheduler" or predicts not in PREDICTED or is_compiled(backbone.denoiser):
        raise ConfigError(
            f"method.params.asymmetric=true needs DDIM, a model that predicts {' or '.join(PREDICTED)} and no "
            f"compilation; found {type(scheduler).__name__} and {predicts}. Set model.scheduler=ddim, or "
            "asymmetric=false."
        )

    def twice(forward: Any, *args: Any, **kwargs: Any) -> Any:
        is_on[0] = False
        plain = forward(*args, **kwargs)
        is_on[0] = True
        shifted = forward(*args, **kwargs)
        guided = sampling.guidance_scale if clock.call is not None and clock.call.rows_per_image > 1 else 1.0
        changed[:] = [guided * (shifted[0] - plain[0])[clock.rows]]
        return shifted

    def step(stepping: Any, prediction: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        result = stepping(prediction, timestep, *args, **kwargs)
        if not changed:  # a step that the originals lent, in which the denoiser was not called
            return result
        in_noise = 1.0 if predicts == "epsilon" else float(scheduler.alphas_cumprod[int(timestep)] ** 0.5)
        right = changed.pop() * in_noise * _noise_after(scheduler, int(timestep))
        return (result[0] - right, *result[1:])

    stack.enter_context(wrapped(backbone.denoiser, "forward", twice))
    stack.enter_context(wrapped(scheduler, "step", step))


def _noise_after(scheduler: Any, timestep: int) -> float:
    """Return sqrt(1 - abar) of the latents that a DDIM step leads to."""
    after = timestep - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    abar = scheduler.alphas_cumprod[after] if after >= 0 else scheduler.final_alpha_cumprod
    return float((1 - abar) ** 0.5)


METHOD = Method(
    name="latent_editing",
    applied=_applied,
    words=lambda steering: [
        f"{'asymmetric ' if steering.params['asymmetric'] else ''}latent editing", f"alpha {steering.alpha:g}",
    ],
    reads=(*LENGTH, *WINDOW, *DRAWN),
    params=("asymmetric",),
    from_first_step=True,
    why_not=no_bottleneck,
    fit=Fit(_fit, needs=(*LABELLED, "maps"), reads=("method.name",)),
    asks_for="labelled probe images and their bottleneck maps; a UNet",
    scaled_down="means instead of a trained shift",
)  # fmt: skip
