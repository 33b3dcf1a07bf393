"""icm_pipeline: find the layers where a diffusion model decides what a prompt leaves open, and change the decision.

The method is ICM of "Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models"
(CVPR 2026, arXiv 2604.06052). `python -m icm_pipeline` runs it as a pipeline; `steer`, `fold`, `record` and
`load_vectors` are its pieces for a diffusers pipeline of your own.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icm_pipeline.api import fold, record, steer
    from icm_pipeline.vectors import SteeringVectors, load_vectors

__version__ = "0.1.0"
__all__ = ["SteeringVectors", "fold", "load_vectors", "record", "steer"]


def __getattr__(name: str) -> Any:  # imported when asked for: the command line starts without diffusers
    if name in ("fold", "record", "steer"):
        from icm_pipeline import api

        return getattr(api, name)
    if name in ("SteeringVectors", "load_vectors"):
        from icm_pipeline import vectors

        return getattr(vectors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
