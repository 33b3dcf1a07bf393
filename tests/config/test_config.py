"""The configuration: what composes, and which values are refused with a message that helps."""

from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch
from hydra.errors import ConfigCompositionException

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.config.choices import JUDGES, SET_FOR_EVERY_CALL
from icm_pipeline.config.compose import register_resolvers
from icm_pipeline.config.conf_folder import conf_path
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.config.values import value_at
from icm_pipeline.generation.jobs import Job, probe_jobs
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.tracking.base import NoTracker

Compose = Callable[..., Settings]


def test_the_default_configuration_passes_its_own_check(compose_settings: Compose) -> None:
    settings = compose_settings()
    assert (settings.stage, settings.model.name, settings.attribute.name) == ("all", "tiny", "gender")


@pytest.mark.parametrize("attribute", ["gender", "age", "skin_tone", "background", "glasses"])
def test_every_shipped_attribute_composes(compose_settings: Compose, attribute: str) -> None:
    assert compose_settings(f"attribute={attribute}").attribute.name == attribute


def test_an_override_reaches_the_settings(compose_settings: Compose) -> None:
    settings = compose_settings("alpha=2.5", "layers.k=3", "method.target_shares=[0.25,0.75]")
    assert (settings.alpha, settings.layers.k, settings.method.target_shares) == (2.5, 3, [0.25, 0.75])


@pytest.mark.parametrize("word", ["alhpa=2", "layers.kk=3", "model.steps=9"])
def test_a_misspelt_name_fails_at_composition(compose_settings: Compose, word: str) -> None:
    with pytest.raises(ConfigCompositionException):
        compose_settings(word)


@pytest.mark.parametrize("word", ["layers.k=two", "seed=a", "probe.group_by_prompt=perhaps", "model.num_steps=1.5"])
def test_a_value_of_the_wrong_type_fails_at_composition(compose_settings: Compose, word: str) -> None:
    with pytest.raises(ConfigCompositionException):
        compose_settings(word)


def test_a_repeated_evaluation_prompt_is_refused(settings_with: Compose) -> None:
    with pytest.raises(ConfigError, match=r"evaluation_prompts has 'a face' more than once"):
        settings_with("attribute.evaluation_prompts=[a face, a portrait, a face]")


@pytest.mark.parametrize(
    ("experiment", "model", "k"),
    [("sdxl_gender", "sdxl", 10), ("sana_gender", "sana", 6), ("flux_gender", "flux_dev", 6)],
)
def test_the_runs_on_large_models_have_judges_and_prompts_of_photographs(
    compose_settings: Compose, experiment: str, model: str, k: int
) -> None:
    settings = compose_settings(f"experiment={experiment}")
    assert (settings.model.name, settings.layers.k) == (model, k)
    assert {settings.labeler.kind, settings.judge.kind} == {"clip"}
    assert settings.evaluate.clip.model == "ViT-L-14-quickgelu"
    assert len(probe_jobs(settings)) == 500
    assert not any("cartoon" in template for template in settings.attribute.probe_templates)


def test_the_published_run_has_the_papers_layers_draws_and_judge(compose_settings: Compose) -> None:
    settings = compose_settings("experiment=sd15_gender_published")
    assert [name.split(".transformer")[0] for name in settings.layers.names] == [
        "mid_block.attentions.0", "up_blocks.1.attentions.0", "up_blocks.1.attentions.1",
    ]  # fmt: skip
    assert (settings.layers.rule, settings.method.assignment, settings.judge.kind) == ("named", "batch", "fairface")
    assert (settings.alpha, settings.method.alpha_unit, settings.method.first_step) == (15, "activation", 15)
    assert len(probe_jobs(settings)) == 500


def test_experiments_can_be_taken_together(compose_settings: Compose) -> None:
    settings = compose_settings("experiment=[sd15_gender,all_layers]")
    assert (settings.model.name, settings.layers.rule) == ("sd15", "all")


def test_patterns_of_sites_are_given_on_the_command_line(compose_settings: Compose) -> None:
    assert compose_settings().model.sites == {}
    assert compose_settings("+model.sites.gated_self_attention=.*attn1").model.sites == {
        "gated_self_attention": ".*attn1"
    }


def test_a_pattern_of_sites_that_is_none_is_refused_by_name(compose_settings: Compose) -> None:
    with pytest.raises(ConfigError, match=r"model\.sites\.self_attention=\( is no regular expression"):
        compose_settings('+model.sites.self_attention="("')


