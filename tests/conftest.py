"""What several tests share: a Stable Diffusion with random weights, a few jobs, and composed settings."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of the processes that tests start; a core each for `pytest -n`

import gc
import string
from collections.abc import Callable, Iterator
from copy import deepcopy
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from tests.helpers.jobs import JOBS
from tests.helpers.settings import NO_WEIGHTS, PINNED


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def seldom_collected() -> None:
    """Look for garbage less often: among all that tests import, it took a fifth of composing a configuration."""
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(autouse=True, scope="session")
def parsed_once() -> Iterator[None]:
    """Keep what the package's YAML files hold: to parse them again is a quarter of composing."""
    from hydra._internal.core_plugins.file_config_source import FileConfigSource

    load, kept = FileConfigSource.load_config, dict[tuple[str, str], Any]()

    def load_once(self: Any, config_path: str) -> Any:
        if not Path(self.path).is_relative_to(conf_path()):
            return load(self, config_path)
        if (key := (self.path, config_path)) not in kept:
            kept[key] = load(self, config_path)
        return deepcopy(kept[key])

    FileConfigSource.load_config = load_once
    yield
    FileConfigSource.load_config = load


@pytest.fixture(autouse=True, scope="session")
def no_process_left() -> Iterator[None]:
    """End the process that commands are forked from."""
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def random_pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a Stable Diffusion of a few hundred thousand random parameters that draws 16 px pictures."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = string.ascii_lowercase
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=16,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
            norm_num_groups=8,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
        )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("random-pipeline")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def backbone(random_pipeline_folder: Path) -> Backbone:
    """Load the random pipeline with guidance on."""
    from tests.helpers.models import load

    return load(random_pipeline_folder)


@pytest.fixture(scope="module")
def pipe() -> Any:
    """Build a Stable Diffusion with random weights as its user holds it, for the tests of a file."""
    from tests.helpers.pipelines import built

    return built("sd")


@pytest.fixture(scope="session")
def models() -> ModelCache:
    """Give a cache for tests that may share their loaded model, as the jobs of a sweep do."""
    return ModelCache()


@pytest.fixture
def jobs() -> list[Job]:
    return list(JOBS)


@pytest.fixture
def compose_settings() -> Iterator[Callable[..., Settings]]:
    """Give a function from command-line words to checked settings, composed by Hydra (a quarter of a second each)."""
    from hydra import compose, initialize_config_dir

    register_schema()

    def composed(*words: str) -> Settings:
        return to_settings(compose("config", overrides=[*NO_WEIGHTS, *words]))

    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        yield composed


@pytest.fixture(scope="session")
def settings_with() -> Callable[..., Settings]:
    """Give a function from `name=value` words to checked settings: the defaults with pinned values, composed once."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    register_schema()
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        default = compose("config", overrides=[*NO_WEIGHTS, *PINNED])
    OmegaConf.set_struct(default, False)  # mappings take new names, as from `+name=value`; the schema stays closed

    def changed(*words: str) -> Settings:
        return to_settings(OmegaConf.merge(default, OmegaConf.from_dotlist(list(words))))

    return changed
