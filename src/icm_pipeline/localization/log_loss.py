"""The log loss of many logistic regressions at once, by its derivatives."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """What is minimised; see `logistic.fit_logistic`."""

    targets: Tensor
    C: float
    max_iter: int
    counted: Tensor | None = None

    def of(self, chosen: Tensor) -> "Task":
        """Return some of the problems [b], in float64."""
        targets = self.targets[chosen] if self.targets.ndim == 3 else self.targets
        counted = None if self.counted is None else self.counted[chosen].double()
        return Task(targets.double(), self.C, self.max_iter, counted)


class Loss:
    """C times the log loss at logits f [b, n, k], by its derivatives.

    What is left of 1 beside a probability near 1 is computed by itself, never as a difference: where C is large that
    small number is what decides.
    """

    def __init__(self, f: Tensor, task: Task) -> None:
        self.task = task
        targets, C = task.targets, task.C
        if f.shape[2] == 1:
            sign = 2 * targets - 1
            rest = torch.sigmoid(-sign * f)  # the probability of the other option
            self.residual = self._of_samples(C * sign * rest)
            self._spread = self._of_samples(rest * (1 - rest))
            mean = self._spread
        else:
            self._p = torch.softmax(f, dim=2)
            others = (1 - targets) * self._p
            rest = others.sum(2, keepdim=True)
            self.residual = self._of_samples(C * (targets * rest - others))
            mean = (others * (1 - others) + targets * self._p * rest).sum(2, keepdim=True) / (f.shape[2] - 1)
        self.curvature = self._of_samples(C * mean.clamp_min(torch.finfo(f.dtype).tiny))
        """Each sample's mean curvature over the options, [b, n, 1], above 0."""

    def _of_samples(self, values: Tensor) -> Tensor:
        return values if self.task.counted is None else values * self.task.counted

    def bend(self, along: Tensor) -> Tensor:
        """Return the second derivative in a direction of the logits, [b, 1, 1]."""
        if along.shape[2] == 1:
            return self.task.C * total(self._spread * along.square())
        apart = along - (self.task.targets * along).sum(2, keepdim=True)
        mean = (self._p * apart).sum(2, keepdim=True)
        squares = self._of_samples(self._p * apart.square())
        return self.task.C * (total(squares) - total(self._of_samples(mean.square())))


def total(values: Tensor) -> Tensor:
    """Return the sum of each problem's values [b, n, k], [b, 1, 1]."""
    return values.sum((1, 2), keepdim=True)
