"""Load a backbone by the name of its family."""

from importlib import import_module

from icm_pipeline.backbones.base import Backbone, BackboneError

FAMILIES = {"stable_diffusion": "icm_pipeline.backbones.stable_diffusion"}


def load_backbone(
    name: str,
    family: str,
    path: str,
    dtype: str,
    device: str,
    num_steps: int,
    guidance_scale: float,
    sites: dict[str, str],
    scheduler: str | None = None,
) -> Backbone:
    """Load a model by its family; raises BackboneError listing the families there are."""
    if family not in FAMILIES:
        raise BackboneError(f"model.family={family} is not known. Choose one of: {', '.join(FAMILIES)}.")
    backbone: Backbone = import_module(FAMILIES[family]).load(
        name=name,
        path=path,
        dtype=dtype,
        device=device,
        num_steps=num_steps,
        guidance_scale=guidance_scale,
        site_patterns=sites,
        scheduler=scheduler,
    )
    return backbone
