"""The published settings of conf/method/published/: they compose, can be planned, and run on layers of these names."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose
from safetensors import safe_open

from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.families.stable_diffusion import SDXL, STABLE_DIFFUSION
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.help_page import choices_of
from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.registry import check_strength, method_named
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.table import STAGES, stages_of
from icm_pipeline.planning.plan import Plan
from icm_pipeline.stages import label
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.full_size import CASES, narrow
from tests.helpers.running import Run

Compose = Callable[..., Settings]
FOLDER = "published"
CHOICES = choices_of(f"method/{FOLDER}")
QUICK = ("uce", "latent_direction")  # of those that run in seconds
NOT_ON_SDXL = {"difflens"}
VALUES: dict[str, dict[str, Any]] = {
    "casteer": {"pairs": 104}, "equisteer": {"pairs": 126, "vectors": "first", "magnitude": "threshold"},
    "fair_finetuning": {"rank": 50, "images": 24, "updates": 10_000, "steps": 50, "similarity": 8},
    "latent_direction": {"images": 1000, "updates": 5000, "batch": 8, "learning_rate": 0.1},
    "lora": {"rank": 50, "batch": 4, "learning_rate": 5e-5, "updates": 10_000},
    "respodiff": {"updates": 5000, "batch": 2, "refresh": 1, "guidance": 4, "learning_rate": 0.01},
    "sega": {"scale": 4, "threshold": 0.95, "warmup": 5, "momentum": 0.5, "beta": 0.6},
    "slider": {"rank": 4, "updates": 1000, "batch": 2, "refresh": 1, "guidance": 4, "learning_rate": 2e-4},
    "uce": {"images": 10, "rounds": 30, "tolerance": 0.05, "ridge": 0.5, "integrate": True},
    "difflens": {"features": 5120, "active": 1024, "asymmetric": True, "edit": "add"},
    "h_distribution": {"rows": "both"},
}  # fmt: skip
WINDOWS = {"latent_editing": (0, 29), "difflens": (1, 48), "slider": (10, None), "casteer": (0, None)}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_method_has_its_published_settings_and_can_be_planned_without_weights(
    compose_settings: Compose, tmp_path: Path, choice: str
) -> None:
    words = ("experiment=sd15_bench", f"method={FOLDER}/{choice}", f"paths.outputs={tmp_path}")
    settings = compose_settings(*words)
    wanted = VALUES.get(choice, {})
    assert {name: settings.method.params[name] for name in wanted} == wanted
    if choice in WINDOWS:
        assert (settings.method.first_step, settings.method.last_step) == WINDOWS[choice]
    method = method_named(settings.method.name)
    smaller = method.what_is_smaller(settings.method.params, 2, settings.model.num_steps)
    assert smaller == method.scaled_down  # no parameter is
    if settings.searched is not None:
        check_strength(settings)
    check_stage(settings)
    plan = Plan()
    job = plan.add(settings, words)
    assert "steer" in job.makes and job.outline is not None
    made = [item for (stage, _), item in plan.items.items() if stage in STAGES and STAGES[stage].makes]
    assert all(item.work.num_images for item in made)


def test_settings_that_count_options_or_steps_follow_the_attribute_and_the_model(compose_settings: Compose) -> None:
    races = compose_settings("experiment=sd15_bench", "attribute=race_4", f"method={FOLDER}/latent_direction")
    assert races.method.params["updates"] == 4 * 2500
    slider = compose_settings("experiment=sdxl_bench", f"method={FOLDER}/slider_sdxl")
    assert (slider.model.name, slider.method.name, slider.method.first_step) == ("sdxl", "slider", 15)
    assert slider.method.params["guidance"] == 4
    check_stage(slider)


@pytest.mark.parametrize(
    ("model", "family", "missing"), [("sd15", STABLE_DIFFUSION, set()), ("sdxl", SDXL, NOT_ON_SDXL)]
)
def test_the_bench_of_a_large_model_has_every_method_that_exists_there(
    compose_settings: Compose, model: str, family: Any, missing: set[str]
) -> None:
    swept = compose("config", [f"experiment={model}_bench"], return_hydra_config=True).hydra.sweeper.params.method
    words = [word.strip() for word in swept.split(",")]
    names = [word.removeprefix(f"{FOLDER}/").removesuffix("_sdxl") for word in words]
    assert sorted(names) == sorted(set(choices_of("method")) - missing)
    assert all(word.startswith(FOLDER) for word, name in zip(words, names, strict=True) if name in CHOICES)
    for name in names:
        method = method_named({"prompt_ethical": "prompt", "least_change": "icm", "look": "icm"}.get(name, name))
        method.check_family(family, model)


@pytest.mark.parametrize("choice", ["uce", "latent_direction", "sega", "casteer", "difflens"])
def test_a_method_that_an_architecture_has_no_place_for_says_so_in_one_error(choice: str) -> None:
    with pytest.raises(ConfigError, match=f"method={choice} does not apply to flux_dev: .") as caught:
        method_named(choice).check_family(FLUX, "flux_dev")
    assert str(caught.value).count("\n") == 0


class Halves:
    """Says woman of the brighter half of some pictures."""

    def label(self, images: Sequence[Any], questions: dict[str, Any]) -> dict[str, np.ndarray]:
        light = np.array([np.asarray(image).mean() for image in images])
        bright = light > np.median(light)
        return {name: np.stack([bright, ~bright], axis=1).astype(float) for name in questions}


FEW = {
    "pairs": 2, "images": 2, "updates": 1, "rounds": 1, "features": 64, "active": 8, "per_option": 4,
}  # fmt: skip
SMALL = (
    "compute.device=cpu", "compute.dtype=float32", "compute.batch_size=4", "model.num_steps=4",
    "model.steering.first_step=0", "labeler=tiny_clip", "labeler.path=embedded:tiny-clip", "labeler.batch_size=64",
    "probe.min_per_option=2", "layers.k=2",
    "generate.images_per_prompt=2", "evaluate.images_per_prompt=2", "tracker=none",
    "attribute.trial_subjects=[pig,cow]", "attribute.probe_templates=['a {}','the {}']",
    "attribute.probe_subjects=[cat,dog]", "attribute.evaluation_prompts=[a bee,a fly]",
)  # fmt: skip


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a function from an architecture to the folder of its narrow pipeline, saved once."""
    made = tmp_path_factory.mktemp("narrow")

    def saved(name: str) -> Path:
        if not (made / name).exists():
            narrow(name).save_pretrained(made / name)
        return made / name

    return saved


