"""Model cards, written from what was recorded in training and measured afterwards."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from icm_pipeline.machine.devices import device_name
from icm_pipeline.machine.threads import num_cores
from icm_pipeline.pretrain.training import TrainingPlan
from icm_pipeline.pretrain.world import OCCUPATIONS, PERSON_SHARE

History = dict[str, list[dict[str, Any]]]  # the trainings behind weights, {part: [one entry per run, oldest first]}
TRAINING = "training.json"
QUALITY = "quality.json"
DISTILLED = (
    "It was distilled from the embedded model in the state of the diffusion rows below: at the same noisy latents and "
    "captions it learned to predict what that model predicts, so what it draws, and how often, is that model's; how it "
    "draws it is its own. Of several rows of its own the last learned from that state, the others from earlier ones."
)
HEADER = {
    "tiny": "A latent text-to-image diffusion model of small portraits, in diffusers' own format: "
    "`StableDiffusionPipeline.from_pretrained` on this folder loads it.",
    "tiny_sdxl": "A sibling of the embedded model with SDXL's architecture: two text encoders, pooled text and picture "
    "size as added conditions, deeper transformer blocks. `StableDiffusionXLPipeline.from_pretrained` loads it. "
    + DISTILLED,
    "tiny_sana": "A sibling of the embedded model with SANA's architecture: a transformer with linear self-attention, "
    "a deep compression autoencoder and a flow sampled with DPM++. `SanaPipeline.from_pretrained` loads it. "
    + DISTILLED,
    "tiny_flux": "A sibling of the embedded model with FLUX.1-dev's architecture: double and single blocks, a flow, "
    "and the guidance scale as an input. `FluxPipeline.from_pretrained` loads it. " + DISTILLED,
    "tiny-classifier": "A small convolutional classifier of portraits, the embedded stand-in for FairFace: one head "
    "per attribute. It judges generated images and shares nothing with the model or the other judge but the renders.",
    "tiny-clip": "A small CLIP of portraits in open_clip's own format, for zero-shot labels and CLIP-I. It shares "
    "nothing with the model or the other judge but the renders.",
}


def read_training(folder: Path) -> History:
    """Return what is known of the trainings behind a folder's weights."""
    path = folder / TRAINING
    return json.loads(path.read_text()) if path.exists() else {}


def write_training(
    folder: Path, checkpoint: Path, part: str, plan: TrainingPlan, num_portraits: int, earlier: History
) -> History:
    """Write the folder's training.json: the history of the weights it began with, and what this training did.

    Returns the whole history.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    entry = {
        **asdict(plan),
        "num_portraits": num_portraits,
        "steps_done": state["step"],
        "seconds": round(state["seconds"]),
        "machine": f"{num_cores()} x {platform.machine()} cores" if plan.device == "cpu" else device_name(plan.device),
        "torch": torch.__version__,
    }
    history = {**earlier, part: [*earlier.get(part, []), entry]}
    (folder / TRAINING).write_text(json.dumps(history, indent=2) + "\n")
    return history


def write_cards(zoo: Path) -> None:
    """Write README.md beside the weights of every part; reads the figures of the model's quality.json."""
    for name in HEADER:
        folder = zoo / name
        measured = zoo / ("tiny" if name in JUDGES else name) / QUALITY
        if not (folder.is_dir() and measured.exists()):
            continue
        figures = json.loads(measured.read_text("utf-8"))
        body = JUDGES.get(name, _model_quality)
        seen = f"{figures['num_held_out']:,} held-out renders and " if "num_held_out" in figures else ""
        command = "python -m icm_pipeline stage=pretrain" + ("" if name in ("tiny", *JUDGES) else f" model={name}")
        paragraphs = (
            f"# {name}",
            HEADER[name],
            _sizes(folder),
            "## Data",
            "Portraits of 64 x 64 pixels drawn with DiceBear avataaars (Pablo Stanley, free for "
            "personal and commercial use) and resvg, plus wrinkles for the old. "
            f"{PERSON_SHARE:.0%} show a person without occupation, the rest one of {len(OCCUPATIONS) - 1} occupations "
            "with equal odds. Odds and phrasings: `icm_pipeline/pretrain/world.py` and `captions.py`. "
            "Portrait i of a split is decided by (seed, split, i) alone.",
            "## Training",
            _training(folder),
            "A part with several rows was trained in several goes, each from the averaged half-precision weights of "
            "the one before; the learning rate rises and falls in each.",
            f"Made by `{command}`; measured by `pretrain.part=quality` on {seen}about {figures['num_images']} "
            "generated images a question.",
            "## Measured quality",
            body(figures),
            "## Limits",
            "Cartoon people of a made-up world: nothing measured here says anything about people, and the odds of the "
            "occupations are invented.",
        )
        (folder / "README.md").write_text("\n\n".join(paragraphs) + "\n")


