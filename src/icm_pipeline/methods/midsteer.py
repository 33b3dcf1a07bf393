"""MidSteer: switch what a layer holds of the other options into the drawn one, by the optimal linear map.

With u_j = W (mean_j - mu), W the whitening of the activations' covariance, an image's coordinate of option j is
c_j = u_j+ W (x - mu), and x + beta sum over j != k of max(0, c_j) (mean_k - mean_j) shows option k instead.

References:
    MidSteer, by the authors of CASteer (https://arxiv.org/abs/2503.09630); its code: x - beta (S (u1 - u2)) (u1+ W)
    (x - mu), S the square root of the covariance, for one option to switch and one to switch to
Departures: mu and the covariance are of the probe dataset, not of 50,000 captions; the layers are those that probes
select, not every cross-attention; the coordinate is that of an image's mean token, which was recorded, and moves all of
its tokens; only a positive one counts, as an image that shows the drawn option has a negative one of the other and
would be turned away; covariance shrunk by OAS.
"""

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.base import ACTIVATIONS, DRAWN, LABELLED, WINDOW, Fit, Method, MethodInputs

if TYPE_CHECKING:
    from torch import Tensor

    from icm_pipeline.backbones.base import Backbone


def switched(tokens: "Tensor", numbers: Any, options: "Tensor", beta: float) -> "Tensor":
    """Return tokens [n, s, d] of which each image's mean has its other options' coordinates in its own option."""
    held = ((tokens.mean(1) - numbers["mean"]) @ numbers["reader"].mT).clamp_min(0)  # [n, K]
    centres = numbers["centre"]
    moved = held.sum(1, keepdim=True) * centres[options] - held @ centres  # that of the own option cancels
    return tokens + beta * moved[:, None]


def _fit(backbone: "Backbone", inputs: MethodInputs, folder: Path) -> int:
    from icm_pipeline.methods.erasing import fit_switch
    from icm_pipeline.methods.learnt import learn

    return learn(inputs.probe_data, inputs.layers, fit_switch, folder)


def _applied(backbone: "Backbone", inputs: MethodInputs, jobs: list[Job]) -> AbstractContextManager[Any]:
    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.methods.learnt import Moving, load_learnt

    beta = inputs.settings.method.params["beta"]
    moving = Moving(load_learnt(inputs), partial(switched, beta=beta), inputs, jobs)
    return hooked(backbone, inputs.layers, moving, len(jobs))


METHOD = Method(
    name="midsteer",
    applied=_applied,
    words=lambda steering: ["MidSteer", f"beta {steering.params['beta']:g}"],
    needs=("probe", "select"),
    reads=(*WINDOW, *DRAWN),
    params=("beta",),
    in_layers=True,
    from_first_step=True,
    fit=Fit(_fit, needs=(*LABELLED, ACTIVATIONS, "select"), reads=("method.name",)),
    asks_for="labelled probe images with activations",
    scaled_down="mean and covariance of probe images instead of 50,000 captions",
)
