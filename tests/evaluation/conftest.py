"""What tests of claims share."""

from tests.evaluation.planted import planted

__all__ = ["planted"]
