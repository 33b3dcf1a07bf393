"""What a run is refused for before it begins, by the setting that is to be changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from icm_pipeline.cli.job import run_job
from icm_pipeline.cli.preflight import check_usable
from icm_pipeline.cli.running import HydraJob, RunningSweep
from icm_pipeline.config.schema import Settings
from icm_pipeline.labelers import fetching
from icm_pipeline.metrics import realism
from icm_pipeline.zoo.paths import ZOO

Compose = Callable[..., Settings]
CLIP, CLASSIFIER = str(ZOO / "tiny-clip"), str(ZOO / "tiny-classifier")


@pytest.fixture
def with_judges(settings_with: Compose) -> Compose:
    """Give a function from words to settings whose judges are the shipped ones, where no word says another."""
    paths = (f"labeler.path={CLIP}", f"judge.path={CLASSIFIER}", f"evaluate.clip.path={CLIP}")
    return lambda *words: settings_with(*paths, *words)


def test_an_attribute_that_the_embedded_judge_cannot_tell_is_refused_early(with_judges: Compose) -> None:
    settings = with_judges()
    check_usable(settings, ["generate"])
    settings.attribute.name = "beard"
    with pytest.raises(ValueError, match="beard"):
        check_usable(settings, ["generate"])


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (
            ["labeler.path=/nowhere/clip.safetensors"],
            ValueError,
            r"^labeler\.path=/nowhere/clip\.safetensors does not exist",
        ),
        (["labeler.model='local-dir:/nowhere'"], ValueError, r"^labeler\.model=local-dir:/nowhere does not exist"),
        (
            ["judge.path=/nowhere/clip.safetensors"],
            ValueError,
            r"^judge\.path=/nowhere/clip\.safetensors does not exist",
        ),
        (["evaluate.clip.path=/nowhere"], ValueError, r"^evaluate\.clip\.path=/nowhere does not exist"),
        (
            ["evaluate.clip.model=foo"],
            ValueError,
            r"^evaluate\.clip\.model=foo is no model of .*icm",
        ),
        (
            ["judge.path=openai", "judge.model=ViT-L-41"],
            ValueError,
            r"^judge\.model=ViT-L-41 is no .*ViT-L-14",
        ),
        (["labeler.faces=largest", "labeler.detector=eyes"], ValueError, r"^labeler\.detector=eyes is not known"),
        (["judge.faces=largest", "judge.detector=eyes"], ValueError, r"^judge\.detector=eyes is not known"),
        (["judge.kind=fairface", "judge.model=eight"], ValueError, r"^judge\.model=eight is no FairFace model"),
        (["labeler.faces=largest"], ModuleNotFoundError, r"^labeler\.detector=dlib needs .*icm_pipeline\[faces\]"),
    ],
)
def test_what_a_judge_lacks_is_refused_early_by_its_own_group(
    with_judges: Compose,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr("icm_pipeline.labelers.base.find_spec", lambda name: None)
    settings = with_judges(
        "labeler.kind=clip", f"judge.path={CLIP}", "judge.kind=clip", "judge.model=icm-tiny-clip", *words
    )
    with pytest.raises(error, match=message):
        check_usable(settings, ["generate"])


def test_an_inception_checkpoint_that_is_not_there_is_refused_early(with_judges: Compose) -> None:
    settings = with_judges("evaluate.inception=/nowhere/net.pth")
    with pytest.raises(ValueError, match=r"evaluate\.inception=/nowhere/net\.pth does not exist"):
        check_usable(settings, ["generate"])


def test_a_reference_without_the_library_for_it_is_refused_early(
    with_judges: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realism, "find_spec", lambda name: None)
    settings = with_judges("evaluate.reference=/pictures")
    with pytest.raises(ModuleNotFoundError, match=r"icm_pipeline\[fid\]"):
        check_usable(settings, ["generate"])


def test_a_model_whose_files_are_not_whole_is_refused_before_the_stages_that_need_it(
    with_judges: Compose, random_pipeline_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_pipeline_folder, tmp_path / "model"))
    settings = with_judges(f"model.path={folder}")
    check_usable(settings, ["label", "steer"])
    (folder / "tokenizer" / "merges.txt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"tokenizer/merges\.txt is a Git LFS pointer"):
        check_usable(settings, ["label", "steer"])
    check_usable(settings, ["label", "evaluate"])


def test_an_inception_checkpoint_that_is_not_whole_is_refused_early(with_judges: Compose, tmp_path: Path) -> None:
    (tmp_path / "net.pth").touch()
    with pytest.raises(ValueError, match=r"^evaluate\.inception=.*/net\.pth is an empty file"):
        check_usable(with_judges(f"evaluate.inception={tmp_path / 'net.pth'}"), ["generate"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")
@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("judge.device=cuda", ["steer", "evaluate"]),
        ("probe.device=cuda", ["generate", "probe"]),
        ("evaluate.clip.device=cuda", ["evaluate"]),
        ("labeler.device=cuda", ["tune"]),
        ("labeler.device=cuda", ["causal"]),
        ("labeler.device=cuda", ["audit"]),
        ("probe.device=cuda", ["audit"]),
        ("compute.device=cuda", ["originals"]),
    ],
)
def test_a_device_of_a_stage_to_come_is_refused_by_its_setting(
    with_judges: Compose, word: str, names: list[str]
) -> None:
    settings = with_judges(word)
    with pytest.raises(ValueError, match=f"{word} cannot be used here"):
        check_usable(settings, names)
    check_usable(settings, ["select"])


def test_devices_of_a_shared_stage_are_its_processes_to_check(with_judges: Compose) -> None:
    check_usable(with_judges("compute.device=cuda", "devices=[cuda:0,cuda:1]"), ["generate"])


def test_a_judge_is_refused_before_a_probe_dataset_and_before_a_run_that_evaluates(with_judges: Compose) -> None:
    settings = with_judges("judge.path=/nowhere")
    for names in (["generate"], ["steer", "evaluate"]):
        with pytest.raises(ValueError, match=r"^judge\.path=/nowhere does not exist"):
            check_usable(settings, names)
    check_usable(settings, ["label", "probe", "select", "originals", "steer"])


def test_injection_into_joint_attention_is_refused_early(with_judges: Compose) -> None:
    settings = with_judges("model.path=embedded:tiny_flux", "model.name=tiny_flux")
    with pytest.raises(ValueError, match=r"^stage=inject does not apply to tiny_flux: it attends to image and text"):
        check_usable(settings, ["generate", "inject"])
    check_usable(settings, ["contribution"])
    check_usable(with_judges("model.path=embedded:tiny_sana"), ["inject"])


@pytest.mark.parametrize("stage", ["fit", "tune", "strength", "steer", "explicit"])
def test_a_method_that_the_models_family_has_nothing_for_is_refused_early(with_judges: Compose, stage: str) -> None:
    method = "method.name=h_distribution"
    settings = with_judges("model.path=embedded:tiny_sana", "model.name=tiny_sana", method)
    with pytest.raises(ValueError, match=r"^method=h_distribution does not apply to tiny_sana: "):
        check_usable(settings, ["generate", stage])
    check_usable(settings, ["generate", "probe", "originals"])
    check_usable(with_judges("model.path=embedded:tiny", method), ["generate", stage])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.name=h_distribution", "model.path=embedded:tiny_sana"], "method=h_distribution does not apply"),
        (["localizers.injection=true", "model.path=embedded:tiny_flux"], "stage=inject does not apply"),
    ],
)
def test_a_plan_refuses_for_the_models_family_what_a_run_refuses(
    with_judges: Compose, tmp_path: Path, words: list[str], message: str
) -> None:
    job, sweep = HydraJob(tmp_path, [], [], None, False), RunningSweep()
    with pytest.raises(ValueError, match=f"^{message}"):
        run_job(with_judges("stage=plan", *words), job, sweep)
    assert sweep.plan is None
    run_job(with_judges("stage=plan", f"paths.outputs={tmp_path}", "model.path=embedded:tiny"), job, sweep)
    assert sweep.plan is not None and len(sweep.plan.jobs) == 1


LEAST = "method.assignment=least_change"


@pytest.mark.parametrize(
    ("words", "stage", "asked"),
    [
        ([], "steer", []),
        ([LEAST], "steer", []),
        ([LEAST, "method.tries=3"], "steer", ["labeler"]),
        ([], "causal", ["labeler"]),
        ([], "inject", ["labeler", "judge"]),
        ([], "contribution", []),
        ([], "audit", ["labeler", "judge"]),
        (["audit.claims=[confirmation]"], "audit", ["judge"]),
        (["audit.claims=[separability,implicit]"], "audit", []),
    ],
)
def test_a_stage_is_refused_for_the_judges_that_it_asks_and_no_others(
    with_judges: Compose, words: list[str], stage: str, asked: list[str]
) -> None:
    for judge in ("labeler", "judge"):
        settings = with_judges(f"{judge}.path=/nowhere", *words)
        if judge in asked:
            with pytest.raises(ValueError, match=rf"^{judge}\.path=/nowhere does not exist"):
                check_usable(settings, [stage])
        else:
            check_usable(settings, [stage])


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")
def test_tries_are_judged_where_the_labelers_device_says(with_judges: Compose) -> None:
    words = ("labeler.device=cuda", LEAST)
    check_usable(with_judges(*words), ["steer"])
    with pytest.raises(ValueError, match=r"labeler\.device=cuda cannot be used here"):
        check_usable(with_judges(*words, "method.tries=3"), ["steer"])


@pytest.mark.parametrize("model", ["ViT-B-32", "ViT-B/32", "hf-hub:somebody/some-clip"])
def test_models_of_open_clip_and_of_the_hub_are_known(
    with_judges: Compose, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(fetching, "hub_answers", lambda: True)
    check_usable(with_judges("judge.kind=clip", "judge.path=openai", f"judge.model='{model}'"), ["evaluate"])


@pytest.mark.parametrize("model", ["ViT-B-32", "hf-hub:somebody/some-clip"])
def test_a_clip_that_has_to_be_fetched_is_refused_early_without_a_network(
    with_judges: Compose, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(fetching, "hub_answers", lambda: False)
    settings = with_judges("judge.kind=clip", "judge.path=openai", f"judge.model='{model}'")
    with pytest.raises(ValueError, match=r"^judge\..*not on this disk, and the hub .* judge\.path=<file>"):
        check_usable(settings, ["evaluate"])
