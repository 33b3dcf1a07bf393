"""icm_pipeline: find the layers where a diffusion model decides what a prompt leaves open, and change the decision.

The method is ICM of "Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models"
(CVPR 2026, arXiv 2604.06052). `python -m icm_pipeline` runs it as a pipeline; `record`, `fit_vectors`,
`steer`, `Balance`, `fold` and `load_vectors` are its pieces for a diffusers pipeline of your own; `attach` and `hooked`
are what they stand on, for interventions of your own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icm_pipeline.api import fold, record, steer
    from icm_pipeline.backbones.base import Family
    from icm_pipeline.backbones.registry import attach, register_family
    from icm_pipeline.hooks.hooked import hooked
    from icm_pipeline.methods.balance import Balance
    from icm_pipeline.methods.fitting import fit_vectors
    from icm_pipeline.methods.orthogonal import overlaps
    from icm_pipeline.methods.vectors import SteeringVectors, load_vectors

__version__ = "0.1.0"
__all__ = [
    "Balance",
    "Family",
    "SteeringVectors",
    "attach",
    "fit_vectors",
    "fold",
    "hooked",
    "load_vectors",
    "overlaps",
    "record",
    "register_family",
    "steer",
]

_MODULES = {
    "Balance": "methods.balance",
    "Family": "backbones.base",
    "SteeringVectors": "methods.vectors",
    "attach": "backbones.registry",
    "fit_vectors": "methods.fitting",
    "fold": "api",
    "hooked": "hooks.hooked",
    "load_vectors": "methods.vectors",
    "overlaps": "methods.orthogonal",
    "record": "api",
    "register_family": "backbones.registry",
    "steer": "api",
}


def __getattr__(name: str) -> Any:  # imported when asked for: the command line starts without diffusers
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
