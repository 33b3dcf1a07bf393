"""`stage=pretrain`: train each embedded part from nothing, resumable, and put it where the package finds it.

Order: portraits, autoencoder, classifier, clip, diffusion, quality. A part that is done is not trained again; delete
its checkpoint in the pretrain folder to start over.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from icm_pipeline.config.choices import SIBLINGS
from icm_pipeline.config.models import ModelConfig
from icm_pipeline.config.schema import LabelerConfig, PretrainConfig, Settings
from icm_pipeline.labelers.base import Labeler
from icm_pipeline.machine.devices import check_device
from icm_pipeline.pretrain.cards import QUALITY, TRAINING, History, read_training, write_cards, write_training
from icm_pipeline.pretrain.dataset import Portraits, load_portraits, render_portraits
from icm_pipeline.pretrain.training import TrainingPlan, TrainingRun, has_quick_bf16
from icm_pipeline.store.files import replace_folder, spread_mode, write_json
from icm_pipeline.store.fingerprints import fingerprint
from icm_pipeline.tracking.base import Tracker
from icm_pipeline.zoo.paths import ZOO

log = logging.getLogger(__name__)

MODEL_FOLDER = "tiny"
CLASSIFIER_FOLDER = "tiny-classifier"
CLIP_FOLDER = "tiny-clip"


@dataclass(frozen=True)
class PretrainPlan:
    """What `stage=pretrain` was asked for."""

    settings: Settings
    tracker: Tracker

    @property
    def config(self) -> PretrainConfig:
        return self.settings.pretrain

    @property
    def model(self) -> ModelConfig:
        """The embedded model or a sibling of it, which the parts `diffusion` and `quality` are about."""
        return self.settings.model

    @property
    def folder(self) -> Path:
        return Path(self.config.folder)

    @property
    def zoo(self) -> Path:
        """Where weights go."""
        return ZOO if self.config.install else self.folder / "zoo"

    @property
    def start_from(self) -> Path | None:
        """The zoo whose CLIP and diffusion weights are trained further, and whose autoencoders are kept."""
        return ZOO if self.config.from_shipped else None

    @property
    def attributes(self) -> dict[str, dict[str, list[str]]]:
        return {other.name: other.options for other in self.settings.evaluate.drift.values()}

    def training(self, part: str) -> TrainingPlan:
        return TrainingPlan(
            num_steps=self.config.steps[part],
            batch_size=self.config.batch_sizes[part],
            learning_rate=self.config.learning_rates[part],
            seed=self.settings.seed,
            device=self.config.device,
            ema_decay={"diffusion": 0.9995, **dict.fromkeys(SIBLINGS, 0.998)}.get(part, 0.995),
            checkpoint_every=250,
            bf16=has_quick_bf16(self.config.device),
            compile=self.config.compile and part in ("diffusion", *SIBLINGS),
        )


def portraits(plan: PretrainPlan, split: str) -> Portraits:
    """Render what is missing of a split and return it whole."""
    count = plan.config.num_portraits if split == "train" else plan.config.num_held_out
    paths = []
    for path in render_portraits(plan.folder / "portraits", split, count, plan.settings.seed):
        log.info("portraits: %s", path.name)
        paths.append(path)
    return load_portraits(paths)


def make_portraits(plan: PretrainPlan) -> None:
    portraits(plan, "train")
    portraits(plan, "held_out")


def make_autoencoder(plan: PretrainPlan) -> None:
    from icm_pipeline.pretrain.autoencoder import train_autoencoder

    if plan.start_from:
        log.info("autoencoder: the shipped one is kept")
        return
    pictures = portraits(plan, "train")
    model = train_autoencoder(pictures, plan.training("autoencoder"), _training_run(plan, pictures))
    with _new_folder(plan, plan.folder / "autoencoder", "autoencoder") as folder:
        model.save_pretrained(folder)


def make_classifier(plan: PretrainPlan) -> None:
    from icm_pipeline.pretrain.classifier import train_classifier

    pictures = portraits(plan, "train")
    model = train_classifier(pictures, plan.training("classifier"), _training_run(plan, pictures))
    with _new_folder(plan, plan.zoo / CLASSIFIER_FOLDER, "classifier") as folder:
        model.save(folder)


def make_clip(plan: PretrainPlan) -> None:
    from icm_pipeline.pretrain.clip import MODEL_NAME, train_clip, write_config

    start = plan.start_from / CLIP_FOLDER if plan.start_from else None
    pictures = portraits(plan, "train")
    model = train_clip(pictures, plan.training("clip"), _training_run(plan, pictures, start), start)
    earlier = read_training(start) if start else {}
    with _new_folder(plan, plan.zoo / CLIP_FOLDER, "clip", earlier=earlier) as folder:
        write_config(folder)
        half = {key: value.half().contiguous() for key, value in model.state_dict().items()}
        save_file(half, folder / f"{MODEL_NAME}.safetensors")


def make_diffusion(plan: PretrainPlan) -> None:
    from diffusers import AutoencoderKL

    from icm_pipeline.pretrain.diffusion import train_diffusion

    if plan.model.name != MODEL_FOLDER:
        _make_sibling(plan, plan.model.name)
        return
    start = plan.start_from / MODEL_FOLDER if plan.start_from else None
    source = start / "vae" if start else plan.folder / "autoencoder"
    earlier = read_training(start or source)  # before this training takes the folder's place
    autoencoder = AutoencoderKL.from_pretrained(source, dtype=torch.float32).eval().to(plan.config.device)
    pictures = portraits(plan, "train")
    run = _training_run(plan, pictures, start or source)
    pipe = train_diffusion(pictures, autoencoder, plan.training("diffusion"), run, start)
    _save_pipeline(plan, pipe, MODEL_FOLDER, "diffusion", earlier=earlier)


def _make_sibling(plan: PretrainPlan, name: str) -> None:
    """Distil the embedded model, taken from the same zoo or from the package, into the architecture of a sibling."""
    from diffusers import AutoencoderDC, StableDiffusionPipeline

    from icm_pipeline.pretrain.autoencoder import train_deep_compression
    from icm_pipeline.pretrain.diffusion import cached_latents
    from icm_pipeline.pretrain.siblings import train_sibling

    source = next(zoo / MODEL_FOLDER for zoo in (plan.zoo, ZOO) if (zoo / MODEL_FOLDER).is_dir())
    teacher = StableDiffusionPipeline.from_pretrained(source, dtype=torch.float32).to(plan.config.device)
    start = plan.start_from / name if plan.start_from else None
    own = read_training(start) if start else {}
    earlier = read_training(source) | {part: own[part] for part in (name, "deep_compression") if part in own}
    pictures = portraits(plan, "train")
    run = _training_run(plan, pictures, source, start)
    autoencoder, made = None, [name]
    if name == "tiny_sana" and start:
        autoencoder = AutoencoderDC.from_pretrained(start / "vae", dtype=torch.float32).eval()
    elif name == "tiny_sana":
        latents = cached_latents(pictures, teacher.vae, plan.folder)
        autoencoder = train_deep_compression(pictures, latents, plan.training("deep_compression"), run)
        made.append("deep_compression")
    pipe = train_sibling(name, pictures, teacher, plan.training(name), run, autoencoder, start)
    _save_pipeline(plan, pipe, name, *made, earlier=earlier)


def measure_quality(plan: PretrainPlan) -> None:
    from icm_pipeline.backbones.registry import load_backbone
    from icm_pipeline.pretrain.clip import MODEL_NAME
    from icm_pipeline.pretrain.quality import Judges, flat_figures, measure_judges, measure_model, write_figures

    zoo = next(zoo for zoo in (plan.zoo, ZOO) if (zoo / CLASSIFIER_FOLDER).is_dir()).resolve()
    classifier = _judge("tiny", "", zoo / CLASSIFIER_FOLDER, plan.config.device)
    clip = _judge("clip", MODEL_NAME, zoo / CLIP_FOLDER, plan.config.device)
    judges = Judges(classifier, clip, plan.attributes, plan.settings.attribute.evaluation_prompts)
    model = replace(plan.model, path=str((plan.zoo / plan.model.name).resolve()))
    compute = replace(plan.settings.compute, device=plan.config.device)
    held_out = portraits(plan, "held_out")
    guided, unguided = load_backbone(model, compute), load_backbone(replace(model, guidance_scale=1.0), compute)
    figures = measure_model(guided, unguided, judges, held_out, plan.config.num_quality_images, plan.settings.seed)
    if plan.model.name == MODEL_FOLDER:
        figures |= measure_judges(judges, held_out)
    write_figures(figures, plan.zoo / plan.model.name / QUALITY)
    write_cards(plan.zoo)
    plan.tracker.metrics(flat_figures(figures))


def _judge(kind: str, model: str, path: Path, device: str) -> Labeler:
    from icm_pipeline.labelers.registry import load_labeler

    config = LabelerConfig(
        kind=kind, model=model, path=str(path), batch_size=64, device=device, faces="none", detector="dlib", groups={},
        preprocess=None,
    )  # fmt: skip
    return load_labeler(config)


PARTS: dict[str, Callable[[PretrainPlan], None]] = {
    "portraits": make_portraits, "autoencoder": make_autoencoder, "classifier": make_classifier, "clip": make_clip,
    "diffusion": make_diffusion, "quality": measure_quality,
}  # fmt: skip


def pretrain(plan: PretrainPlan) -> None:
    """Make the part asked for, or with `all` every part in order; a sibling has no judges or text encoder of its own.

    Raises ValueError for a model that is not one of ours, and for label texts that measuring the quality will lack.
    """
    from icm_pipeline.pretrain.quality import check_label_texts

    check_device(plan.config.device, "pretrain.device")
    ours = (MODEL_FOLDER, *SIBLINGS)
    if plan.model.name not in ours:
        raise ValueError(
            f"stage=pretrain trains the embedded models, not {plan.model.name}. Set model to one of: {', '.join(ours)}."
        )
    whole = tuple(PARTS) if plan.model.name == MODEL_FOLDER else ("portraits", "diffusion", "quality")
    names = whole if plan.config.part == "all" else (plan.config.part,)
    if "quality" in names:
        check_label_texts(plan.attributes)
    for name in names:
        PARTS[name](plan)


def _training_run(plan: PretrainPlan, pictures: Portraits, *sources: Path | None) -> TrainingRun:
    """Return where a part trains; its data are the pictures and the weights it learns from or begins with."""
    data = pictures.digest + "".join(f" from {fingerprint(source)}" for source in sources if source)
    return TrainingRun(plan.folder, data, plan.tracker.metrics)


@contextmanager
def _new_folder(plan: PretrainPlan, folder: Path, *parts: str, earlier: History | None = None) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` when it is whole, so that weights are never mixed.

    How the parts in it were trained is written beside them, after the `earlier` history of their weights.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    history = earlier or {}
    for part in parts:
        checkpoint = plan.folder / f"{part}.checkpoint.pt"
        history = write_training(partial, checkpoint, part, plan.training(part), plan.config.num_portraits, history)
    spread_mode(partial / TRAINING)
    replace_folder(partial, folder)


def _save_pipeline(plan: PretrainPlan, pipe: Any, name: str, *parts: str, earlier: History) -> None:
    """Save a pipeline in half precision, its configurations without that and without where this machine keeps weights.

    transformers would load a text encoder in the precision its file was saved in, diffusers the rest in float32.
    """
    with _new_folder(plan, plan.zoo / name, *parts, earlier=earlier) as folder:
        pipe.to(torch.float16).save_pretrained(folder, safe_serialization=True)
        for path in folder.glob("*/config.json"):
            config = json.loads(path.read_text("utf-8"))
            config.pop("_name_or_path", None)
            write_json(path, config | {"dtype": "float32"} if "dtype" in config else config)
