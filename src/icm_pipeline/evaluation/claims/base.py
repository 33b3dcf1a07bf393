"""What every group of claims is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from icm_pipeline.config.auditing import AuditSizeConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.judging import Judging
from icm_pipeline.images.table import ImageRow
from icm_pipeline.store.artifacts import Artifact

LEAST_FALL = 0.1  # of FD, which is 0.71 where all images show one of two options
LEAST_CLOSER = 0.02  # of CLIP-I, whose whole range between twins and strangers is some tenths
NOT_NAMED = "attribute.named does not say how a prompt names an option."


@dataclass(frozen=True, eq=False)  # so that what is computed of one can be remembered
class AuditInputs:
    """The settings, the artifacts of the stages that the claims need, and the judges."""

    settings: Settings
    artifacts: Mapping[str, Artifact]
    judging: Judging
    labelled: Sequence[ImageRow] = ()
    """Images whose option is what they truly show; none if there are none of this attribute."""
    labelled_from: str = ""
    """What they are, or why there are none."""

    @property
    def size(self) -> AuditSizeConfig:
        """How much is repeated."""
        return self.settings.audit.chosen

    @property
    def activations(self) -> Artifact:
        """What holds the probe dataset's pooled activations."""
        return self.artifacts["generate" if self.settings.generate.record else "extract"]

    def rng(self, what: str) -> np.random.Generator:
        """Return a generator of what is drawn for one purpose, the same at every run."""
        return np.random.default_rng([self.settings.seed, crc32(what.encode())])
