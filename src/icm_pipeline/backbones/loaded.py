"""The model that was loaded last, for the stages and jobs that come after."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from icm_pipeline.config.schema import ModelConfig
from icm_pipeline.machine.devices import check_device
from icm_pipeline.store.fingerprints import stat_hash
from icm_pipeline.zoo.paths import local_folder

if TYPE_CHECKING:
    from icm_pipeline.backbones.base import Backbone
log = logging.getLogger(__name__)


class ModelCache:
    """Keeps the model that was loaded last: two may not fit.

    It belongs to whoever runs. The stages of a run, and the jobs of a sweep, are given the same one; two runs that are
    not share no model.
    """

    def __init__(self) -> None:
        self._last: tuple[ModelConfig, str, Backbone] | None = None

    def load(self, model: ModelConfig) -> "Backbone":
        """Load a model as its configuration says, or return the one loaded last if that is the same."""
        from icm_pipeline.backbones.loading import Placement  # with torch
        from icm_pipeline.backbones.registry import load_backbone

        check_device(model.device, "model.device")
        config = replace(model, batch_size=1, grow_batch=False, num_threads=None)
        folder = local_folder(model.path)
        files = stat_hash(folder) if folder is not None and folder.is_dir() else ""
        if self._last is not None and self._last[:2] == (config, files):
            return self._last[2]
        self._last = None  # before the next is loaded
        backbone = load_backbone(
            name=model.name,
            path=model.path,
            num_steps=model.num_steps,
            guidance_scale=model.guidance_scale,
            placement=Placement(
                model.device,
                model.dtype,
                model.offload,
                model.vae_slicing,
                model.vae_tiling,
                model.channels_last,
                model.attention_kernel,
                model.compile,
            ),
            sites=model.sites,
            scheduler=model.scheduler,
            revision=model.revision,
            variant=model.variant,
            height=model.height,
            width=model.width,
            options=model.call,
            decode_batch_size=model.decode_batch_size,
        )
        self._last = (config, files, backbone)
        log.info("%s loaded from %s on %s: %d sites", model.name, model.path, model.device, len(backbone.sites))
        return backbone
