"""From settings to loaded models and jobs, for the stages that need them."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

from icm_pipeline.artifacts import listing
from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.loading import Placement
from icm_pipeline.backbones.paths import local_folder
from icm_pipeline.backbones.registry import load_backbone
from icm_pipeline.config import LabelerConfig, ModelConfig, Settings
from icm_pipeline.image_sets import IMAGES, SAMPLES, Batch, make_image_set
from icm_pipeline.labelers import Labeler, load_labeler
from icm_pipeline.parallel import set_torch_threads
from icm_pipeline.plots.grid import draw_sheet
from icm_pipeline.prefixes import PrefixStore
from icm_pipeline.prompts import Job, fill_templates, make_jobs
from icm_pipeline.selection import LayerScore, select_layers
from icm_pipeline.stage_table import StageContext

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Loaded:
    """A model in memory: as which configuration it was loaded, and from which files."""

    config: ModelConfig
    files: str
    backbone: Backbone


_last: list[_Loaded] = []  # at most one: the model that was loaded last, for the stages and jobs that come after


def load_model(model: ModelConfig) -> Backbone:
    """Load a model as its configuration says, or return the one loaded last if that is the same."""
    check_device(model.device, "model.device")
    set_torch_threads(model.num_threads)
    config = replace(model, batch_size=1, grow_batch=False, num_threads=None)
    folder = local_folder(model.path)
    files = listing(folder) if folder is not None and folder.is_dir() else ""
    if any((known.config, known.files) == (config, files) for known in _last):
        return _last[0].backbone
    _last.clear()  # before the next is loaded: both may not fit
    backbone = load_backbone(
        name=model.name,
        path=model.path,
        num_steps=model.num_steps,
        guidance_scale=model.guidance_scale,
        placement=Placement(
            model.device,
            model.dtype,
            model.offload,
            model.vae_slicing,
            model.vae_tiling,
            model.channels_last,
            model.attention_kernel,
            model.compile,
        ),
        sites=model.sites,
        scheduler=model.scheduler,
        revision=model.revision,
        variant=model.variant,
        height=model.height,
        width=model.width,
        options=model.call,
        decode_batch_size=model.decode_batch_size,
    )
    _last.append(_Loaded(config, files, backbone))
    log.info("%s loaded from %s on %s: %d sites", model.name, model.path, model.device, len(backbone.sites))
    return backbone


def loading(model: ModelConfig) -> Callable[[], Backbone]:
    """Return a function that loads a model when it is first called: where every image is there, none is loaded."""
    return cache(lambda: load_model(model))


def make_images(
    context: StageContext,
    title: str,
    jobs: list[Job],
    make_batch: Callable[[list[Job]], Batch],
    options: Sequence[str] = (),
) -> bool:
    """Make a stage's images, or its share of them, see `make_image_set`; with all of them comes a contact sheet."""
    settings = context.settings
    complete = make_image_set(
        context.folder,
        jobs,
        make_batch,
        settings.model.batch_size,
        settings.generate.shard_size,
        title,
        options,
        context.share,
        grow=settings.model.grow_batch,
    )
    if complete and (context.folder / IMAGES).exists():
        draw_sheet(context.folder / SAMPLES, context.folder / IMAGES)
    return complete


def labeler_of(config: LabelerConfig, setting: str) -> Labeler:
    """Load a labeler; `setting` is the name of its group, for messages."""
    check_device(config.device, f"{setting}.device")
    with naming_its_group(setting):
        return load_labeler(
            config.kind, config.model, config.path, config.batch_size, config.device,
            config.faces, config.detector, config.groups,
        )  # fmt: skip


@contextmanager
def naming_its_group(setting: str) -> Iterator[None]:
    """Let what a judge is refused with name the group it is configured in: `judge.path` instead of `labeler.path`."""
    try:
        yield
    except (ValueError, ModuleNotFoundError) as error:
        if setting == "labeler":
            raise
        message = str(error).replace("labeler=", f"labeler@{setting}=").replace("labeler.", f"{setting}.")
        raise type(error)(message) from error


def probe_jobs(settings: Settings) -> list[Job]:
    """Return the jobs of the probe dataset."""
    prompts = fill_templates(settings.attribute.probe_templates, settings.attribute.probe_subjects)
    return make_jobs(prompts, settings.generate.images_per_prompt, settings.seed, "probe")


def evaluation_jobs(settings: Settings) -> list[Job]:
    """Return the jobs of the evaluation set: the same for the originals and for every way of steering."""
    return make_jobs(
        settings.attribute.evaluation_prompts, settings.evaluate.images_per_prompt, settings.seed, "evaluation"
    )


def prefix_store(context: StageContext) -> PrefixStore | None:
    """Return where the steps before the first steered one are kept for all runs with these images, if they are."""
    return PrefixStore(context.prefixes) if context.prefixes else None


def recorded_steps(settings: Settings) -> list[int]:
    """Return the denoising steps whose activations are recorded."""
    num_steps, count = settings.model.num_steps, settings.timesteps.count
    first = math.floor(round(settings.timesteps.start * num_steps, 9))  # 0.58 * 50 is a little less than 29
    steps = range(first, num_steps)
    if count is None or count >= len(steps):
        return list(steps)
    return [steps[slot * len(steps) // count] for slot in range(count)]


def check_device(device: str, setting: str) -> None:
    """Raise ValueError if tensors cannot live on a device."""
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{setting}={device} cannot be used here ({reason}). Set {setting}=cpu.") from error


def refuse_layers(settings: Settings, backbone: Backbone) -> None:
    """Raise ValueError, before hours of generating, for layers that do not exist."""
    layers = settings.layers
    unscored = [LayerScore(site.layer, site.kind, 0.0) for site in backbone.sites]
    select_layers(unscored, layers.kind, layers.rule, layers.k, layers.names, layers.seed)
