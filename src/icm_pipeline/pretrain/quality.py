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
from PIL import Image
from tqdm import tqdm

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.labelers import Labeler
from icm_pipeline.metrics.fairness import fairness_discrepancy
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.pretrain.autoencoder import encode_portraits, to_tensor
from icm_pipeline.pretrain.captions import NAMED_SHARE
from icm_pipeline.pretrain.dataset import Portraits
from icm_pipeline.pretrain.world import ATTRIBUTES, OCCUPATIONS, odds
from icm_pipeline.prompts import make_jobs
from icm_pipeline.sampling import batches, decode, denoise

log = logging.getLogger(__name__)

NAMING_PROMPTS = {
    "gender": ("a photo of a {}", "a face of a {} doctor", "a portrait of a {} nurse", "a picture of a {} mechanic"),
    "age": ("a photo of a {} person", "a face of a {} doctor", "a portrait of a {} nurse", "a picture of a {} teacher"),
    "skin_tone": (
        "a photo of a {}-skinned person",
        "a face of a doctor with {} skin",
        "a portrait of a {}-skinned nurse",
    ),
    "background": ("a photo of a person on a {} background", "a face of a doctor on a {} background"),
    "glasses": (
        "a photo of a person {} glasses",
        "a face of a nurse {} glasses",
        "a portrait of a firefighter {} glasses",
    ),
}
WORDS = {"none": "without", "glasses": "with"}
JUDGED = ("gender", "age", "skin_tone")


@dataclass(frozen=True)
class Judges:
    """The two judges and the label texts they are asked with, {attribute: {option: texts}}."""

    classifier: Labeler
    clip: Labeler
    attributes: dict[str, dict[str, list[str]]]


def measure(
    model: Backbone, unguided: Backbone, judges: Judges, held_out: Portraits, num_images: int, seed: int
) -> dict[str, Any]:
    """Return every quality figure; `num_images` is how many are generated per question.

    `model` samples at the default guidance, `unguided` is the same model at guidance 1.
    """
    renders = [Image.fromarray(pixels) for pixels in held_out.pixels]
    figures: dict[str, Any] = {"num_held_out": len(renders), "num_images": num_images}
    for name, judge in (("classifier", judges.classifier), ("clip", judges.clip)):
        figures[f"{name}_accuracy"] = {
            attribute: float((_read(judge, renders, judges, attribute) == held_out.labels(attribute, options)).mean())
            for attribute, options in ATTRIBUTES.items()
        }
    figures["autoencoder_psnr"] = _psnr(model.pipe.vae, held_out)
    figures["obeyed"] = {
        name: _obeyed(model, judges, name, num_images, seed) for name in NAMED_SHARE if name in ATTRIBUTES
    }
    figures["odds"] = _odds(unguided, judges, num_images, seed)
    prompts = [f"a face of a {job}" for job in ("doctor", "firefighter", "nurse", "receptionist")]
    images = _generate(model, prompts, max(1, num_images // len(prompts)), seed)
    figures["fd_original"] = {
        attribute: float(
            np.mean(
                [
                    fairness_discrepancy(
                        judges.classifier.label(images[prompt], attribute, judges.attributes[attribute])
                    )
                    for prompt in prompts
                ]
            )
        )
        for attribute in JUDGED
    }
    everything = [image for group in images.values() for image in group]
    figures["judges_agree"] = {
        attribute: float(
            (
                _read(judges.classifier, everything, judges, attribute)
                == _read(judges.clip, everything, judges, attribute)
            ).mean()
        )
        for attribute in JUDGED
    }
    return figures


def _read(judge: Labeler, images: list[Any], judges: Judges, attribute: str) -> np.ndarray:
    return hard_labels(judge.label(images, attribute, judges.attributes[attribute]))


def _psnr(autoencoder: Any, held_out: Portraits) -> float:
    pixels = torch.from_numpy(held_out.pixels[:500])
    with torch.inference_mode():
        decoded = [autoencoder.decode(part).sample for part in encode_portraits(autoencoder, pixels).split(50)]
    error = (torch.cat(decoded).clamp(-1, 1) - to_tensor(pixels)).square().mean() / 4
    return float(-10 * torch.log10(error))


def _generate(model: Backbone, prompts: list[str], per_prompt: int, seed: int) -> dict[str, list[Any]]:
    """Return `per_prompt` images of every prompt."""
    images: dict[str, list[Any]] = {prompt: [] for prompt in prompts}
    jobs = make_jobs(prompts, per_prompt, seed + 1000, "evaluation")
    for batch in tqdm(list(batches(jobs, 32)), desc="quality", unit="batch", mininterval=5):
        for sample in decode(model, batch, denoise(model, batch)):
            images[sample.job.prompt].append(sample.image)
    return images


def _obeyed(model: Backbone, judges: Judges, attribute: str, num_images: int, seed: int) -> float:
    """Return the share of images that show the option their prompt names."""
    options = ATTRIBUTES[attribute]
    wanted = {
        template.replace("{}", WORDS.get(option, option) if attribute == "glasses" else option): index
        for index, option in enumerate(options)
        for template in NAMING_PROMPTS[attribute]
    }
    images = _generate(model, list(wanted), max(1, num_images // len(wanted)), seed)
    hits = [_read(judges.classifier, group, judges, attribute) == wanted[prompt] for prompt, group in images.items()]
    return float(np.concatenate(hits).mean())


def _odds(model: Backbone, judges: Judges, num_images: int, seed: int) -> dict[str, Any]:
    """Return the shares at guidance 1 beside the training odds, and their largest and mean distance."""
    per_job = max(1, num_images // 2)
    prompts = {f"a photo of a {job}": job for job in OCCUPATIONS}
    prompts = {prompt.replace("a e", "an e"): job for prompt, job in prompts.items()}
    images = _generate(model, list(prompts), per_job, seed + 1)
    rows: dict[str, Any] = {}
    for attribute in JUDGED:
        options = ATTRIBUTES[attribute]
        rows[attribute] = {}
        for prompt, job in prompts.items():
            labels = _read(judges.classifier, images[prompt], judges, attribute)
            shares = np.bincount(labels, minlength=len(options)) / len(labels)
            rows[attribute][job] = {"trained": odds(job, attribute).tolist(), "drawn": shares.tolist()}
        distances = [np.abs(np.subtract(row["trained"], row["drawn"])).max() for row in rows[attribute].values()]
        rows[attribute]["largest_distance"] = float(max(distances))
        rows[attribute]["mean_distance"] = float(np.mean(distances))
    return {"images_per_occupation": per_job, **rows}


def write_figures(figures: dict[str, Any], path: Path) -> None:
    """Write the figures as JSON and log those that the project promises."""
    path.write_text(json.dumps(figures, indent=2) + "\n")
    for name in ("classifier_accuracy", "clip_accuracy", "obeyed", "fd_original", "judges_agree"):
        log.info("quality: %s %s", name, {key: round(value, 4) for key, value in figures[name].items()})
    for attribute in JUDGED:
        row = figures["odds"][attribute]
        log.info(
            "quality: odds of %s: %.3f at most, %.3f on average",
            attribute,
            row["largest_distance"],
            row["mean_distance"],
        )
