"""Finetuning for fairness: train a low-rank change of weights through sampling, so that a prompt's images have the
target shares with the least change. No option is drawn for an image.

Of a batch's images of one prompt a labeler's network tells probabilities p. Shares are drawn 100 times, and each time
as few images as possible are given another option than they show; where 80 % agree that is an image's target. The loss
is the cross-entropy of p with it plus similarity w (1 - cos) of CLIP's embeddings of the image and of the unchanged
model's from the same noise, w = 0.2 where the target is another option than that shows, else 1. Its gradient reaches
the weights through predictions of latents that are detached, with an equal share of every step.

References:
    Finetuning Text-to-Image Diffusion Models for Fairness, 2024, https://arxiv.org/abs/2311.07604, sections 4.1 and
    4.2, equations 5 to 9 (published: rank 50, 24 images, all steps, 10,000 updates at 5e-5, similarity 8 by CLIP and
    DINOv2, a face term)
Departures: targets by fewest changes first; an update takes the gradients of a few random steps for all; one CLIP, the
labeler's, is classifier and similarity, so that a CLIP-I by the same network is flattered; no DINOv2 and no face term.
The prompts are those of searches, whose subjects no evaluation prompt names.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, first_seed, tuning_prompts
from icm_pipeline.methods.base import ALL_STEPS, Fit, Method, MethodInputs
from icm_pipeline.methods.concepts import COUNTED_BY

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor, nn

    from icm_pipeline.arrays import Bools, Floats, Ints
    from icm_pipeline.backbones.base import Backbone, Family
    from icm_pipeline.labelers.clip import ClipJudge

FILE = "low_rank.safetensors"
WHERE = ("text_encoder", "attention")
DRAWS, AGREE = 100, 0.8  # of target counts, and the share of them that must give an image the same target
FLIPPED = 0.2  # of the similarity's weight where the option is to change


def targets_of(probabilities: "Floats", shares: Sequence[float], rng: "np.random.Generator") -> "tuple[Ints, Bools]":
    """Return the target of each image [n] and whether it is sure; probabilities: [n, K] of what it shows."""
    import numpy as np

    from icm_pipeline.methods.assignment import least_change

    votes = np.zeros(probabilities.shape)
    for counts in rng.multinomial(len(probabilities), shares, DRAWS):
        votes[np.arange(len(votes)), least_change(probabilities, counts, counts, rng)] += 1
    return votes.argmax(1), votes.max(1) >= AGREE * DRAWS


def loss_of(
    logits: "Tensor", embedded: "Tensor", before: "Tensor", targets: "Tensor", is_sure: "Tensor", shown: "Tensor",
    similarity: float,
) -> "Tensor":  # fmt: skip
    """Return the mean loss of images; embedded, before: unit-length embeddings [n, d] of theirs and the originals'."""
    import torch

    aligned = torch.nn.functional.cross_entropy(logits, targets, reduction="none") * is_sure
    changes = (targets != shown) & is_sure
    weights = torch.where(changes, FLIPPED, 1.0).to(embedded)
    return (aligned + similarity * weights * (1 - (embedded * before).sum(1))).mean()


def trained_layers(backbone: "Backbone", where: str) -> "dict[str, nn.Linear]":
    """Return the linear layers of all text encoders, or of the denoiser's attentions, by name.

    Raises ConfigError for weights that are not in memory and for a compiled denoiser.
    """
    from torch import nn

    from icm_pipeline.backbones.modules import is_compiled, walk

    if is_compiled(backbone.denoiser):
        raise ConfigError("method=fair_finetuning changes weights: set compute.compile=false.")
    if where == "attention":
        denoiser, sites = backbone.family.denoiser, [site for site in backbone.sites if "attention" in site.kind]
        parts = {f"{denoiser}.{site.module}": backbone.denoiser.get_submodule(site.module) for site in sites}
    else:
        named = [name for name in backbone.pipe.components if name.startswith("text_encoder")]
        parts = {name: part for name in named if (part := getattr(backbone.pipe, name)) is not None}
    found = {
        f"{name}.{inside}": module
        for name, part in parts.items()
        for inside, module in walk(part)
        if isinstance(module, nn.Linear)
    }
    if any(layer.weight.is_meta for layer in found.values()):
        raise ConfigError("Nothing can be trained where compute.offload=sequential keeps weights away: set another.")
    return found


def _judge(settings: Settings) -> "ClipJudge":
    from icm_pipeline.labelers.clip import ClipJudge
    from icm_pipeline.labelers.registry import load_labeler

    judge = load_labeler(settings.labeler)
    if not isinstance(judge, ClipJudge):
        raise ConfigError(
            f"method=fair_finetuning is trained through the labeler's network, which must be a CLIP of whole images: "
            f"set labeler=clip labeler.faces=none; found labeler.kind={settings.labeler.kind}, "
            f"labeler.faces={settings.labeler.faces}."
        )
    return judge


