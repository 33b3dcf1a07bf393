"""RespoDiff: two vectors in the UNet's middle block h, one that turns a neutral prompt's prediction into an option's,
one that keeps it near the neutral prompt's.

h + scale (v[k] + r[k]). On latents of neutral prompts that the edited model has denoised to some step, v[k] is the
least of |p(neutral, h + v[k]) - (p("") + guidance (p(named k) - p("")))|^2 and r[k] that of |p(neutral, h + v[k] +
r[k]) - p(neutral)|^2, p what is predicted without guidance. Neither sees the other's loss.

References:
    RespoDiff: Dual-Module Bottleneck Transformation for Responsible & Faithful T2I Generation, 2025,
    https://arxiv.org/abs/2509.15257
Departures: latents of one edited run, all its steps, serve `refresh` updates, with a row for each image, where the
paper makes a run for each update; the run's guidance is the model's own; the error is that of what the model predicts
(v); neutral prompts are of several subjects in place of "a person"; both vectors step together; gradients are clipped.
The paper's weight of the second loss is left out: r has an Adam of its own, for which it cancels. The published fit
takes 5,000 updates of one image, learning rates of 1e-2 for v and 1e-4 or 1e-3 for r, and guidance 4.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import DRAWN, WINDOW, Fit, Method, MethodInputs
from icm_pipeline.methods.concepts import trained_by
from icm_pipeline.methods.latent_editing import no_bottleneck

if TYPE_CHECKING:
    from icm_pipeline.backbones.base import Backbone


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    import torch

    from icm_pipeline.methods.bottleneck import map_shape, save_shifts, shifted
    from icm_pipeline.methods.denoising import Denoiser
    from icm_pipeline.methods.examples import EditedRuns
    from icm_pipeline.methods.training import forget, frozen, train
    from icm_pipeline.methods.wordings import wordings_of

    settings, params = inputs.settings, inputs.settings.method.params
    wordings, shape = wordings_of(settings), (len(settings.attribute.options), *map_shape(backbone))
    denoiser = Denoiser(backbone, [text for each in wordings for text in ("", each.neutral, *each.named)])
    device = next(backbone.denoiser.parameters()).device
    turn, stay = (torch.zeros(shape, device=device, requires_grad=True) for _ in range(2))
    runs = EditedRuns(backbone, settings, wordings, lambda options: shifted(backbone, (turn + stay)[options]))

    def loss(update: int, generator: torch.Generator) -> torch.Tensor:
        noisy, chosen = runs.draw(update, generator)
        neutral = [wording.neutral for wording in chosen]
        named = [wording.named[option] for wording, option in zip(chosen, runs.options.tolist(), strict=True)]
        with torch.no_grad():
            plain = denoiser.predict(noisy, neutral)
            wanted = denoiser.guided(noisy, named, params["guidance"])
        with shifted(backbone, turn[runs.options]):
            turned = denoiser.predict(noisy, neutral)
        with shifted(backbone, (turn.detach() + stay)[runs.options]):
            kept = denoiser.predict(noisy, neutral)
        return (turned - wanted).square().mean() + (kept - plain).square().mean()

    rates = {"turn": params["learning_rate"], "stay": params["stay_rate"]}
    with frozen(backbone.denoiser):
        train(
            {"turn": turn, "stay": stay}, loss, params["updates"], rates, settings.seed, folder,
            whole=params["refresh"],
        )  # fmt: skip
    save_shifts(backbone, turn + stay, folder)
    forget(folder)
    return runs.num_images(params["updates"])


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.methods.bottleneck import shifts_applied

    return shifts_applied(backbone, inputs, jobs)


METHOD = Method(
    name="respodiff",
    applied=_applied,
    words=lambda steering: ["RespoDiff", f"scale {steering.params['scale']:g}"],
    reads=(*WINDOW, *DRAWN),
    params=("scale", "updates", "batch", "refresh", "guidance", "learning_rate", "stay_rate"),
    from_first_step=True,
    why_not=no_bottleneck,
    fit=Fit(_fit, reads=trained_by("updates", "batch", "refresh", "guidance", "learning_rate", "stay_rate")),
    asks_for="prompts that name options, no images; training; a UNet",
    published={"updates": 5000},
)
