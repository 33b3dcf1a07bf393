"""Fair Diffusion: semantic guidance (SEGA) towards the prompt of the drawn option and away from those of the others.

With e_u the unconditional prediction and e_k that of "a female person", a step's prediction becomes e_u + g (e_c - e_u)
+ E + s_m nu, E = sum over k of mu_k where |mu_k| reaches its threshold quantile over a channel's places, mu_k = scale
(e_k - e_u) for the drawn option and minus that for the others. The momentum nu' = beta nu + (1 - beta) (E + s_m nu)
grows from the first step on; nothing is added before `warmup` steps.

References:
    Fair Diffusion: Instructing Text-to-Image Generation Models on Fairness, 2023, https://arxiv.org/abs/2302.10893
    SEGA: Instructing Text-to-Image Models using Semantic Guidance, 2023, https://arxiv.org/abs/2301.12247, section 3,
    equations 4 to 8, and its pipeline in diffusers, where the quantile is of each channel
Departures: every image is guided, not those of a look-up list of occupations; the option is drawn by quotas; guidance
is put into the conditional rows, divided by g, so that a pipeline's own arithmetic adds it. The denoiser predicts once
more for every option, in passes of their own.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import DRAWN, Fit, Method, MethodInputs

if TYPE_CHECKING:
    from torch import Tensor

    from icm_pipeline.backbones.base import Backbone, Family
    from icm_pipeline.hooks.clock import StepClock

TEXTS = "texts.safetensors"
TIME = "timestep"
MOST_AT_ONCE = 2**24  # numbers that torch.quantile takes in older versions, as 2.6, and on mps


def edit_guidance(towards: "Tensor", signs: "Tensor", scale: float, threshold: float) -> "Tensor":
    """Return the sum over options of what reaches its quantile, [n, c, h, w].

    towards: each option's prediction less the unconditional one [K, n, c, h, w]; signs: [K, n], 1 or -1.
    """
    import torch

    guided = scale * signs[:, :, None, None, None] * towards
    size = guided.abs().flatten(3).float()
    rows = size.flatten(0, 2)
    parts = rows.split(max(1, MOST_AT_ONCE // rows.shape[1]))
    is_kept = torch.cat([part >= torch.quantile(part, threshold, dim=1, keepdim=True) for part in parts])
    return (guided * is_kept.view_as(guided)).sum(0)


def with_momentum(guidance: "Tensor", momentum: "Tensor", scale: float, beta: float) -> "tuple[Tensor, Tensor]":
    """Return a step's guidance with momentum, and the momentum after it."""
    guided = guidance + scale * momentum
    return guided, beta * momentum + (1 - beta) * guided


def rows_of(inputs: Mapping[str, Any], num_rows: int, before: str = "") -> "Iterator[tuple[str, Tensor]]":
    """Yield what a call of the denoiser has of each row beside latents and timestep, with its name; `/` for nested."""
    import torch

    for place, (name, value) in enumerate(inputs.items()):
        if not before and (place == 0 or name == TIME):
            continue
        if isinstance(value, Mapping):
            yield from rows_of(value, num_rows, f"{before}{name}/")
        elif isinstance(value, torch.Tensor) and value.dim() and len(value) == num_rows:
            yield f"{before}{name}", value