@pytest.fixture
def narrow_run(
    folders: Callable[[str], Path], outputs: Path, models: ModelCache, compose_settings: Compose,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:  # fmt: skip
    """Give a function that runs a choice on an architecture until its images are made, and returns where fits are."""
    monkeypatch.setattr(label, "load_labeler", lambda config, setting="": Halves())

    def ran(model: str, choice: str) -> Path:
        plain = compose_settings(f"model={model}", f"method={FOLDER}/{choice}")
        words = [f"method.params.{name}={value}" for name, value in FEW.items() if name in plain.method.params]
        settings = compose_settings(
            f"model={model}", f"method={FOLDER}/{choice}", *SMALL, *words, f"model.path={folders(model)}",
            f"paths.outputs={outputs}",
        )  # fmt: skip
        run = Pipeline(settings, [], NoTracker(), models=models)
        for stage in stages_of(settings):
            artifact = run.run(stage)
            if stage == "steer":
                break
        assert artifact is not None and len(list((artifact.folder / "images").glob("*.png"))) == 4
        return run.keys.folder("fit")

    return ran


ARCHITECTURES = [(model, choice) for model in ("sd15", "sdxl") for choice in CHOICES if choice not in NOT_ON_SDXL]


@pytest.mark.parametrize(
    ("model", "choice"),
    [
        pytest.param(*case, marks=[] if case[0] == "sd15" and case[1] in QUICK else [pytest.mark.slow])
        for case in [*ARCHITECTURES, ("sd15", "difflens")]
    ],
)
def test_a_published_method_learns_and_steers_in_layers_of_these_names(
    narrow_run: Run, model: str, choice: str
) -> None:
    with torch.device("meta"):
        names = {name for name, _ in CASES[model][1]().named_modules()}
    kept = list(narrow_run(model, choice).glob("*.safetensors"))
    assert kept
    found = set[str]()
    for path in kept:
        with safe_open(path, framework="pt") as file:
            found |= {match[0] for key in file.keys() if (match := re.search(r"(down|up|mid)_block.*", key))}  # noqa: SIM118
    assert all(any(name in names for name in parents_of(key)) for key in found)


def parents_of(key: str) -> list[str]:
    """Return a tensor's name and those of the modules that it may be a part of, up to its last three parts."""
    parts = key.split("/")[0].split(".")
    return [".".join(parts[:end]) for end in range(len(parts), max(len(parts) - 4, 0), -1)]