@dataclass
class _Objective:
    """What an update lowers."""

    backbone: "Backbone"
    settings: Settings
    judge: "ClipJudge"
    prompts: list[str]
    scale: float = 0.0
    """Of the change of weights: 0 for the original images."""

    def __call__(self, update: int, generator: "Generator") -> "Tensor":
        """Return a batch's loss, whose gradient is the adjusted one."""
        import torch

        from icm_pipeline.methods.through_sampling import adjusted, run_sampled

        jobs, params = self._jobs(update, generator), self.settings.method.params
        self.scale = 0.0
        with torch.no_grad():
            before, plain = self._seen(run_sampled(self.backbone, jobs).latents)
        self.scale = 1.0
        run = run_sampled(self.backbone, jobs)
        embedded, logits = self._seen(run.latents)
        targets, is_sure = self._targets(logits, update)
        loss = loss_of(logits, embedded, before, targets, is_sure, plain.argmax(1), params["similarity"])
        steps = torch.randperm(len(run.predictions), generator=generator)[: params["steps"]].tolist()
        surrogate = adjusted(run, loss, sorted(steps))
        return surrogate + (loss - surrogate).detach()

    def _jobs(self, update: int, generator: "Generator") -> list[Job]:
        """Return the jobs of a prompt, drawn, with seeds that no other update has."""
        import torch

        count = self.settings.method.params["images"]
        prompt = self.prompts[int(torch.randint(len(self.prompts), (), generator=generator))]
        first = first_seed(self.settings.seed, "fit") + update * count
        return [Job(f"{index}", prompt, 0, first + index) for index in range(count)]

    def _seen(self, latents: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return embeddings [n, d] and logits [n, K] of what latents show."""
        sampling, settings, to_pixels = self.backbone.sampling, self.settings, self.backbone.family.to_pixels
        assert sampling is not None and to_pixels is not None
        pixels = to_pixels(self.backbone.pipe, latents, sampling.height, sampling.width)
        embedded = self.judge.embed_pixels(pixels.clamp(-1, 1).float().to(settings.labeler.device))
        return embedded, self.judge.logits(embedded, settings.attribute.options)

    def _targets(self, logits: "Tensor", update: int) -> "tuple[Tensor, Tensor]":
        import numpy as np
        import torch

        from icm_pipeline.methods.assignment import target_shares

        rng, shown = np.random.default_rng([self.settings.seed, update]), logits.detach().softmax(1).double()
        targets, is_sure = targets_of(shown.cpu().numpy(), target_shares(self.settings), rng)
        return torch.from_numpy(targets).to(logits.device), torch.from_numpy(is_sure).to(logits.device)


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    from safetensors.torch import save_file
    from torch import nn

    from icm_pipeline.methods.through_sampling import low_rank, new_factors
    from icm_pipeline.methods.training import forget, frozen, train
    from icm_pipeline.store.files import written_whole

    settings, params, prompts = inputs.settings, inputs.settings.method.params, tuning_prompts(inputs.settings)
    if not prompts:
        raise ConfigError("Every prompt of searches is evaluated, and none is left to train on: give trial_subjects.")
    objective = _Objective(backbone, settings, _judge(settings), prompts)
    layers = trained_layers(backbone, params["where"])
    factors = new_factors(layers, params["rank"], settings.seed)
    with ExitStack() as stack:
        for part in (*backbone.pipe.components.values(), objective.judge.network):
            if isinstance(part, nn.Module):
                stack.enter_context(frozen(part))
        stack.enter_context(low_rank(layers, factors, lambda: objective.scale))
        train(factors, objective, params["updates"], params["learning_rate"], settings.seed, folder)
    with written_whole(folder / FILE) as partial:
        save_file({name: factor.detach().cpu().contiguous() for name, factor in factors.items()}, partial)
    forget(folder)
    return 2 * params["updates"] * params["images"]


@contextmanager
def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> Iterator[None]:
    from safetensors.torch import load_file

    from icm_pipeline.generation.prompt_embeddings import other_prompts
    from icm_pipeline.methods.through_sampling import low_rank

    params = inputs.settings.method.params
    factors = load_file(inputs.artifacts["fit"].path(FILE))
    with (
        low_rank(trained_layers(backbone, params["where"]), factors, lambda: params["scale"]),
        other_prompts(backbone.pipe),
    ):
        yield


def _draws(settings: Settings) -> bool:
    if (where := settings.method.params.get("where")) not in WHERE:
        raise ConfigError(f"method.params.where={where} is not known; choose from {', '.join(WHERE)}.")
    return False


def _why_not(family: "Family") -> str:
    return "its denoiser takes and gives lists of rows." if family.inputs_by_row else ""


FITTED = ("where", "rank", "images", "updates", "steps", "similarity", "learning_rate")
METHOD = Method(
    name="fair_finetuning",
    applied=_applied,
    words=lambda steering: [f"finetuning for fairness, {steering.params['where']} x {steering.params['scale']:g}"],
    reads=("method.name", "method.params"),
    params=("scale", *FITTED),
    draws=_draws,
    changes_weights=True,
    why_not=_why_not,
    fit=Fit(
        _fit,
        reads=(
            "method.name", *(f"method.params.{name}" for name in FITTED), *COUNTED_BY, "attribute.probe_templates",
            "attribute.probe_subjects", "attribute.trial_subjects",
        ),
    ),
    asks_for="a labeler that gives gradients; training through the sampler",
    scaled_down="no DINOv2 and no face in the loss",
    published={"rank": 50, "images": 24, "updates": 10000, "steps": ALL_STEPS},
)  # fmt: skip