def _bound(backbone: "Backbone", forward: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    return dict(inspect.signature(forward).bind(*args, **kwargs).arguments)


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    """Keep what the denoiser takes of each option's prompt [K, ...]."""
    import torch
    from safetensors.torch import save_file

    from icm_pipeline.generation.early import ended_after
    from icm_pipeline.generation.sampling import denoise
    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.hooks.wrapping import wrapped
    from icm_pipeline.methods.wordings import option_prompts
    from icm_pipeline.store.files import written_whole

    _check(backbone)
    jobs = [Job(text, text, index, 0) for index, text in enumerate(option_prompts(inputs.settings))]
    found = dict[str, torch.Tensor]()
    with hooked(backbone, [], None, len(jobs)) as clock:

        def note(forward: Any, *args: Any, **kwargs: Any) -> Any:
            if clock.call is not None and clock.rows is not None:
                rows = rows_of(_bound(backbone, forward, args, kwargs), clock.call.num_rows)
                found.update((name, value[clock.rows].cpu().contiguous()) for name, value in rows)
            return forward(*args, **kwargs)

        with wrapped(backbone.denoiser, "forward", note), ended_after(backbone, clock, 1):
            denoise(backbone, jobs)
    with written_whole(folder / TEXTS) as partial:
        save_file(found, partial)
    return 0


def _check(backbone: "Backbone") -> None:
    from icm_pipeline.backbones.modules import is_compiled

    if is_compiled(backbone.denoiser):
        raise ConfigError("method=sega calls the denoiser with other prompts: set compute.compile=false.")


@contextmanager
def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> Iterator[None]:
    import torch
    from safetensors.torch import load_file

    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.hooks.wrapping import wrapped

    _check(backbone)
    texts = load_file(inputs.artifacts["fit"].path(TEXTS))
    options = torch.tensor([inputs.option_of[job.image_id] for job in jobs])
    signs = 2.0 * torch.nn.functional.one_hot(options, len(inputs.settings.attribute.options)).mT - 1
    with hooked(backbone, [], None, len(jobs)) as clock:
        guidance = _Guidance(backbone, clock, texts, signs, inputs.settings.method.params)
        with wrapped(backbone.denoiser, "forward", guidance.forward):
            yield


class _Guidance:
    """The denoiser's forward with the edit's guidance in its conditional rows."""

    def __init__(
        self, backbone: "Backbone", clock: "StepClock", texts: "Mapping[str, Tensor]", signs: "Tensor",
        params: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self._backbone, self._clock, self._texts = backbone, clock, texts
        self._signs, self._params = signs, params
        self._momentum: Tensor | None = None

    def forward(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        call, rows, sampling = self._clock.call, self._clock.rows, self._backbone.sampling
        assert call is not None and rows is not None and sampling is not None
        if call.rows_per_image == 1:
            raise ConfigError(
                "method=sega guides away from the unconditional prediction, and without guidance there is none: raise "
                "model.guidance_scale."
            )
        predicted = result[0]
        added = self._added(forward, _bound(self._backbone, forward, args, kwargs), predicted, rows)
        if self._clock.step < self._params["warmup"]:
            return result
        changed = predicted.clone()
        changed[rows] += (added / sampling.guidance_scale).to(predicted.dtype)
        return (changed, *result[1:])

    def _added(self, forward: Any, inputs: dict[str, Any], predicted: "Tensor", rows: slice) -> "Tensor":
        """Return this step's guidance, with momentum."""
        import torch

        count, num_images = len(predicted), rows.stop - rows.start
        unconditional = predicted[slice(0, num_images) if rows.start else slice(num_images, None)]
        edits = [
            forward(**_with_text(inputs, {name: each[option] for name, each in self._texts.items()}, rows, count))[0]
            for option in range(len(self._signs))
        ]
        towards, params = torch.stack(edits) - unconditional, self._params
        guidance = edit_guidance(towards, self._signs.to(towards), params["scale"], params["threshold"])
        before = torch.zeros_like(guidance) if self._momentum is None else self._momentum
        guided, self._momentum = with_momentum(guidance, before, params["momentum"], params["beta"])
        return guided


def _with_text(
    inputs: Mapping[str, Any], text: "Mapping[str, Tensor]", rows: slice, num_rows: int, before: str = ""
) -> dict[str, Any]:
    """Return a call's inputs with its conditional rows alone, and a prompt's own [...] for each of them."""
    import torch

    made = dict[str, Any]()
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            made[name] = _with_text(value, text, rows, num_rows, f"{before}{name}/")
        elif not isinstance(value, torch.Tensor) or not value.dim() or len(value) != num_rows:
            made[name] = value
        elif (own := text.get(f"{before}{name}")) is not None:
            made[name] = own.to(value.device).expand(rows.stop - rows.start, *own.shape)
        else:
            made[name] = value[rows]
    return made


def _why_not(family: "Family") -> str:
    if family.rows == "unconditional first":
        return ""
    return "its guidance is not one call of the denoiser with unconditional rows before conditional ones."


METHOD = Method(
    name="sega",
    applied=_applied,
    words=lambda steering: ["Fair Diffusion", f"scale {steering.params['scale']:g}"],
    reads=DRAWN,
    params=("scale", "threshold", "warmup", "momentum", "beta"),
    why_not=_why_not,
    fit=Fit(_fit, reads=("method.name", "attribute.named", "attribute.probe_subjects")),
    asks_for="prompts that name options, no images; guidance by rows",
)