@pytest.mark.parametrize(
    ("name", "instead"),
    [("prompt", "attribute.evaluation_prompts"), ("height", "model.height"), ("generator", "seed"), ("latents", "seed"),
     ("num_images_per_prompt", "generate.images_per_prompt"), ("return_dict", "Leave it out"),
     ("max_area", "model.height and model.width"), ("distilled_guidance_scale", "model.guidance_scale")],
)  # fmt: skip
def test_what_is_set_for_every_call_is_refused_with_its_own_setting(
    settings_with: Compose, name: str, instead: str
) -> None:
    with pytest.raises(ConfigError, match=rf"model\.call\.{name} cannot be set.*{instead}"):
        settings_with(f"model.call.{name}=1")


def test_other_arguments_of_the_call_are_accepted(settings_with: Compose) -> None:
    assert settings_with("model.call.eta=1").model.call == {"eta": 1}


def test_nothing_that_sampling_sets_can_be_set_in_the_configuration(
    backbone: Backbone, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def call(self: object, **arguments: object) -> tuple[torch.Tensor]:
        given.update(arguments)
        return (torch.zeros(len(jobs), 1),)

    monkeypatch.setattr(type(backbone.pipe), "__call__", call)
    denoise(backbone, jobs)
    of_some = {"distilled_guidance_scale", "max_area"}  # which HunyuanImage and Kontext are given
    assert given.keys() == SET_FOR_EVERY_CALL.keys() - {"num_images_per_prompt"} - of_some


@pytest.mark.parametrize("mapping", ["steps", "batch_sizes", "learning_rates"])
def test_a_part_that_is_not_trained_or_that_lacks_a_number_is_refused(compose_settings: Compose, mapping: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"there is no pretrain\.{mapping}\.clipp.*Did you mean pretrain\.{mapping}\.clip"
    ):
        compose_settings(f"+pretrain.{mapping}.clipp=3")
    with pytest.raises(ConfigError, match=rf"pretrain\.{mapping} has no number for clip"):
        compose_settings(f"~pretrain.{mapping}.clip")


def test_an_attribute_with_one_option_is_refused(compose_settings: Compose) -> None:
    with pytest.raises(ConfigError, match="at least two") as caught:
        compose_settings("~attribute.options.man")
    assert "'gender'" in str(caught.value)
    assert "woman" in str(caught.value)


@pytest.mark.parametrize("texts", ["[]", "['']", "[a photo of a man,'  ']"])
def test_an_option_without_a_label_text_is_refused_by_name(settings_with: Compose, texts: str) -> None:
    with pytest.raises(ConfigError, match="'man'"):
        settings_with(f"attribute.options.man={texts}")


@pytest.mark.parametrize("name", ["probe_templates", "probe_subjects", "evaluation_prompts"])
@pytest.mark.parametrize("texts", ["[]", "['']", "['a {} face','  ']"])
def test_empty_prompts_are_refused_by_name(settings_with: Compose, name: str, texts: str) -> None:
    with pytest.raises(ConfigError, match=f"attribute.{name}"):
        settings_with(f"attribute.{name}={texts}")


@pytest.mark.parametrize(("texts", "told"), [("['']", "an empty prompt"), ("[true]", "true|True")])
def test_subjects_of_trials_may_be_left_out_and_are_texts(settings_with: Compose, texts: str, told: str) -> None:
    assert settings_with("attribute.trial_subjects=[]").attribute.trial_subjects == []
    with pytest.raises(ConfigError, match=rf"attribute\.trial_subjects contains ({told})"):
        settings_with(f"attribute.trial_subjects={texts}")


def test_a_template_without_a_place_for_the_subject_is_refused(settings_with: Compose) -> None:
    with pytest.raises(ConfigError, match="a photo of nobody"):
        settings_with("attribute.probe_templates=['a photo of a {}','a photo of nobody']")


def test_a_value_left_open_is_refused_as_a_configuration_error(compose_settings: Compose) -> None:
    with pytest.raises(ConfigError, match="does not hold together"):
        compose_settings("model.path=???")


def test_a_group_is_read_as_plain_data(settings_with: Compose) -> None:
    settings = settings_with()
    assert value_at(settings, "layers") == {
        "kind": "self_attention", "rule": "top", "k": 4, "names": [], "seed": 0,
    }  # fmt: skip
    assert value_at(settings, "model.steering.alpha") == settings.model.steering.alpha
    drift = value_at(settings, "evaluate.drift")
    assert drift["age"] == value_at(settings, "evaluate.drift.age") == asdict(settings.evaluate.drift["age"])
    drift["age"]["options"].clear()
    assert settings.evaluate.drift["age"].options


def test_every_labeler_composes_and_is_one_that_can_be_loaded(compose_settings: Compose) -> None:
    names = [path.stem for path in (conf_path() / "labeler").glob("*.yaml") if path.stem != "base"]
    pairs = zip(names[::2], [*names[1::2], names[0]], strict=False)
    found = [compose_settings(f"labeler={one}", f"labeler@judge={other}") for one, other in pairs]
    assert {judge.kind for settings in found for judge in (settings.labeler, settings.judge)} == set(JUDGES)


@pytest.mark.parametrize("word", ["faces=all", "detector=dlib_cnn", "path=another-tag"])
def test_what_changes_a_label_changes_its_key(settings_with: Compose, word: str) -> None:
    for name, stage in (("labeler", "label"), ("judge", "evaluate")):
        before, after = (Pipeline(s, [], NoTracker()) for s in (settings_with(), settings_with(f"{name}.{word}")))
        assert before.keys.key(stage) != after.keys.key(stage)
        assert before.keys.key("originals") == after.keys.key("originals")


SWEEPS = {
    "alpha_sweep": ("alpha", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3.75, 7.5, 11.25, 15.0, 18.75, 22.5]),
    "k_sweep": ("layers.k", [1, 2, 4, 6], [1, 2, 3, 4]),
    "timestep_window": ("method.first_step", [0, 5, 10, 15], [0, 12, 25, 38]),
}


