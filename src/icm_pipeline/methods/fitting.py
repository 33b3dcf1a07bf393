"""From recordings and labels to steering vectors: the probe's direction, the difference of means, or the pattern.

Or, from recordings of prompts that name their option, directions between pairs, see `paired`: no judge, no picture.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026,
    https://arxiv.org/abs/2604.06052
    Steering Llama 2 via Contrastive Activation Addition (difference of means), 2023, https://arxiv.org/abs/2312.06681
    On the interpretation of weight vectors of linear models in multivariate neuroimaging (pattern), Haufe et al., 2014,
    https://doi.org/10.1016/j.neuroimage.2013.10.067
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from icm_pipeline.arrays import Ints
from icm_pipeline.config.choices import DIRECTIONS
from icm_pipeline.generation.jobs import steps_to_read
from icm_pipeline.hooks.recording import RecordedAt, Recording
from icm_pipeline.localization.foretelling import Foretelling, fit_foretellings, layers_to_read
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.localization.probes import LayerProbes, fit_layers, split_samples
from icm_pipeline.methods.paired import PAIRS, check_differ, fit_sets, sets_of
from icm_pipeline.methods.readers import Reader
from icm_pipeline.methods.vectors import SteeringVectors

FEWEST = 10  # images of an option that readers are fitted to
log = logging.getLogger(__name__)


def vectors_of_probes(
    fitted: Mapping[str, LayerProbes], direction: str, recorded: RecordedAt, options: Sequence[str], model: str,
    attribute: str, made_with: Mapping[str, Any] | None = None, words: Mapping[str, Sequence[str]] | None = None,
) -> SteeringVectors:  # fmt: skip
    """Return the steering vectors of some layers' probes; direction: which of DIRECTIONS."""
    return SteeringVectors(
        {layer: torch.from_numpy(p.directions[direction]).float() for layer, p in fitted.items()},
        {layer: torch.from_numpy(p.mean_norm).float() for layer, p in fitted.items()},
        tuple(recorded.steps), tuple(recorded.noise_levels), tuple(options), model, attribute,
        scores={layer: float(p.accuracy.mean()) for layer, p in fitted.items()},
        kinds={layer: recorded.kinds[layer] for layer in fitted}, made_with=made_with or {},
        words=words or {},
    )  # fmt: skip


def reader_of(found: Foretelling, recorded: RecordedAt, index: int) -> Reader:
    """Return what foretells at a recorded step, by its index, as steering vectors carry it."""
    step, level = recorded.steps[index], recorded.noise_levels[index]
    return Reader(step, level, found.weights, found.bias, found.accuracy)


def warn_of_unfinished(fitted: Mapping[str, LayerProbes], max_iter: int, group: str = "") -> None:
    """Say which layers have probes that did not reach their minimum; group: what stands before the settings' names."""
    unfinished = {layer: int((~p.converged).sum()) for layer, p in fitted.items() if not p.converged.all()}
    if unfinished:
        log.warning(
            "probe: %d probes did not converge in %smax_iter=%d iterations, in %s: raise it, or lower %sC.",
            sum(unfinished.values()), group, max_iter, ", ".join(unfinished), group,
        )  # fmt: skip


