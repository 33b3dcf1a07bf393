"""A rival method is one Python file and one YAML: it changes weights, takes gradients, learns, words prompts anew."""

import csv
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from icm_pipeline import methods
from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.methods.registry import check_method, method_named
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.table import stages_of
from icm_pipeline.report.wording import describe
from icm_pipeline.results.steering import Steering
from icm_pipeline.stages import image_sets
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.models import NUM_STEPS
from tests.helpers.settings import NO_WEIGHTS

IMPORTS = """
from contextlib import contextmanager, nullcontext

import torch

from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.methods.base import Fit, Method
"""
Rival = Callable[..., Settings]
MODELS = ModelCache()


@pytest.fixture
def rival(tmp_path: Path, random_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Rival:
    """Give a function that adds a method as its two files and returns settings that choose it, with more words."""
    register_schema()
    code, conf = tmp_path / "code", tmp_path / "conf"
    code.mkdir()
    (conf / "method").mkdir(parents=True)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(code)])

    def add(name: str, source: str, yaml: str = "", words: tuple[str, ...] = ()) -> Settings:
        (code / f"{name}.py").write_text(IMPORTS + dedent(source))
        (conf / "method" / f"{name}.yaml").write_text(f"defaults: [icm, _self_]\nname: {name}\n{yaml}")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, f"icm_pipeline.methods.{name}", raising=False)
        fixed = [
            *NO_WEIGHTS, f"hydra.searchpath=[file://{conf}]", f"method={name}", f"paths.outputs={tmp_path / 'outputs'}",
            f"model.path={random_pipeline_folder}", f"model.num_steps={NUM_STEPS}", "model.guidance_scale=3",
            "model.scheduler=null", "evaluate.images_per_prompt=2", "compute.batch_size=3",
        ]  # fmt: skip
        with initialize_config_dir(str(conf_path()), version_base="1.3"):
            return to_settings(compose("config", overrides=[*fixed, *words]))

    return add


def made(settings: Settings, stage: str = "steer") -> Path:
    artifact = Pipeline(settings, [], NoTracker(), models=MODELS).run(stage)
    assert artifact is not None
    return artifact.folder


def pixels(folder: Path) -> dict[str, bytes]:
    return {path.name: Image.open(path).tobytes() for path in (folder / "images").glob("*.png")}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


WEIGHTS = """
def weight_of(backbone):
    return backbone.denoiser.mid_block.attentions[0].transformer_blocks[0].attn1.to_out[0].weight

@contextmanager
def scaled(backbone, inputs, jobs):
    weight, before = weight_of(backbone), weight_of(backbone).detach().clone()
    try:
        weight.data.mul_(inputs.settings.method.params["factor"])
        yield
    finally:
        weight.data.copy_(before)

METHOD = Method("scaled", scaled, words=lambda steering: ["scaled"], params=("factor",))
"""


def test_a_method_that_changes_weights_steers_and_undoes_it_after_an_exception(
    rival: Rival, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = rival("scaled", WEIGHTS, "params: {factor: 30.0}")
    denoiser = MODELS.load(settings.model, settings.compute).denoiser
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    artifact = Pipeline(settings, [], NoTracker(), models=MODELS).run("steer")
    assert artifact is not None
    assert pixels(artifact.folder) != pixels(made(settings, "originals"))
    assert describe(Steering.read(artifact), ["layers.k=3"]) == "scaled, layers.k=3"
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    changed: list[bool] = []

    def failing(backbone: Backbone, jobs: list[Job]) -> None:
        changed.append(any(not torch.equal(value, before[name]) for name, value in denoiser.state_dict().items()))
        raise BackboneError("in the middle")

    monkeypatch.setattr(image_sets, "denoise", failing)
    with pytest.raises(BackboneError, match="in the middle"):
        made(rival("scaled", WEIGHTS, "params: {factor: 2.0}"))
    assert changed == [True]
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())


GRADIENTS = """
def guided(tokens, site, clock):
    with torch.enable_grad():
        seen = tokens.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(seen.square().sum(), seen)
    return tokens - 0.25 * gradient

METHOD = Method(
    "guided",
    lambda backbone, inputs, jobs: hooked(backbone, backbone.layers[:1], guided, len(jobs)),
    words=lambda steering: ["guided"],
)
"""