@pytest.mark.parametrize("model", [pytest.param("tiny", marks=pytest.mark.slow), "sd15"])
@pytest.mark.parametrize("experiment", SWEEPS)
def test_a_shipped_sweep_is_in_terms_of_the_model(compose_settings: Compose, experiment: str, model: str) -> None:
    swept, for_tiny, for_sd15 = SWEEPS[experiment]
    given = {"tiny": ["model.steering.alpha=4.0", "model.steering.k=4"], "sd15": []}[model]
    words = [f"model={model}", *given]
    found = [compose_settings(*words, *job) for job in jobs_of(experiment, *words)]
    values = list(dict.fromkeys(value_at(settings, swept) for settings in found))
    assert values == (for_tiny if model == "tiny" else for_sd15)


def test_the_windows_of_the_sweep_are_quarters_and_what_is_left_to_the_end(compose_settings: Compose) -> None:
    methods = [compose_settings(*words).method for words in jobs_of("timestep_window")]
    assert [(method.first_step, method.last_step) for method in methods] == [
        (0, None), (5, None), (10, None), (15, None), (0, 4), (5, 9), (10, 14),
    ]  # fmt: skip


def test_the_ablation_of_layers_and_the_architectures_compose(compose_settings: Compose) -> None:
    layers = [compose_settings(*words).layers for words in jobs_of("layers_ablation")]
    assert [(row.kind.split("_")[0], row.rule) for row in layers] == [
        ("self", "top"), ("cross", "top"), ("feed", "top"), ("self", "random"), ("self", "worst"), ("self", "all"),
    ]  # fmt: skip
    names = [compose_settings(*words).model.name for words in jobs_of("architectures")]
    assert names == ["tiny", "tiny_sdxl", "tiny_sana", "tiny_flux"]


def jobs_of(experiment: str, *words: str) -> list[list[str]]:
    """Return the words of every job that a sweep makes."""
    from itertools import product

    from hydra import compose
    from hydra.core.override_parser.overrides_parser import OverridesParser

    register_resolvers()
    hydra = compose("config", overrides=[f"experiment={experiment}", *words], return_hydra_config=True).hydra
    assert str(hydra.mode) == "RunMode.MULTIRUN"
    swept = [OverridesParser.create().parse_override(f"{name}={value}") for name, value in hydra.sweeper.params.items()]
    choices = [[f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()] for each in swept]
    return [list(job) for job in product(*choices)]


def test_the_command_that_a_wandb_agent_makes_of_the_shipped_sweep_composes(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    plan = yaml.safe_load((conf_path().parent / "docs" / "wandb_sweep.yaml").read_text())
    drawn = {name: {"value": each.get("values", [each.get("min")])[0]} for name, each in plan["parameters"].items()}
    blanks: dict[str, list[str]] = {"env": ["/usr/bin/env"], **create_sweep_command_args({"args": drawn})}
    words = [word for each in create_sweep_command(plan["command"]) for word in blanks.get(each[2:-1], [each])]
    assert words[:4] == ["/usr/bin/env", "python", "-m", "icm_pipeline"]
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    settings = compose_settings(*words[4:])
    assert (settings.tracker.mode, settings.tracker.group) == ("online", "s1")
    assert (settings.alpha, settings.layers.k, settings.method.first_step) == (1.0, 1, 0)
    assert plan["metric"]["name"] == "fd/mean"
