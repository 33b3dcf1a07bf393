"""Concept Sliders: a small LoRA for each option, learnt from prompts alone, whose scale is how far an image slides.

On latents of neutral prompts that the edited model has denoised to some step, the adapted prediction of option k under
the neutral prompt learns p(neutral) + guidance (p(named k) - mean of p(named j), j the other options), p what the plain
model predicts. All prompts of a row may name a further attribute that is to stay, as "old": `keep`. At sampling the
adapters act on both halves of guidance, from method.first_step on, which leaves the layout as it was.

References:
    Concept Sliders: LoRA Adaptors for Precise Control in Diffusion Models, 2024, https://arxiv.org/abs/2311.12092
Departures: an adapter for each option in place of one of both signs, as there may be more than two; latents of one
edited run, all its steps, serve `refresh` updates, with a row for each image; what is to stay is drawn for each row in
place of the sum over it; the error is that of what the model predicts (v, flow); the run's guidance is the model's
own; gradients are clipped. Convolutions are those of the blocks that take no channel alone. The published fit takes
1,000 updates of one image at a learning rate of 2e-4, and guidance 4.
"""

from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import DRAWN, WINDOW, Fit, Method, MethodInputs
from icm_pipeline.methods.concepts import trained_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from icm_pipeline.backbones.base import Backbone, Family


def takes_lists(family: "Family") -> str:
    """Return why what trains a denoiser does not apply to a family; empty if it does."""
    return "its denoiser takes lists of pictures, not batches." if family.inputs_by_row else ""


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    import torch

    from icm_pipeline.methods.denoising import Denoiser
    from icm_pipeline.methods.examples import EditedRuns
    from icm_pipeline.methods.learnt import Learnt
    from icm_pipeline.methods.low_rank import adapted, convolutions, new_adapters, projections
    from icm_pipeline.methods.training import forget, frozen, train
    from icm_pipeline.methods.wordings import wordings_of

    settings, params = inputs.settings, inputs.settings.method.params
    wordings, num_options = wordings_of(settings, params["keep"]), len(settings.attribute.options)
    denoiser = Denoiser(backbone, [text for each in wordings for text in (each.neutral, *each.named)])
    attentions = [site.layer for site in backbone.sites if site.kind == "self_attention"]
    layers = [*projections(backbone, attentions), *convolutions(backbone)]
    adapters = new_adapters(backbone, layers, num_options, params["rank"], settings.seed)

    def sliding(options: "Tensor") -> AbstractContextManager[Any]:
        def per_row(num_rows: int) -> "tuple[Tensor, Tensor]":
            rows = options.repeat(num_rows // len(options))
            return rows, torch.ones(num_rows)

        return adapted(backbone, adapters, per_row)

    runs = EditedRuns(backbone, settings, wordings, sliding)
    others = (1 - torch.eye(num_options)) / (num_options - 1)
    sides = (torch.eye(num_options) - others)[runs.options]  # [n, K]: away from the mean of the others

    def loss(update: int, generator: torch.Generator) -> torch.Tensor:
        noisy, chosen = runs.draw(update, generator)
        neutral = [wording.neutral for wording in chosen]
        with torch.no_grad():
            wanted = denoiser.predict(noisy, neutral)
            for option, side in enumerate(sides.unbind(1)):
                named = denoiser.predict(noisy, [wording.named[option] for wording in chosen])
                wanted = wanted + params["guidance"] * side.to(named).view(-1, *[1] * (named.dim() - 1)) * named
        with sliding(runs.options):
            return (denoiser.predict(noisy, neutral) - wanted).square().mean()

    trained = {f"{layer}/{name}": tensor for layer, own in adapters.items() for name, tensor in own.items()}
    with frozen(backbone.denoiser):
        train(
            trained, loss, params["updates"], params["learning_rate"], settings.seed, folder,
            decay=params["weight_decay"], whole=params["refresh"],
        )  # fmt: skip
    kept = {
        layer: {name: tensor.detach().cpu()[None] for name, tensor in own.items()} for layer, own in adapters.items()
    }
    Learnt(kept, [1.0]).save(folder)
    forget(folder)
    return runs.num_images(params["updates"])


@contextmanager
def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> "Iterator[None]":
    import torch

    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.methods.denoising import check_trainable
    from icm_pipeline.methods.learnt import load_learnt
    from icm_pipeline.methods.low_rank import adapted

    check_trainable(backbone)
    device = next(backbone.denoiser.parameters()).device
    learnt = load_learnt(inputs).numbers
    adapters = {layer: {name: value[0].to(device) for name, value in own.items()} for layer, own in learnt.items()}
    options = torch.tensor([inputs.option_of[job.image_id] for job in jobs])
    scale = float(inputs.settings.method.params["scale"])
    with hooked(backbone, [], None, len(jobs)) as clock:

        def per_row(num_rows: int) -> "tuple[Tensor, Tensor] | None":
            if clock.step not in inputs.strength.window(clock.num_steps):
                return None
            own = options if clock.images is None else options[list(clock.images)]
            return own.repeat(num_rows // len(own)), torch.full((num_rows,), scale)

        with adapted(backbone, adapters, per_row):
            yield


METHOD = Method(
    name="slider",
    applied=_applied,
    words=lambda steering: ["slider", f"scale {steering.params['scale']:g}"],
    reads=(*WINDOW, *DRAWN),
    params=("scale", "rank", "keep", "updates", "batch", "refresh", "guidance", "learning_rate", "weight_decay"),
    from_first_step=True,
    why_not=takes_lists,
    fit=Fit(_fit, reads=(*trained_by(
        "rank", "keep", "updates", "batch", "refresh", "guidance", "learning_rate", "weight_decay",
    ), "attribute.words")),
    asks_for="prompts that name options, no images; training",
    published={"updates": 1000},
)  # fmt: skip