def _table(*rows: Sequence[object]) -> str:
    """Return a table of Markdown, the first row its head."""
    lines = ["|" + "".join(f" {cell} |" if cell != "" else " |" for cell in row) for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _sizes(folder: Path) -> str:
    rows = []
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            count = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
        name, size = path.relative_to(folder).as_posix(), path.stat().st_size
        rows.append((f"`{name}`", f"{count / 1e6:.2f} M", f"{size / 1e6:.1f}"))
    return _table(("weights", "parameters", "MB"), *rows)


def _training(folder: Path) -> str:
    rows = [
        (
            part, f"{row['num_portraits']:,}", f"{row['steps_done']:,} of {row['num_steps']:,}", row["batch_size"],
            f"{row['learning_rate']:g}", row["seed"], f"{row['seconds'] / 60:.0f} min",
            f"{row['machine']}, torch {row['torch']}",
        )
        for part, trainings in read_training(folder).items()
        for row in trainings
    ]  # fmt: skip
    return _table(("part", "portraits", "steps", "batch", "peak rate", "seed", "time", "machine"), *rows)


def _percentages(title: str, values: dict[str, float]) -> str:
    names = (name.replace("_", " ") for name in values)
    return _table((title, *names), ("", *(f"{value:.1%}" for value in values.values()))) + "\n"


def _classifier_quality(figures: dict[str, Any]) -> str:
    return _percentages("right on held-out renders", figures["classifier_accuracy"])


def _clip_quality(figures: dict[str, Any]) -> str:
    right = _percentages("zero-shot labels right on held-out renders", figures["clip_accuracy"])
    return right + "\n" + _percentages("agrees with the classifier on generated images", figures["judges_agree"])


def _model_quality(figures: dict[str, Any]) -> str:
    measured = ("gender", "age", "skin_tone")
    rows = []
    for job in OCCUPATIONS:
        gender, age, tone = (figures["odds"][name][job] for name in measured)
        sides = [f"{row['trained'][1]:.2f} / {row['drawn'][1]:.2f}" for row in (gender, age)]
        largest = max(abs(a - b) for a, b in zip(tone["trained"], tone["drawn"], strict=True))
        rows.append((job, *sides, f"{largest:.2f}"))
    head = ("gender: man, trained / drawn", "age: old, trained / drawn", "skin tone: largest difference")
    num_images = figures["odds"]["images_per_occupation"]
    paragraphs = (
        _percentages("named attributes obeyed (default guidance)", figures["obeyed"])
        + "\n"
        + _table(
            ("FD of the unsteered model over the four evaluation prompts", "gender", "age", "skin tone"),
            ("", *(f"{figures['fd_original'][name]:.3f}" for name in measured)),
        ),
        f"Autoencoder on held-out renders: {figures['autoencoder_psnr']:.1f} dB PSNR.",
        f"Shares at guidance 1 beside the training odds, {num_images} images an occupation (largest difference of any "
        f"option; sampling alone gives a standard error of {50 / num_images**0.5:.1f} points at even odds):",
        _table(("occupation", *head), *rows),
    )
    return "\n\n".join(paragraphs)


JUDGES = {"tiny-classifier": _classifier_quality, "tiny-clip": _clip_quality}
