"""The whole pipeline on the embedded model with few images, as a user runs it: once through, again, killed, damaged."""

import csv
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.readers import load_readers
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.command_line import artifact_hashes, run, started, words_of
from tests.helpers.settings import TINY

Make = Callable[..., None]
STAGES = ("generate", "label", "probe", "select", "originals", "steer", "evaluate")


def artifact(outputs: Path, stage: str) -> Path:
    folders = [path.parent for path in outputs.glob(f"artifacts/{stage}/*/manifest.json")]
    assert len(folders) == 1
    return folders[0]


@pytest.fixture
def make(models: ModelCache) -> Make:
    """Give a function that runs stages under the settings of a command's words, in this process."""

    def made(outputs: Path, stages: Iterable[str], *words: str) -> None:
        register_schema()
        with initialize_config_dir(str(conf_path()), version_base="1.3"):
            settings = to_settings(compose("config", overrides=words_of(outputs, *words)))
        for stage in stages:
            Pipeline(settings, [], NoTracker(), models=models).run(stage)

    return made


def test_a_run_leaves_one_whole_artifact_per_stage_and_nothing_half_made(finished: Path) -> None:
    stages = {path.name for path in (finished / "artifacts").iterdir()}
    assert stages == {"generate", "label", "probe", "select", "originals", "steer", "evaluate", "report"}
    leftovers = [path for path in finished.rglob("*") if path.name.endswith((".partial", ".tmp", ".old"))]
    assert leftovers == []


