"""The model that was loaded last, for the stages and jobs that come after."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from icm_pipeline.config.models import ComputeConfig, ModelConfig
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
        self._last: tuple[tuple[ModelConfig, ComputeConfig, str], Backbone] | None = None

    def load(self, model: ModelConfig, compute: ComputeConfig) -> "Backbone":
        """Load a model as its configuration says, or return the one loaded last if that is the same."""
        from icm_pipeline.backbones.registry import load_backbone  # with torch

        check_device(compute.device, "compute.device")
        folder = local_folder(model.path)
        files = stat_hash(folder) if folder is not None and folder.is_dir() else ""
        wanted = (model, replace(compute, batch_size=1, grow_batch=False, num_threads=None), files)
        if self._last is not None and self._last[0] == wanted:
            return self._last[1]
        self._last = None  # before the next is loaded
        backbone = load_backbone(model, compute)
        self._last = (wanted, backbone)
        log.info("%s loaded from %s on %s: %d sites", model.name, model.path, compute.device, len(backbone.sites))
        return backbone