def test_a_method_may_compute_gradients_of_what_it_sees(rival: Rival, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, found = rival("guided", GRADIENTS), []
    monkeypatch.setattr(
        image_sets,
        "decode",
        lambda backbone, jobs, latents: found.append((jobs, latents)) or decode(backbone, jobs, latents),
    )
    made(settings)
    backbone, (jobs, latents) = MODELS.load(settings.model, settings.compute), found[0]
    with hooked(backbone, backbone.layers[:1], lambda tokens, site, clock: 0.5 * tokens, len(jobs)):
        expected = denoise(backbone, jobs)
    torch.testing.assert_close(latents, expected)
    assert not torch.allclose(latents, denoise(backbone, jobs), atol=1e-3)
    assert not latents.requires_grad


LEARNS = """
def learn(backbone, inputs, folder):
    from icm_pipeline.generation.jobs import evaluation_jobs

    jobs = evaluation_jobs(inputs.settings)[: inputs.settings.method.params["num_images"]]
    (folder / "learnt.txt").write_text(str(float(denoise(backbone, jobs).mean())))
    return len(jobs)

def applied(backbone, inputs, jobs):
    learnt = float(inputs.artifacts["fit"].path("learnt.txt").read_text())
    assert learnt == learnt
    return nullcontext()

METHOD = Method(
    "learns", applied, words=lambda steering: ["learnt"], params=("num_images",), fit=Fit(learn)
)
"""


def test_what_a_method_learns_is_a_stage_whose_cost_is_kept(rival: Rival) -> None:
    settings = rival("learns", LEARNS, "params: {num_images: 2}")
    assert "fit" in stages_of(settings)
    folder = made(settings, "fit")
    cost = json.loads((folder / "cost.json").read_text())
    assert cost.keys() == {"seconds", "images", "device"}
    assert (cost["images"], cost["seconds"] > 0, bool(cost["device"])) == (2, True, True)
    manifest = json.loads((made(settings) / "manifest.json").read_text())
    assert manifest["parents"] == {"fit": Keys(settings).key("fit")}


def test_what_is_learnt_counts_for_its_key_and_how_it_is_used_does_not(rival: Rival) -> None:
    def keys(*words: str) -> tuple[str, str]:
        found = Keys(rival("learns", LEARNS, "params: {num_images: 2}", words))
        return found.key("fit"), found.key("steer")

    usual = keys()
    stronger, longer = keys("alpha=3"), keys("method.params.num_images=3")
    assert stronger[0] == usual[0] != longer[0]
    assert len({usual[1], stronger[1], longer[1]}) == 3


def test_a_method_that_learns_nothing_has_no_stage_for_it(settings_with: Callable[..., Settings]) -> None:
    for name in ("icm", "none"):
        settings = settings_with(f"method.name={name}")
        assert "fit" not in stages_of(settings)
        assert set(Keys(settings).parents("steer")) == {"probe", "select"}
        with pytest.raises(ConfigError, match=rf"method={name} learns nothing"):
            Keys(settings).key("fit")


WORDED = """
def worded(job, inputs):
    return f"{job.prompt} {list(inputs.settings.attribute.options)[inputs.option_of[job.image_id]]}"

METHOD = Method("worded", lambda backbone, inputs, jobs: nullcontext(), words=lambda s: ["worded"], prompt_of=worded)
"""


def test_another_prompt_is_generated_and_tables_keep_the_jobs_own(
    rival: Rival, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, generated = rival("worded", WORDED), dict[str, str]()

    def noting(backbone: Backbone, jobs: list[Job]) -> torch.Tensor:
        generated.update({job.image_id: job.prompt for job in jobs})
        return denoise(backbone, jobs)

    monkeypatch.setattr(image_sets, "denoise", noting)
    table = rows(made(settings))
    assert {row["prompt"] for row in table} == set(settings.attribute.evaluation_prompts)
    assert generated == {row["id"]: f"{row['prompt']} {row['option']}" for row in table}


WHOLE = """
METHOD = Method(
    "coupled", lambda backbone, inputs, jobs: nullcontext(), words=lambda s: ["coupled"], whole_prompts=True
)
"""


def test_the_images_of_a_prompt_can_be_one_batch(rival: Rival, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, batches = rival("coupled", WHOLE), list[list[Job]]()
    monkeypatch.setattr(image_sets, "denoise", lambda backbone, jobs: batches.append(jobs) or denoise(backbone, jobs))
    folder = made(settings)
    prompts = settings.attribute.evaluation_prompts
    assert [[job.prompt for job in batch] for batch in batches] == [[prompt] * 2 for prompt in prompts]
    assert pixels(folder).keys() == pixels(made(settings, "originals")).keys()


def test_least_change_is_refused_where_all_images_of_a_prompt_are_made_together(rival: Rival) -> None:
    settings = rival("coupled", WHOLE, words=("method.assignment=least_change",))
    with pytest.raises(ConfigError, match=r"method=coupled makes all images of a prompt together"):
        check_method(settings)


def test_a_prompt_that_does_not_fit_into_memory_is_not_cut(rival: Rival, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(backbone: Backbone, jobs: list[Job]) -> Any:
        raise MemoryError(f"{len(jobs)} image(s) at once do not fit into memory.")

    monkeypatch.setattr(image_sets, "denoise", full)
    with pytest.raises(ValueError, match="needs 2 images of a prompt in one batch"):
        made(rival("coupled", WHOLE))


def test_steps_before_the_first_steered_one_are_lent_only_to_methods_that_leave_them_alone(rival: Rival) -> None:
    late = ("method.first_step=2",)
    assert Keys(rival("scaled", WEIGHTS, "params: {factor: 2.0}", late)).prefix_folder() is None
    waits = WEIGHTS.replace("params=", "from_first_step=True, params=").replace('"scaled"', '"waits"')
    assert Keys(rival("waits", waits, "params: {factor: 2.0}", late)).prefix_folder() is not None


CHOOSY = """
METHOD = Method(
    "choosy", lambda backbone, inputs, jobs: nullcontext(), words=lambda s: ["choosy"],
    why_not=lambda family: "" if "joint_attention" in family.sites else f"{family.name} has no joint attention."
)
"""


def test_a_method_that_does_not_apply_to_a_family_says_why(rival: Rival) -> None:
    with pytest.raises(ConfigError, match=r"method=choosy does not apply to .* has no joint attention"):
        made(rival("choosy", CHOOSY))


def test_methods_and_their_parameters_are_those_that_exist(rival: Rival) -> None:
    with pytest.raises(ConfigError, match=r"method\.name=icn is not known. Choose one of: .*icm, .*none, .*scaled"):
        rival("scaled", WEIGHTS)
        method_named("icn")
    check_method(rival("scaled", WEIGHTS, "params: {factor: 2.0}"))
    with pytest.raises(ConfigError, match=r"method.params.fctor is no parameter of method=scaled. It has: factor"):
        check_method(rival("scaled", WEIGHTS, "params: {fctor: 2.0}"))


@pytest.mark.parametrize("name", ["vectors", "os.path", "", "../icm"])
def test_what_is_no_method_is_not_taken_for_one(name: str) -> None:
    with pytest.raises(ConfigError, match="is not known"):
        method_named(name)