def test_metrics_hold_what_the_method_is_judged_by(finished: Path) -> None:
    metrics = json.loads((artifact(finished, "evaluate") / "metrics.json").read_text())
    with (artifact(finished, "evaluate") / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    prompts = {f"a face of a {job}" for job in ("doctor", "firefighter", "nurse", "receptionist")}
    assert {row["prompt"] for row in rows} == set(metrics["fd"]["by_prompt"]) == prompts
    for when, name in (("original", "fd_original"), ("steered", "fd")):
        for prompt in prompts:  # || mean probabilities - (1/2, 1/2) ||, by hand
            man = [float(row[f"{when}_man"]) for row in rows if row["prompt"] == prompt]
            expected = 2**0.5 * abs(sum(man) / len(man) - 0.5)
            assert metrics[name]["by_prompt"][prompt] == pytest.approx(expected, abs=1e-5)
        by_prompt = metrics[name]["by_prompt"].values()
        assert metrics[name]["mean"] == pytest.approx(sum(by_prompt) / 4)
    assert metrics["clip_i"] == pytest.approx(sum(float(row["clip_i"]) for row in rows) / len(rows), abs=1e-5)
    obeyed = [float(row[f"steered_{row['steered_to']}"]) > 0.5 for row in rows]
    assert metrics["obeyed"] == pytest.approx(sum(obeyed) / len(obeyed))
    assert set(metrics["kept"]) == set(metrics["drift"]) == {"age", "skin_tone", "background", "glasses"}
    for name in ("clip_t", "ssim"):
        assert metrics[name] == pytest.approx(sum(float(row[name]) for row in rows) / len(rows), abs=1e-5)
    change = metrics["fd"]["mean"] - metrics["fd_original"]["mean"]
    assert metrics["fd_change"]["mean"] == pytest.approx(change)
    assert metrics["fd_change"]["interval_95"][0] <= change <= metrics["fd_change"]["interval_95"][1]
    assert metrics["agreement"]["judges"] == ["attribute-classifier", "icm-tiny-clip"]
    for side in ("original", "steered"):
        assert sum(map(sum, metrics["agreement"][side]["table"])) == len(rows)
    assert metrics["reference"] is None


def test_the_report_shows_its_figures_and_the_figures_show_something(finished: Path) -> None:
    folder = artifact(finished, "report")
    page = (folder / "report.md").read_text()
    metrics = json.loads((artifact(finished, "evaluate") / "metrics.json").read_text())
    assert f"**{metrics['fd']['mean']:.3f}**" in page
    for name in ("twins", "discrepancy", "heat_map", "ranking"):
        assert f"({name}.png)" in page
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 400
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20
    with Image.open(artifact(finished, "originals") / "samples.png") as sheet:
        assert sheet.size == (8 * 128, 2 * 128)  # 16 images


def test_the_report_has_a_page_to_share_that_is_small_and_tells_how_to_repeat_it(finished: Path) -> None:
    path = artifact(finished, "report") / "report.html"
    assert path.stat().st_size < 8e6
    page = path.read_text("utf-8")
    assert page.count('<li data-id="') == 16
    assert f"python -m icm_pipeline stage=report paths.outputs={finished}" in page
    assert page.count("data:image/webp") == 32 + 3  # every picture once, and the heat map's three panels


def sharing(finished: Path, outputs: Path, *stages: str) -> Path:
    """Return a new outputs folder that already has some stages of the finished run."""
    for stage in stages:
        shutil.copytree(finished / "artifacts" / stage, outputs / "artifacts" / stage, copy_function=os.link)
    return outputs


@dataclass(frozen=True)
class Compared:
    """Two other ways of steering the finished run's originals, one after the other in one outputs folder."""

    outputs: Path
    weaker: str
    """What the first, with a smaller alpha and fewer layers, said."""
    evaluation: dict[str, Any]
    """The first's metrics."""
    seen: tuple[set[str], set[str]]
    """What the judges had looked at before the second, which steers nothing, and after it."""


@pytest.fixture(scope="module")
def compared(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    folder = tmp_path_factory.mktemp("compared") / "outputs"
    outputs, looked = sharing(finished, folder, "generate", "label", "probe", "originals"), []
    evaluated = outputs / "artifacts" / "evaluate"
    said = []
    for words in (("alpha=0.25", "layers.k=2"), ("method=none",)):
        result = run(outputs, *words)
        assert result.returncode == 0, result.stdout + result.stderr
        said.append(result.stdout + result.stderr)
        looked.append({path.name for path in (evaluated / ".judged").iterdir()})
        if len(said) == 1:
            metrics = json.loads((artifact(outputs, "evaluate") / "metrics.json").read_text())
    return Compared(outputs, said[0], metrics, (looked[0], looked[1]))


def test_originals_are_looked_at_once_for_all_ways_of_steering(compared: Compared) -> None:
    before, after = compared.seen
    assert after == before  # the images of no steering are the originals: nothing is new


def test_another_alpha_and_k_reuse_images_activations_and_probes(compared: Compared) -> None:
    assert compared.weaker.count("done before") == 4
    assert compared.evaluation["steering"]["alpha"] == 0.25


def test_the_report_compares_other_ways_of_steering_the_same_originals(compared: Compared) -> None:
    reports = compared.outputs.glob("artifacts/report/*/report.md")
    newest = max(reports, key=lambda path: path.stat().st_mtime)
    page = newest.read_text()
    assert "| best 2 self-attention" in page
    assert "| no steering" in page
    assert (newest.parent / "comparison.png").exists()


def test_fid_against_another_run_is_zero_for_its_own_images(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity", reason="the extra `fid` is not installed")
    stages = ("generate", "label", "probe", "select", "originals", "steer")
    outputs = sharing(finished, tmp_path / "outputs", *stages)
    result = run(
        outputs, "stage=evaluate", "evaluate.fd=labels", f"evaluate.reference={artifact(finished, 'originals')}"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    metrics = json.loads((artifact(outputs, "evaluate") / "metrics.json").read_text())
    found = metrics["reference"]
    assert (found["num_images"], found["features"]) == (16, "icm-tiny-clip")
    assert found["fid_original"] == pytest.approx(0, abs=1e-6)
    assert found["fid"] > 1e-3
    shares = metrics["shares"]["steered"]
    for prompt, value in metrics["fd"]["by_prompt"].items():  # of hard labels
        assert value == pytest.approx(2**0.5 * abs(shares[prompt]["man"] - 0.5))
    assert "FID" in result.stdout


def test_a_second_run_finds_everything_done(finished: Path, tmp_path: Path) -> None:
    outputs = shutil.copytree(finished, tmp_path / "outputs")
    result = run(outputs)
    assert result.returncode == 0
    assert result.stderr.count("done before") + result.stdout.count("done before") == 8
    assert artifact_hashes(outputs) == artifact_hashes(finished)


def test_the_opposite_alpha_steers_the_other_way(finished: Path, tmp_path: Path, make: Make) -> None:
    outputs = sharing(finished, tmp_path / "outputs", "generate", "label", "probe", "select", "originals")
    make(outputs, ("steer", "evaluate"), "alpha=-3")
    away = json.loads((artifact(outputs, "evaluate") / "metrics.json").read_text())
    towards = json.loads((artifact(finished, "evaluate") / "metrics.json").read_text())
    assert towards["obeyed"] > away["obeyed"] + 0.3


def test_alpha_zero_gives_the_originals_back(finished: Path, tmp_path: Path, make: Make) -> None:
    outputs = sharing(finished, tmp_path / "outputs", "generate", "label", "probe", "select", "originals")
    make(outputs, ["steer"], "alpha=0")
    images = sorted((artifact(outputs, "steer") / "images").glob("*.png"))
    twins = artifact(finished, "originals") / "images"
    assert len(images) == 16
    assert all(image.read_bytes() == (twins / image.name).read_bytes() for image in images)


def test_a_look_is_foretold_from_what_a_run_recorded(finished: Path, tmp_path: Path, make: Make) -> None:
    outputs = sharing(finished, tmp_path / "outputs", "generate", "label")
    make(outputs, ["foretell"], "method.assignment=least_change", "method.look=auto")
    readers = load_readers(artifact(outputs, "foretell") / "readers.safetensors")
    assert [reader.step for reader in readers] == [0, 1, 2]  # of 6


def test_the_steps_before_the_first_steered_one_are_computed_once(finished: Path, tmp_path: Path, make: Make) -> None:
    """The second way of steering begins with what the first kept, and ends where it would have without."""
    outputs = sharing(finished, tmp_path / "outputs", "generate", "label", "probe", "select", "originals")
    for alpha in (2, 0):
        make(outputs, ["steer"], "method.first_step=3", f"alpha={alpha}")
    (prefixes,) = (outputs / "artifacts" / "originals" / ".prefixes").iterdir()
    originals = artifact(outputs, "originals") / "images"
    assert {path.stem for path in prefixes.iterdir()} == {path.stem for path in originals.iterdir()}
    steered = [path.parent for path in outputs.glob("artifacts/steer/*/steering.json")]
    (unmoved,) = (path for path in steered if json.loads((path / "steering.json").read_text())["alpha"] == 0)
    for path in originals.iterdir():
        assert (unmoved / "images" / path.name).read_bytes() == path.read_bytes()


def test_extract_on_its_own_gives_the_numbers_that_generate_recorded(
    tiny_run: Path, tmp_path: Path, settings_with: Callable[..., Settings], models: ModelCache
) -> None:
    settings = settings_with(*TINY, f"paths.outputs={tmp_path}")
    Pipeline(settings, [], NoTracker(), models=models).run("extract")
    recorded, extracted = artifact_hashes(tiny_run), artifact_hashes(tmp_path)
    pooled = {name.split("/")[-1]: digest for name, digest in extracted.items() if "/activations/" in name}
    assert len(pooled) == 36
    assert pooled == {name.split("/")[-1]: digest for name, digest in recorded.items() if "/activations/" in name}


@pytest.mark.parametrize(
    ("stage", "shards", "there"),
    [
        ("steer", 1, ["generate", "label", "probe", "select", "originals"]),
        pytest.param("generate", 2, [], marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    finished: Path, tmp_path: Path, make: Make, stage: str, shards: int, there: list[str]
) -> None:
    for attempt in range(5):
        outputs = sharing(finished, tmp_path / str(attempt) / "outputs", *there)
        outputs.parent.mkdir(exist_ok=True)
        if is_killed(outputs, stage, shards):  # else it was faster than this test looks: again
            break
    else:
        pytest.fail(f"{stage} could not be killed in time")
    assert not list(outputs.glob("artifacts/steer/*/manifest.json"))
    make(outputs, STAGES)
    assert not_figures(outputs) == not_figures(finished)


def is_killed(outputs: Path, stage: str, shards: int) -> bool:
    """Start a run and kill it as soon as a stage has so many shards; return whether it was still at work there."""
    process = started(words_of(outputs), outputs.parent, Path(os.devnull), Path(os.devnull))
    while process.is_alive():
        if len(list(outputs.glob(f"artifacts/{stage}/*.partial/shards/*.json"))) >= shards:
            process.kill()
            process.join()
            break
        time.sleep(0.005)
    return not list(outputs.glob(f"artifacts/{stage}/*/manifest.json"))


def not_figures(outputs: Path) -> dict[str, str]:
    return {name: digest for name, digest in artifact_hashes(outputs).items() if "/report/" not in name}


def test_a_stage_without_its_input_names_the_command_that_makes_it(tmp_path: Path) -> None:
    result = run(tmp_path / "outputs", "stage=probe", "attribute=age")
    assert result.returncode == 1
    assert "python -m icm_pipeline stage=generate" in result.stderr
    assert "attribute=age" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("damage", ["truncated", "edited"])
def test_a_damaged_parent_is_refused_by_name(finished: Path, tmp_path: Path, damage: str) -> None:
    outputs = shutil.copytree(finished, tmp_path / "outputs")
    labels = artifact(outputs, "label") / "labels.csv"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-10] if damage == "truncated" else whole.replace(b"man", b"nam", 1))
    result = run(outputs, "stage=probe", "probe.C=0.5")
    assert result.returncode == 1
    assert "labels.csv" in result.stderr
    assert "is damaged" in result.stderr
    assert len(list(outputs.glob("artifacts/probe/*/manifest.json"))) == 1


def test_a_sweep_ends_with_a_report_on_the_jobs_that_did_and_it_can_be_made_again(
    finished: Path, tmp_path: Path
) -> None:
    outputs, sweep = shutil.copytree(finished, tmp_path / "outputs"), tmp_path / "sweep"
    result = run(outputs, "stage=evaluate", "layers.k=6,99", f"hydra.sweep.dir={sweep}", "--multirun")
    assert result.returncode == 1
    assert "1 job of" in " ".join(result.stdout.split())
    assert "left out: job 1 failed" in " ".join(result.stdout.split())
    page = (sweep / "report" / "sweep.md").read_bytes()
    again = run(outputs, "stage=report", f"sweep={sweep}")
    assert again.returncode == 0, again.stderr
    assert str(sweep / "report" / "front.png") in again.stdout
    assert (sweep / "report" / "sweep.md").read_bytes() == page
