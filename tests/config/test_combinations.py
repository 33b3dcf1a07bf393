"""Settings that do not go together are refused, and those that do are not."""

from collections.abc import Callable

import pytest

from icm_pipeline.config.choices import RULES
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings

Compose = Callable[..., Settings]


def test_a_growing_batch_needs_a_gpu(settings_with: Compose) -> None:
    with pytest.raises(ConfigError, match=r"compute\.grow_batch=true needs a GPU.*compute\.batch_size"):
        settings_with("compute.grow_batch=true", "compute.device=cpu")


def test_scikit_learns_probes_are_not_solved_on_a_gpu(settings_with: Compose) -> None:
    with pytest.raises(ConfigError, match=r"probe\.solver=scikit_learn .*probe\.device=cuda.*probe\.solver=batched"):
        settings_with("probe.solver=scikit_learn", "probe.device=cuda")
    assert settings_with("probe.solver=scikit_learn", "probe.device=cpu").probe.solver == "scikit_learn"


def test_a_steering_window_that_ends_before_it_begins_is_refused(settings_with: Compose) -> None:
    with pytest.raises(ConfigError, match=r"method\.last_step"):
        settings_with("method.first_step=5", "method.last_step=4")


def test_a_steering_window_of_one_step_is_accepted(settings_with: Compose) -> None:
    assert settings_with("method.first_step=5", "method.last_step=5").method.last_step == 5


@pytest.mark.parametrize("shares", ["[1.0]", "[0.2,0.3,0.5]", "[0.5,0.6]", "[-0.5,1.5]", "[nan,1.0]"])
def test_shares_that_are_no_distribution_over_the_options_are_refused(settings_with: Compose, shares: str) -> None:
    with pytest.raises(ConfigError, match=r"method\.target_shares"):
        settings_with(f"method.target_shares={shares}")


def test_shares_that_sum_to_one_are_accepted(settings_with: Compose) -> None:
    assert settings_with("method.target_shares=[0.0,1.0]").method.target_shares == [0.0, 1.0]


@pytest.mark.parametrize(
    "words", [["shards=2", "force=true"], ["devices=[cpu]", "force=true"], ["devices=[cpu]", "shards=2"]]
)
def test_ways_of_sharing_work_that_exclude_each_other_are_refused(settings_with: Compose, words: list[str]) -> None:
    with pytest.raises(ConfigError, match="shards"):
        settings_with(*words)


def test_a_window_that_ends_beyond_the_last_step_is_refused(settings_with: Compose) -> None:
    with pytest.raises(ConfigError, match=r"method\.last_step=20 lies beyond the last of 20 steps.*last_step=null"):
        settings_with("method.last_step=20")


def test_a_window_that_ends_where_the_models_own_does_suits_fewer_steps(settings_with: Compose) -> None:
    settings = settings_with("model.steering.last_step=16", "method.last_step=16", "model.num_steps=10")
    assert settings.method.last_step == 16


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "named"])
def test_names_of_layers_that_the_rule_does_not_read_are_refused(settings_with: Compose, rule: str) -> None:
    with pytest.raises(ConfigError, match=rf"layers\.names=\[mid\] .* layers\.rule={rule}.*layers=named"):
        settings_with("layers.names=[mid]", f"layers.rule={rule}")


def test_names_of_layers_that_are_read_are_accepted_beside_any_k(settings_with: Compose) -> None:
    assert settings_with("layers.names=[mid]", "layers.rule=named", "layers.k=3").layers.names == ["mid"]
    assert settings_with("layers.rule=all", "layers.k=3").layers.rule == "all"


FOLDER = ("stage=label", "images=/pictures")


def test_a_table_and_rules_for_folders_exclude_each_other(settings_with: Compose) -> None:
    with pytest.raises(ConfigError, match=r"folders\.table=x\.csv and folders\.names exclude each other"):
        settings_with(*FOLDER, "folders.table=x.csv", "folders.names=[{seed}]")


@pytest.mark.parametrize("word", ["folders.table=x.csv", "folders.names=[{seed}]"])
def test_a_table_or_rules_for_folders_are_accepted(settings_with: Compose, word: str) -> None:
    settings_with(*FOLDER, word)


@pytest.mark.parametrize("tracker", ["csv", "tensorboard"])
@pytest.mark.parametrize("mode", ["online", "disabled"])
def test_a_mode_that_a_tracker_of_files_does_not_read_is_refused(
    settings_with: Compose, tracker: str, mode: str
) -> None:
    with pytest.raises(ConfigError, match=rf"tracker\.mode={mode} is read by tracker=wandb only"):
        settings_with(f"tracker.name={tracker}", f"tracker.mode={mode}")


def test_no_tracking_leaves_the_mode_that_an_experiment_set(settings_with: Compose) -> None:
    assert settings_with("tracker.name=none", "tracker.mode=online").tracker.name == "none"


LEAST = "method.assignment=least_change"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.look=5"], r"method\.look=5 is read by method\.assignment=least_change only, not by quota"),
        (["method.tries=2"], r"method\.tries=2 is read by method\.assignment=least_change only"),
        ([LEAST, "method.tries=2", "method.look=5"], r"method\.tries=2 .* not with method\.look"),
        ([LEAST, "method.tries=0"], r"method\.tries=0 must be"),
        ([LEAST, "method.look=20"], r"method\.look=20 leaves none of 20 steps"),
        ([LEAST, "method.look=4", "method.first_step=4"], r"method\.look=4 ends before the first steered step, 4"),
        ([LEAST, "method.look=soon"], r"method\.look=soon must be a whole number at least 1, or auto, or null"),
        ([LEAST, "method.look=0"], r"method\.look=0 must be"),
        ([LEAST, "method.look=2.5"], r"method\.look=2\.5 must be a whole number"),
        ([LEAST, "evaluate.images_per_prompt=1"], r"images_per_prompt=1 images cannot show 2 options"),
    ],
)
def test_a_look_or_tries_that_decide_nothing_are_refused(
    settings_with: Compose, words: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_with(*words)


def test_a_look_within_the_window_is_accepted(settings_with: Compose) -> None:
    assert settings_with(LEAST, "method.look=5", "method.first_step=4").method.look == 5
    assert settings_with(LEAST, "method.look=auto").method.look == "auto"


def test_options_that_get_no_share_need_no_image(settings_with: Compose) -> None:
    words = (LEAST, "evaluate.images_per_prompt=1", "method.target_shares=[0.0,1.0]")
    assert settings_with(*words).evaluate.images_per_prompt == 1
