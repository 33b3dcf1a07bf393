"""What sets evaluations apart beside their way of steering: settings of all they were made from, and only those."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from icm_pipeline.results.comparisons import differences
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.fingerprints import make_key
from icm_pipeline.store.manifest import Manifest

PROBING = {"probe.C": 0.01, "probe.shuffle_labels": False, "seed": 0}


def make(outputs: Path, stage: str, parents: dict[str, Artifact], config: dict[str, Any]) -> Artifact:
    keys = {name: parent.key for name, parent in parents.items()}
    manifest = Manifest(stage, make_key([stage, keys, config]), keys, settings={"config": config})
    folder = outputs / "artifacts" / stage / f"tiny-gender-{manifest.key}"
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write(folder)
    return Artifact(folder, manifest)


def evaluate(
    outputs: Path, alpha: float = 7.0, layers: dict[str, Any] | None = None, method: dict[str, Any] | None = None,
    **changed: Any,
) -> Artifact:  # fmt: skip
    """Make a chain up to an evaluation; changed: settings by name, with `__` for the dot."""
    settings = {"generate.images_per_prompt": 14, **PROBING} | {
        name.replace("__", "."): value for name, value in changed.items()
    }
    images = {name: settings[name] for name in settings if name not in PROBING}
    generate = make(outputs, "generate", {}, images)
    probe = make(outputs, "probe", {"generate": generate}, {name: settings[name] for name in PROBING})
    chosen = {"rule": "top", "k": 3, "seed": None, **(layers or {})}
    select = make(outputs, "select", {"probe": probe}, {"layers": chosen})
    steering = {"name": "icm", "first_step": 0, "draw_size": None, **(method or {})}
    steer = make(outputs, "steer", {"probe": probe, "select": select}, {"alpha": alpha, "method": steering})
    return make(outputs, "evaluate", {"steer": steer}, {"evaluate.fd": "probabilities"})


def test_a_control_is_told_from_the_others_and_the_usual_once(tmp_path: Path) -> None:
    runs = [evaluate(tmp_path, 7), evaluate(tmp_path, 3), evaluate(tmp_path, 7, probe__shuffle_labels=True)]
    found = differences(runs)
    assert found.told == ((), (), ("probe.shuffle_labels=true",))
    assert found.usual == ("probe.shuffle_labels=false",)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"probe__C": 1}, "probe.C=1"),
        ({"generate__images_per_prompt": 5}, "generate.images_per_prompt=5"),
        ({"timesteps__count": 5}, None),
        ({"layers": {"seed": 3}}, None),
        ({"layers": {"k": 2}}, None),
    ],
)
def test_what_is_told_is_what_differs_and_nothing_else_tells(
    tmp_path: Path, changed: dict[str, Any], word: str | None
) -> None:
    runs = [evaluate(tmp_path), evaluate(tmp_path, alpha=3), evaluate(tmp_path, **changed)]
    assert differences(runs).told == ((), (), (word,) if word else ())


def test_settings_of_a_method_tell_its_own_runs_apart_and_not_other_methods(tmp_path: Path) -> None:
    slider: dict[str, Any] = {"name": "slider", "params": {"rank": 4}, "strengths": [1.0, 2.0]}
    lora: dict[str, Any] = {"name": "lora", "params": {"rank": 8}, "strengths": [4.0]}
    runs = [evaluate(tmp_path), evaluate(tmp_path, method=slider), evaluate(tmp_path, method=lora)]
    assert differences(runs).told == ((), (), ())
    wider = evaluate(tmp_path, method={**lora, "params": {"rank": 16}})
    found = differences([*runs, runs[2], wider])
    assert found.told == ((), (), (), (), ("method.params={rank:16}",))
    assert found.usual == ("method.params={rank:8}",)


def test_equal_runs_and_none_have_no_differences(tmp_path: Path) -> None:
    assert differences([]).usual == ()
    assert differences([evaluate(tmp_path), evaluate(tmp_path, alpha=3)]).usual == ()


def test_random_layers_are_told_by_their_seed(tmp_path: Path) -> None:
    runs = [evaluate(tmp_path, layers={"rule": "random", "seed": seed}) for seed in (0, 1)]
    assert differences(runs).told == ((), ("layers.seed=1",))


def test_a_long_value_is_cut_and_still_told_from_another(tmp_path: Path) -> None:
    templates = [[f"a photo of a {{}} {number}" for number in range(count)] for count in (8, 9)]
    runs = [evaluate(tmp_path, attribute__probe_templates=value) for value in templates]
    found = differences(runs)
    words = [*found.usual, *(word for told in found.told for word in told)]
    assert len(set(words)) == 2
    assert all(word.startswith("attribute.probe_templates=[a photo of a {} 0,") and len(word) < 70 for word in words)


def test_what_is_gone_tells_nothing(tmp_path: Path) -> None:
    runs = [evaluate(tmp_path), evaluate(tmp_path, probe__C=1)]
    shutil.rmtree(tmp_path / "artifacts" / "probe")
    assert differences(runs).told == ((), ())
