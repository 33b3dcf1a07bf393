"""Stages that do not exist, and settings that do not suit the stage that is asked for, are refused."""

from collections.abc import Callable

import pytest

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.help_page import choices_of
from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.table import BESIDE_STAGES, STAGES

Compose = Callable[..., Settings]
SDXL = "model.path=stabilityai/stable-diffusion-xl-base-1.0"
SHIPPED_JUDGES = {
    "labeler.path=embedded:tiny-clip": "labeler=clip",
    "judge.path=embedded:tiny-classifier": "labeler@judge=clip",
    "evaluate.clip.path=embedded:tiny-clip": "evaluate=people",
}


@pytest.mark.parametrize("stage", [*STAGES, *BESIDE_STAGES])
def test_every_stage_and_command_there_is_passes_the_check(settings_with: Compose, stage: str) -> None:
    check_stage(settings_with(f"stage={stage}", "localizers.injection=true"))  # what stage=localize compares


def test_an_unknown_stage_is_refused_with_those_there_are(settings_with: Compose) -> None:
    with pytest.raises(ConfigError, match="stage=prob ") as caught:
        check_stage(settings_with("stage=prob"))
    assert all(name in str(caught.value) for name in (*STAGES, "all", "plan", "pretrain"))


@pytest.mark.parametrize("word", SHIPPED_JUDGES)
def test_an_embedded_judge_is_refused_for_another_model_with_what_to_add(settings_with: Compose, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_stage(settings_with(SDXL, word))
    assert word in str(caught.value)
    assert [added for added in SHIPPED_JUDGES.values() if f" {added} " in str(caught.value)] == [SHIPPED_JUDGES[word]]


@pytest.mark.parametrize(
    "words",
    [
        ["model.path=embedded:tiny"],
        [SDXL, "stage=originals"],
        [SDXL, "stage=extract"],
        [SDXL, "stage=pretrain"],
        [SDXL, "stage=label", "images=/pictures"],
        [
            SDXL,
            "labeler.path=/mine/tiny-clip",
            "judge.path=/mine/tiny-classifier",
            "evaluate.clip.path=/mine/tiny-clip",
        ],
    ],
)
def test_embedded_judges_of_their_own_world_or_by_folder_are_accepted(settings_with: Compose, words: list[str]) -> None:
    check_stage(settings_with(*SHIPPED_JUDGES, *words))


BENCHES = [name for name in choices_of("experiment") if name.endswith("bench")]


@pytest.mark.parametrize("name", BENCHES)
def test_no_shipped_bench_evaluates_by_the_network_that_chooses_strengths(compose_settings: Compose, name: str) -> None:
    settings = compose_settings(f"experiment={name}")
    assert settings.bench.included
    labeler, judge = settings.labeler, settings.judge
    assert (labeler.kind, labeler.model, labeler.path) != (judge.kind, judge.model, judge.path)
    check_stage(settings)


@pytest.mark.parametrize("words", [("experiment=bench",), ()])
def test_a_size_that_no_bench_has_is_refused_by_its_name(compose_settings: Compose, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^bench\.size=huge is not known\. Choose one of: full, quick\.$"):
        compose_settings(*words, "bench.size=huge")


def test_a_bench_by_one_network_alone_is_refused_and_a_run_that_is_none_is_not(compose_settings: Compose) -> None:
    words = ("experiment=sd15_bench", "labeler@judge=clip")
    with pytest.raises(ConfigError, match=r"are one network \(kind=clip model=ViT-L-14-quickgelu path=no-tag\)"):
        check_stage(compose_settings(*words))
    check_stage(compose_settings(*words, "judge.model=ViT-H-14-quickgelu", "judge.path=dfn5b"))
    check_stage(compose_settings(*words, "bench.included=false"))


@pytest.mark.parametrize("stage", ["all", "evaluate"])
def test_a_sweep_goes_with_the_report_only(settings_with: Compose, stage: str) -> None:
    with pytest.raises(ConfigError, match="stage=report"):
        check_stage(settings_with("sweep=multirun/night", f"stage={stage}"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage=all", "images=/x"], "images=/x goes with stage=label and stage=evaluate, not with stage=all"),
        (["stage=audit", "images=/x"], "images=/x goes with stage=label and stage=evaluate, not with stage=audit"),
        (["stage=evaluate", "reference=/x"], r"goes with stage=evaluate images=.*evaluate\.reference"),
        (["stage=label", "images=/x", "reference=/y"], "reference=/y"),
    ],
)
def test_folders_go_with_the_stages_that_judge_them(settings_with: Compose, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_stage(settings_with(*words))


LEAST = "method.assignment=least_change"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["method.look=15"], r"method\.look=15: images can be foretold only after 1, .* 10 of the 20 steps"),
        (["method.look=6", "timesteps.count=5"], r"method\.look=6: .* only after 1, 5, 9 of the 20 steps"),
        (["method.look=auto", "timesteps.start=0.5"], r"method\.look=auto: .* after none of the 20 steps"),
        (["method.look=auto", "method.first_step=10"], r"after none .* from method\.first_step=10 on"),
    ],
)
def test_a_look_that_no_reader_will_serve_is_refused_before_anything_is_made(
    settings_with: Compose, words: list[str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        check_stage(settings_with(LEAST, *words))


@pytest.mark.parametrize("words", [["method.look=5", "timesteps.count=5"], ["method.look=10"], ["method.look=auto"]])
def test_a_look_at_a_recorded_step_of_the_first_half_is_accepted(settings_with: Compose, words: list[str]) -> None:
    check_stage(settings_with(LEAST, *words))


def test_named_layers_without_a_name_are_refused_before_anything_is_made(settings_with: Compose) -> None:
    with pytest.raises(ConfigError, match=r"layers\.names, which names none"):
        check_stage(settings_with("layers.rule=named"))
    check_stage(settings_with("layers.rule=named", "layers.names=[mid_block.attentions.0.transformer_blocks.0.attn1]"))
