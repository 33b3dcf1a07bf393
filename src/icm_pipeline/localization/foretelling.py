"""Which option a finished image will show, from the activations of one early step: a probe over many layers.

Activations of all self-attention layers are standardised feature by feature and put side by side. Layers of other kinds
tell as much on prompts like those that were recorded and fail on others: what they hold follows the prompt's words. One
multinomial logistic regression is fitted to them, in the space of the images: of hundreds of layers only their inner
products [n, n] are kept, a layer at a time, and the weights are recovered in a second pass over the layers chosen.

Every image is foretold by cross-validation. How much regularisation is chosen, fold by fold, by the log loss on the
other folds, and so is the temperature that makes probabilities true: a fold chooses nothing of what foretells it. What
is returned is chosen and fitted on all images in the same way.

References:
    On Calibration of Modern Neural Networks (temperature scaling), 2017. https://arxiv.org/abs/1706.04599
    A fast dual algorithm for kernel logistic regression, 2005. https://doi.org/10.1007/s10994-005-0768-5
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from torch import Tensor

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.localization.logistic import fit_on_gram
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.localization.probes import standardise
from icm_pipeline.machine.threads import num_cores, single_threaded

STRENGTHS = (0.3, 3.0, 30.0, 300.0)  # C, of features scaled to a mean square of 1 an image
NUM_FOLDS = 5
MOST_ITERATIONS = 1000  # of a fit
READ = "self_attention"  # the kind of layer that is read where a model has it
TEMPERATURES = (-3.0, 5.0)  # natural logarithms between which it is looked for
NUM_BINS = 5  # of the calibration error: few, as what it finds by chance grows with their number
MEMORY = 2 * 2**30  # bytes of inner products at once
COPIES = 6  # of the inner products while a probe is fitted to them


@dataclass(frozen=True)
class Foretelling:
    """What foretells at one step, and how well."""

    weights: dict[str, Tensor]
    """{layer: [options, d]}, float32, on raw pooled activations, calibrated."""
    bias: Tensor
    """[options], float32."""
    C: float
    accuracy: float
    """The share of images that are foretold from the other folds."""
    calibration_error: float
    """The mean distance between how sure it is and how often it is right, over bins of images as sure."""


@dataclass(frozen=True)
class _Task:
    """What all steps share."""

    layers: Mapping[str, Pooled]
    rows: Tensor
    labels: Ints
    folds: Ints
    device: str

    @property
    def targets(self) -> Tensor:
        """One column per option, or one of 0 and 1 for two."""
        shown = torch.nn.functional.one_hot(torch.from_numpy(self.labels)).float().to(self.device)
        return shown[:, 1:] if shown.shape[1] == 2 else shown

    @property
    def width(self) -> int:
        return sum(pooled.shape[2] for pooled in self.layers.values())


def layers_to_read(kinds: Mapping[str, str]) -> list[str]:
    """Return the layers of {layer: kind} that foretell: those of READ, or all where there are none."""
    return [layer for layer, kind in kinds.items() if kind == READ] or list(kinds)


def fit_foretellings(
    read: Callable[[str], Pooled], layers: Sequence[str], steps: Sequence[int], labels: Ints, *, seed: int,
    groups: Ints | None = None, device: str = "cpu", names: Sequence[str] | None = None,
) -> Iterator[Foretelling]:  # fmt: skip
    """Yield what foretells at each step.

    read: from a layer's name to its activations [n, T, d]; steps: indices among the T; labels: [n], the option that
    each finished image shows, -1 for one that counts for none; groups: [n], of images that stay in one fold; names: the
    options'. The result does not depend on the number of threads.

    Raises ValueError for an option that fewer than two images show, or none of the images outside of a fold, and for
    activations that are not finite.
    """
    rows = np.flatnonzero(labels >= 0)
    shown, options = labels[rows], names or [str(index) for index in range(int(labels.max()) + 1)]
    folds = _folds(shown, None if groups is None else groups[rows], options, np.random.default_rng(seed))
    opened = {layer: read(layer) for layer in layers}
    task = _Task(opened, torch.from_numpy(rows), shown, folds, device)
    if torch.device(device).type != "cpu":
        yield from (_foretelling(task, step) for step in steps)
        return
    at_once = MEMORY // memory_of_step(len(rows))
    yield from single_threaded(lambda step: _foretelling(task, step), steps, max(1, min(num_cores(), at_once)))


def memory_of_step(num_images: int) -> int:
    """Return the bytes that are needed while one step is foretold."""
    return COPIES * 4 * num_images**2


def _folds(labels: Ints, groups: Ints | None, names: Sequence[str], rng: np.random.Generator) -> Ints:
    """Return each image's fold: every option, or every group, is dealt out among them."""
    counts = np.bincount(labels, minlength=len(names))
    if counts.min() < 2:
        found = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
        raise ValueError(
            f"Foretelling needs at least 2 images of every option, found: {found}. Generate more images "
            "(generate.images_per_prompt)."
        )
    folds = np.empty(len(labels), np.int64)
    if groups is None:
        for option in range(len(names)):
            members = rng.permutation(np.flatnonzero(labels == option))
            folds[members] = np.arange(len(members)) % NUM_FOLDS
        return folds
    for place, group in enumerate(rng.permutation(np.unique(groups))):
        folds[groups == group] = place % NUM_FOLDS
    for fold in range(NUM_FOLDS):
        left = np.bincount(labels[folds != fold], minlength=len(names))
        if left.min() == 0:
            raise ValueError(
                f"All images that show {names[int(left.argmin())]} come from one prompt or a few: use more prompts "
                "that show it (attribute.probe_subjects), or probe.group_by_prompt=false."
            )
    return folds