def fit_vectors(
    recordings: Sequence[Recording],
    labels: Sequence[str | None],
    options: Sequence[str],
    *,
    direction: str = "probe",
    C: float = 1.0,
    max_iter: int = 1000,
    test_share: float = 0.2,
    seed: int = 0,
    device: str = "cpu",
    model: str = "",
    attribute: str = "",
    words: Mapping[str, Sequence[str]] | None = None,
) -> SteeringVectors:
    """Fit a probe per layer and recorded step, and return steering vectors with the layers' scores.

    recordings: of all images, in order, with the same layers and steps; labels: the option that each image shows, None
    for one that counts for none; test_share: of the images, held out for the scores. A score is the mean accuracy over
    steps on the held-out images. With FEWEST images of each option the vectors carry readers of the first half of the
    recorded steps; with fewer a UserWarning says so. words: those of a prompt that name an option, {option: [words]}:
    `steer(..., shares=)` leaves the images of such a prompt alone. direction="pairs" fits no probe: images come in
    sets, one after the other, with each option once, of prompts that name it and are alike otherwise, and of one seed;
    labels are what the prompts name, and a score is how alike the sets differ, from -1 to 1, to be compared within a
    kind of layer: cross-attentions, which read the prompt, agree most and have least to do with an implicit choice.

    Example:
        with record(pipe) as seen:
            images = [pipe("a face of a doctor").images[0] for _ in range(100)]
        vectors = fit_vectors(seen.recordings, my_labels(images), ["woman", "man"]).best(3)

        with record(pipe, self_attentions) as seen:  # nothing is decoded, nothing is judged
            for seed, prompt in enumerate(["a face of a {} teacher", "a photo of a {} chef"]):
                for name in ("female", "male"):
                    generator = torch.Generator().manual_seed(seed)
                    pipe(prompt.format(name), generator=generator, output_type="latent")
        vectors = fit_vectors(seen.recordings, ["woman", "man"] * 2, ["woman", "man"], direction="pairs").best(3)

    Raises ValueError for labels that do not fit the recordings or the options, recordings of different layers or steps,
    an option that the training or the held-out images do not show, and where pairs are asked images that are no sets
    and prompts that change no layer.
    """
    if direction not in (*DIRECTIONS, PAIRS):
        raise ValueError(f"direction={direction!r} is not known; choose from {', '.join((*DIRECTIONS, PAIRS))}.")
    unknown = sorted({str(label) for label in labels if label is not None and label not in options})
    if unknown or len(set(options)) != len(options) or len(options) < 2:
        raise ValueError(
            f"options={list(options)}: give two or more, each once, that name every label; not: {unknown}."
        )
    if strange := sorted(set(words or ()) - set(options)):
        raise ValueError(f"words of {strange} were given; the options are {', '.join(options)}.")
    if not recordings:
        raise ValueError("recordings=[]: nothing was recorded.")
    first = recordings[0]
    for other in recordings[1:]:
        same_steps = other.steps == first.steps and np.allclose(other.noise_levels, first.noise_levels)
        if not same_steps or other.activations.keys() != first.activations.keys():
            raise ValueError("The recordings differ in their layers or steps: record all images in the same way.")
    num_images = sum(len(next(iter(recording.activations.values()))) for recording in recordings)
    if len(labels) != num_images:
        raise ValueError(f"{len(labels)} labels were given for {num_images} recorded images.")
    if direction == PAIRS:
        return _vectors_of_sets(recordings, sets_of(labels, options), options, model, attribute, words)
    numbers = np.array([-1 if label is None else list(options).index(label) for label in labels])
    seen = np.flatnonzero(numbers >= 0)
    missing = [name for index, name in enumerate(options) if not (numbers == index).any()]
    if missing:
        raise ValueError(f"No image shows {', '.join(missing)}: record more images, or leave the option out.")
    if (fewest := np.bincount(numbers[seen]).min()) < FEWEST:
        warnings.warn(
            f"{fewest} image(s) show the rarest option: with fewer than {FEWEST} of each, directions and scores are "
            "mostly chance, and a run would refuse them (probe.min_per_option). Record more.",
            stacklevel=2,
        )
    split = split_samples(numbers[seen], test_share, np.random.default_rng(seed), names=list(options))

    def activations(layer: str) -> Pooled:
        return Pooled(torch.cat([recording.activations[layer] for recording in recordings])[seen])

    layers = list(first.activations)
    fits = fit_layers(activations, layers, numbers[seen], split, C, max_iter, device)
    fitted = dict(zip(layers, fits, strict=True))
    warn_of_unfinished(fitted, max_iter)
    vectors = vectors_of_probes(fitted, direction, first, options, model, attribute, words=words)
    return replace(vectors, readers=_readers(activations, first, numbers[seen], seed, device))


def _vectors_of_sets(
    recordings: Sequence[Recording], sets: Ints, options: Sequence[str], model: str, attribute: str,
    words: Mapping[str, Sequence[str]] | None,
) -> SteeringVectors:  # fmt: skip
    """Return the vectors of sets of images [m, K]."""
    first = recordings[0]
    fitted = {
        layer: fit_sets(torch.cat([recording.activations[layer] for recording in recordings])[torch.from_numpy(sets)])
        for layer in first.activations
    }
    check_differ(found.directions for found in fitted.values())
    return SteeringVectors(
        {layer: found.directions for layer, found in fitted.items()},
        {layer: found.mean_norm for layer, found in fitted.items()},
        tuple(first.steps), tuple(first.noise_levels), tuple(options), model, attribute,
        scores={layer: found.score for layer, found in fitted.items()}, kinds=dict(first.kinds), words=words or {},
    )  # fmt: skip


def _readers(
    activations: Callable[[str], Pooled], recorded: Recording, labels: Ints, seed: int, device: str
) -> tuple[Reader, ...]:
    """Return the readers of early steps, of the layers that were reached in every step; none if images are too few."""
    early = steps_to_read(recorded.steps, max(recorded.steps) + 1)
    reached = [layer for layer in recorded.activations if activations(layer).values.isfinite().all()]
    if np.bincount(labels).min() < FEWEST or not early or not reached:
        log.info("readers: none; they take %d images of each option, and early steps.", FEWEST)
        return ()
    layers = layers_to_read({layer: recorded.kinds[layer] for layer in reached})
    found = fit_foretellings(activations, layers, early, labels, seed=seed, device=device)
    return tuple(reader_of(each, recorded, index) for index, each in zip(early, found, strict=True))
