"""Measure the embedded parts: judges on held-out renders, the model's obedience, its odds, and the judges' agreement.

The figures go into `quality.json` beside the weights; the model cards quote them.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.generation.jobs import make_jobs
from icm_pipeline.generation.sampling import batches, decode, denoise
from icm_pipeline.labelers.base import Labeler
from icm_pipeline.metrics.fairness import fairness_discrepancy
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.pretrain.autoencoder import encode_portraits, to_tensor
from icm_pipeline.pretrain.captions import NAMED_SHARE
from icm_pipeline.pretrain.dataset import Portraits
from icm_pipeline.pretrain.world import ATTRIBUTES, OCCUPATIONS, odds
from icm_pipeline.progress import working
from icm_pipeline.text import with_article

log = logging.getLogger(__name__)

NAMING_PROMPTS = {
    "gender": ("a photo of a {}", "a face of a {} doctor", "a portrait of a {} nurse", "a picture of a {} mechanic"),
    "age": ("a photo of a {} person", "a face of a {} doctor", "a portrait of a {} nurse", "a picture of a {} teacher"),
    "skin_tone": (
        "a photo of a {}-skinned person", "a face of a doctor with {} skin", "a portrait of a {}-skinned nurse",
    ),
    "background": ("a photo of a person on a {} background", "a face of a doctor on a {} background"),
    "glasses": (
        "a photo of a person {} glasses", "a face of a nurse {} glasses", "a portrait of a firefighter {} glasses",
    ),
}  # fmt: skip
WORDS = {"none": "without", "glasses": "with"}
JUDGED = ("gender", "age", "skin_tone")
SHARES = ("classifier_accuracy", "clip_accuracy", "obeyed", "fd_original", "judges_agree")


@dataclass(frozen=True)
class Judges:
    """The two judges and what they are asked."""

    classifier: Labeler
    clip: Labeler
    attributes: dict[str, dict[str, list[str]]]
    """Label texts, {attribute: {option: texts}}."""
    evaluation_prompts: list[str]
    """The prompts of FD."""


def check_label_texts(attributes: dict[str, dict[str, list[str]]]) -> None:
    """Raise ValueError unless there are label texts, {attribute: {option: texts}}, for all that portraits can show."""
    missing = [name for name, options in ATTRIBUTES.items() if not attributes.get(name, {}).keys() >= set(options)]
    if missing:
        raise ValueError(
            f"pretrain.part=quality asks the judges for {', '.join(ATTRIBUTES)}, and evaluate.drift has no label texts "
            f"for the options of {', '.join(missing)}. Set evaluate=portraits."
        )


def measure_judges(judges: Judges, held_out: Portraits) -> dict[str, Any]:
    """Return how often each judge is right on renders that no part was trained on."""
    renders = [Image.fromarray(pixels) for pixels in held_out.pixels]
    figures: dict[str, Any] = {"num_held_out": len(renders)}
    for name, judge in (("classifier", judges.classifier), ("clip", judges.clip)):
        read = _read(judge, renders, judges)
        figures[f"{name}_accuracy"] = {
            attribute: float((read[attribute] == held_out.labels(attribute, options)).mean())
            for attribute, options in ATTRIBUTES.items()
        }
    return figures


def measure_model(
    model: Backbone, unguided: Backbone, judges: Judges, held_out: Portraits, num_images: int, seed: int
) -> dict[str, Any]:
    """Return a model's quality figures; `num_images` is how many are generated per question.

    `model` samples at the default guidance, `unguided` is the same model at guidance 1.
    """
    figures: dict[str, Any] = {"num_images": num_images, "autoencoder_psnr": _psnr(model.pipe.vae, held_out)}
    named = [name for name in NAMED_SHARE if name in ATTRIBUTES]
    figures["obeyed"] = {name: _obeyed(model, judges, name, num_images, seed) for name in named}
    figures["odds"] = _odds(unguided, judges, num_images, seed)
    images = _generate(model, judges.evaluation_prompts, max(1, num_images // len(judges.evaluation_prompts)), seed)
    by_prompt = [judges.classifier.label(group, judges.attributes) for group in images.values()]
    figures["fd_original"] = {
        attribute: float(np.mean([fairness_discrepancy(probabilities[attribute]) for probabilities in by_prompt]))
        for attribute in JUDGED
    }
    everything = [image for group in images.values() for image in group]
    first, second = (_read(judge, everything, judges) for judge in (judges.classifier, judges.clip))
    figures["judges_agree"] = {attribute: float((first[attribute] == second[attribute]).mean()) for attribute in JUDGED}
    return figures


def _read(judge: Labeler, images: list[Any], judges: Judges) -> dict[str, NDArray[np.int64]]:
    """Return what a judge sees, {attribute: index among the world's options [n]}."""
    questions = {name: {option: judges.attributes[name][option] for option in ATTRIBUTES[name]} for name in ATTRIBUTES}
    return {name: hard_labels(probabilities) for name, probabilities in judge.label(images, questions).items()}


def _psnr(autoencoder: Any, held_out: Portraits) -> float:
    pixels = torch.from_numpy(held_out.pixels[:500])
    with torch.inference_mode():
        latents = encode_portraits(autoencoder, pixels).to(autoencoder.device)
        decoded = [autoencoder.decode(part).sample.cpu() for part in latents.split(50)]
    error = (torch.cat(decoded).clamp(-1, 1) - to_tensor(pixels)).square().mean() / 4
    return float(-10 * torch.log10(error))


def _generate(model: Backbone, prompts: list[str], per_prompt: int, seed: int) -> dict[str, list[Any]]:
    """Return `per_prompt` images of every prompt."""
    images: dict[str, list[Any]] = {prompt: [] for prompt in prompts}
    jobs = make_jobs(prompts, per_prompt, seed + 1000, "evaluation")
    with working("quality", len(jobs), "image") as work:
        for batch in batches(jobs, 32):
            for sample in decode(model, batch, denoise(model, batch)):
                images[sample.job.prompt].append(sample.image)
            work.advance(len(batch))
    return images


def _obeyed(model: Backbone, judges: Judges, attribute: str, num_images: int, seed: int) -> float:
    """Return the share of images that show the option their prompt names."""
    options = ATTRIBUTES[attribute]
    wanted = {
        with_article(template.replace("{}", WORDS.get(option, option) if attribute == "glasses" else option)): index
        for index, option in enumerate(options)
        for template in NAMING_PROMPTS[attribute]
    }
    images = _generate(model, list(wanted), max(1, num_images // len(wanted)), seed)
    hits = [_read(judges.classifier, group, judges)[attribute] == wanted[prompt] for prompt, group in images.items()]
    return float(np.concatenate(hits).mean())


def _odds(model: Backbone, judges: Judges, num_images: int, seed: int) -> dict[str, Any]:
    """Return the shares at guidance 1 beside the training odds, and their largest and mean distance."""
    per_job = max(1, num_images // 2)
    prompts = {with_article(f"a photo of a {job}"): job for job in OCCUPATIONS}
    images = _generate(model, list(prompts), per_job, seed + 1)
    read = {prompt: _read(judges.classifier, group, judges) for prompt, group in images.items()}
    figures: dict[str, Any] = {"images_per_occupation": per_job}
    for attribute in JUDGED:
        rows, distances = {}, []
        for prompt, job in prompts.items():
            labels, trained = read[prompt][attribute], odds(job, attribute)
            drawn = np.bincount(labels, minlength=len(trained)) / len(labels)
            rows[job] = {"trained": trained.tolist(), "drawn": drawn.tolist()}
            distances.append(np.abs(trained - drawn).max())
        extremes = {"largest_distance": float(max(distances)), "mean_distance": float(np.mean(distances))}
        figures[attribute] = rows | extremes
    return figures


def write_figures(figures: dict[str, Any], path: Path) -> None:
    """Write the figures as JSON and log those that the project promises."""
    path.write_text(json.dumps(figures, indent=2) + "\n")
    for name in (name for name in SHARES if name in figures):
        log.info("quality: %s %s", name, {key: round(value, 4) for key, value in figures[name].items()})
    for attribute in JUDGED:
        most, mean = (figures["odds"][attribute][f"{name}_distance"] for name in ("largest", "mean"))
        log.info("quality: odds of %s: %.3f at most, %.3f on average", attribute, most, mean)


def flat_figures(figures: dict[str, Any]) -> dict[str, float]:
    """Return the scalars among the figures under names such as `quality/obeyed/gender`."""
    return {f"quality/{name}/{key}": value for name in SHARES for key, value in figures.get(name, {}).items()}