def _foretelling(task: _Task, step: int) -> Foretelling:
    gram = _gram(task, step)
    logits = _logits_of_others(gram, task)  # [STRENGTHS, n, options]
    each_loss = -_log_probabilities(logits)[:, np.arange(len(task.labels)), task.labels]  # [STRENGTHS, n]
    probabilities = np.empty(logits.shape[1:])
    for fold in range(NUM_FOLDS):
        mine, others = task.folds == fold, task.folds != fold
        best = logits[each_loss[:, others].mean(1).argmin()]
        probabilities[mine] = softmax(best[mine] / _temperature(best[others], task.labels[others]), axis=1)
    chosen = int(each_loss.mean(1).argmin())
    solution = fit_on_gram(gram, task.targets, STRENGTHS[chosen], MOST_ITERATIONS)
    sharpness = 1 / _temperature(logits[chosen], task.labels)
    weights, bias = _weights(task, step, solution.weights[0], solution.bias[0, 0])
    right = probabilities.argmax(1) == task.labels
    return Foretelling(
        {layer: (sharpness * each).float() for layer, each in weights.items()}, (sharpness * bias).float(),
        STRENGTHS[chosen], float(right.mean()), _calibration_error(probabilities, right),
    )  # fmt: skip


def _gram(task: _Task, step: int) -> Tensor:
    """Return the images' inner products, [1, n, n]."""
    n = len(task.rows)
    gram = torch.zeros(n, n, device=task.device)
    for layer in task.layers:
        x = _standard(task, layer, step)[0]
        gram += x @ x.mT
    if not gram.isfinite().all():
        raise ValueError(f"The activations of recorded step {step} hold NaN or infinity.")
    return (gram / task.width)[None]


def _standard(task: _Task, layer: str, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's activations at a step, standardised [n, d], with their mean and scale [d]."""
    x = task.layers[layer].rows(task.rows, step, step + 1).to(task.device)
    mean, scale = standardise(x)
    return x[0], mean[0, 0], scale[0, 0]


def _logits_of_others(gram: Tensor, task: _Task) -> Floats:
    """Return the logits of every image from what was fitted to the other folds, [STRENGTHS, n, options]."""
    targets = task.targets
    found = torch.empty(len(STRENGTHS), gram.shape[1], targets.shape[1], dtype=torch.float64)
    for fold in range(NUM_FOLDS):
        test, train = (torch.from_numpy(np.flatnonzero(each)) for each in (task.folds == fold, task.folds != fold))
        test_, train_ = test.to(gram.device), train.to(gram.device)
        seen, between, start = gram[:, train_][:, :, train_], gram[:, test_][:, :, train_], None
        for place, C in enumerate(STRENGTHS):
            solution = fit_on_gram(seen, targets[train_], C, MOST_ITERATIONS, start)
            found[place, test] = torch.baddbmm(solution.bias, between, solution.weights)[0].cpu().double()
            start = solution.logits
    return _per_option(found).numpy()


def _per_option(logits: Tensor) -> Tensor:
    """Return logits of every option, [..., options]: the two halves of a single one, or as they are."""
    return torch.cat([-logits / 2, logits / 2], dim=-1) if logits.shape[-1] == 1 else logits


def _weights(task: _Task, step: int, shares: Tensor, bias: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return weights {layer: [options, d]} and bias [options] on raw activations, from shares of the images [n, k]."""
    shares, bias = _per_option(shares.cpu().double()), _per_option(bias.cpu().double())
    weights = {}
    for layer in task.layers:
        x, mean, scale = _standard(task, layer, step)
        weights[layer] = shares.mT @ x.cpu().double() / task.width / scale.cpu().double()
        bias = bias - weights[layer] @ mean.cpu().double()
    return weights, bias


def _log_probabilities(logits: Floats) -> Floats:
    return logits - logsumexp(logits, axis=-1, keepdims=True)


def _temperature(logits: Floats, labels: Ints) -> float:
    """Return what to divide logits [n, options] by so that the log loss is least."""

    def loss(logarithm: float) -> float:
        found = _log_probabilities(logits / np.exp(logarithm))
        return float(-found[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=TEMPERATURES, method="bounded").x))


def _calibration_error(probabilities: Floats, right: np.ndarray) -> float:
    order = np.array_split(probabilities.max(1).argsort(kind="stable"), NUM_BINS)
    gaps = [len(each) * abs(probabilities[each].max(1).mean() - right[each].mean()) for each in order if len(each)]
    return float(sum(gaps) / len(right))
