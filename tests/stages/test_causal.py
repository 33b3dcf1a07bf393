"""The causal stage: layers are ranked by what pushing each alone does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation import judging
from icm_pipeline.generation.jobs import evaluation_jobs, probe_jobs
from icm_pipeline.images.table import read_made
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.effects import UNSTEERED, Effects, LayerEffect, arm_of
from icm_pipeline.results.scores import Selection
from icm_pipeline.stages import causal, select
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.models import NUM_STEPS
from tests.helpers.results import as_artifact, scores
from tests.helpers.settings import TINY
from tests.stages.test_steer import LAYERS, vectors_named

Compose = Callable[..., Settings]


class BrightnessLabeler:
    """Says woman the surer, the brighter a picture is."""

    def label(self, images: Sequence[Any], questions: dict[str, Any]) -> dict[str, np.ndarray]:
        means = np.array([np.asarray(image).astype(float).mean() for image in images]) / 255
        return {name: np.stack([means, 1 - means], axis=1) for name in questions}


@pytest.fixture
def parents(tmp_path: Path) -> dict[str, Artifact]:
    folder = tmp_path / "artifacts" / "parents"
    folder.mkdir(parents=True)
    vectors_named("probe").save(folder / "vectors-probe.safetensors")
    kinds = ("self_attention", "cross_attention")
    scores({layer: (kind, 0.9, []) for layer, kind in zip(LAYERS, kinds, strict=True)}).write(folder)
    return {"probe": as_artifact(folder)}


def test_each_layer_has_the_mean_change_of_the_wanted_option_against_its_twins(
    settings_with: Compose, random_pipeline_folder: Path, parents: dict[str, Artifact], models: ModelCache,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = settings_with(
        f"model.path={random_pipeline_folder}", f"model.num_steps={NUM_STEPS}", "model.guidance_scale=3",
        "model.scheduler=null", "method.alpha_unit=relative", "alpha=20", "audit.sizes.full.layer_images=6",
        "method.first_step=1", "labeler.batch_size=1",
    )  # fmt: skip
    monkeypatch.setattr(judging, "load_labeler", lambda config, setting: BrightnessLabeler())
    folder = tmp_path / "artifacts" / "causal" / "made"
    (folder / "shards").mkdir(parents=True)
    causal.run(StageContext(settings, parents, folder, models=models))
    rows, effects = read_made(folder), Effects.read(as_artifact(folder))
    assert list(effects.layers) == LAYERS
    assert [effect.kind for effect in effects.layers.values()] == ["self_attention", "cross_attention"]
    seen = {row.image_id: np.asarray(_picture(row.path)).astype(float).mean() / 255 for row in rows}
    for number, effect in enumerate(effects.layers.values()):
        own = [row for row in rows if arm_of(row.image_id)[0] == f"layer_{number:03d}"]
        change = [
            (seen[row.image_id] - seen[f"{UNSTEERED}-{arm_of(row.image_id)[1]}"]) * (1 if row.option == "woman" else -1)
            for row in own
        ]
        assert sorted(row.option for row in own) == ["man"] * 3 + ["woman"] * 3
        assert effect.mean == pytest.approx(np.mean(change)) != 0
        assert effect.interval_95[0] < effect.mean < effect.interval_95[1]
    used = {row.seed for row in rows}
    assert used.isdisjoint(job.seed for job in (*probe_jobs(settings), *evaluation_jobs(settings)))
    assert {row.prompt for row in rows}.isdisjoint(settings.attribute.evaluation_prompts)


def _picture(path: Path) -> Any:
    from PIL import Image

    return Image.open(path)


def test_images_that_the_labeler_cannot_judge_leave_the_effect_and_too_few_are_refused() -> None:
    effect = causal.effect_of(np.array([0.1, 0.3, np.nan, 0.2]), "block")
    assert effect.mean == pytest.approx(0.2)
    assert effect.interval_95 == pytest.approx((0.2 - 4.3027 * 0.1 / 3**0.5, 0.2 + 4.3027 * 0.1 / 3**0.5), abs=1e-4)
    with pytest.raises(ValueError, match="judge 1 of 2 pushed images"):
        causal.effect_of(np.array([0.1, np.nan]), "block")


def test_the_interval_of_an_effect_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.beta(0.3, 0.5, (400, 48))
    covered = [low <= 0.375 <= high for low, high in (causal.effect_of(row, "block").interval_95 for row in drawn)]
    assert 0.92 <= np.mean(covered) <= 0.98


def test_layers_are_selected_by_their_effect_and_by_accuracy_otherwise(settings_with: Compose, tmp_path: Path) -> None:
    names = ["a.attn1", "b.attn1", "c.attn1", "d.attn2"]
    kinds = dict(zip(names, ["self_attention"] * 3 + ["cross_attention"], strict=True))
    scores({layer: (kinds[layer], 0.9 - place / 10, []) for place, layer in enumerate(names)}).write(tmp_path)
    gained = dict(zip(names, (0.1, 0.4, 0.3, 0.9), strict=True))
    Effects(8, {layer: LayerEffect(kinds[layer], gained[layer], (0, 1)) for layer in names}).write(tmp_path)
    both = dict.fromkeys(("probe", "causal"), as_artifact(tmp_path))

    def chosen(parents: dict[str, Artifact], *words: str) -> Selection:
        folder = tmp_path / words[0]
        folder.mkdir()
        select.run(StageContext(settings_with("layers.k=2", *words), parents, folder))
        return Selection.read(as_artifact(folder))

    found = chosen(both, "layers.rule=causal")
    assert (found.layers, found.rule, found.kind) == (names[1:3], "causal", "self_attention")
    assert [row.score for row in found.ranking] == [0.9, 0.4, 0.3, 0.1]
    assert chosen({"probe": both["probe"]}, "layers.rule=top").layers == names[:2]


def test_layers_ranked_by_effect_leave_the_keys_of_what_they_do_not_change(settings_with: Compose) -> None:
    usual, causal_ = Keys(settings_with()), Keys(settings_with("layers.rule=causal"))
    for stage in ("generate", "label", "probe", "originals"):
        assert usual.key(stage) == causal_.key(stage)
    assert usual.key("select") != causal_.key("select")
    assert set(causal_.parents("select")) == {"probe", "causal"}
    assert Keys(settings_with("layers.rule=causal", "alpha=2")).key("causal") != causal_.key("causal")
    assert Keys(settings_with("layers.rule=causal", "alpha=auto")).parents("causal").keys() == {"probe"}


@pytest.mark.slow
def test_the_most_effective_layers_are_found_and_steered_on_the_embedded_model(
    settings_with: Compose, tmp_path: Path, models: ModelCache
) -> None:
    small = ("audit.sizes.full.layer_images=2", "layers.rule=causal", f"paths.outputs={tmp_path}", "alpha=auto")
    run = Pipeline(settings_with(*TINY, *small[:-1]), [], NoTracker(), models=models)
    run.run("all")
    found, effects = run.find("select"), run.find("causal")
    assert found is not None and effects is not None
    ranked = Effects.read(effects).layers
    own = sorted((row.mean for row in ranked.values() if row.kind == "self_attention"), reverse=True)
    assert [ranked[layer].mean for layer in Selection.read(found).layers] == own[:2]
