"""LEACE, then the drawn option: erase what a linear probe reads of all options, and push towards one.

x - W^-1 P W (x - mu) + alpha |x| u_k on every conditional token of the selected layers, u_k the unit vector from the
mean over options to option k's. `alpha=0` is erasure alone, for which no option is drawn: the model may then fall to
either side, so that nothing makes its shares equal.

References:
    LEACE: Perfect linear concept erasure in closed form, 2023, https://arxiv.org/abs/2306.03819, theorem 4.3
Departures: fitted to means over tokens, which a linear map of tokens moves as it moves the tokens; the covariance is
shrunk by OAS; the push towards an option is ours.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import ACTIVATIONS, DRAWN, LABELLED, LENGTH, WINDOW, Fit, Method, MethodInputs

if TYPE_CHECKING:
    from torch import Tensor

    from icm_pipeline.backbones.base import Backbone


def erased(tokens: "Tensor", numbers: Any) -> "Tensor":
    """Return tokens [n, s, d] without what a linear probe reads of the options."""
    moved: Tensor = tokens - ((tokens - numbers["mean"]) @ numbers["right"].mT) @ numbers["left"].mT
    return moved


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    from icm_pipeline.methods.erasing import fit_erasure
    from icm_pipeline.methods.learnt import learn

    return learn(inputs.probe_data, inputs.layers, fit_erasure, folder)


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.methods.learnt import Moving, alphas_of, load_learnt, push

    alphas, unit = alphas_of(inputs), inputs.settings.method.alpha_unit

    def move(tokens: "Tensor", numbers: Any, options: "Tensor") -> "Tensor":
        without = erased(tokens, numbers)
        return without + push(numbers, options, alphas, unit)[:, None] if alphas.any() else without

    return hooked(backbone, inputs.layers, Moving(load_learnt(inputs), move, inputs, jobs), len(jobs))


METHOD = Method(
    name="leace",
    applied=_applied,
    words=lambda steering: ["LEACE", f"alpha {steering.alpha:g}" if steering.alpha else "erasure alone"],
    needs=("probe", "select"),
    reads=(*LENGTH, *WINDOW, *DRAWN),
    in_layers=True,
    from_first_step=True,
    draws=lambda settings: settings.alpha != 0,
    fit=Fit(_fit, needs=(*LABELLED, ACTIVATIONS, "select"), reads=("method.name",)),
    asks_for="labelled probe images with activations",
)
