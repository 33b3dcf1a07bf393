"""Judges of pictures, one file each, loaded when first needed."""

from icm_pipeline.labelers.base import Labeler, load_labeler, refuse_unanswerable

__all__ = ["Labeler", "load_labeler", "refuse_unanswerable"]
