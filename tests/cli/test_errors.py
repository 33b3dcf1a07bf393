"""What is said of a mistake on the command line, with what only the methods know."""

import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from icm_pipeline.cli.errors import end_with
from icm_pipeline.config.compose import register_resolvers
from icm_pipeline.config.conf_folder import conf_path, register_schema


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["method=midsteer", "method.params.bta=3"],
            r"^error: method\.params\.bta is no parameter of method=midsteer\. "
            r"Did you mean method\.params\.beta\? It has: .*beta",
        ),
        (["method=icm", "method.params.bta=3"], r"^error: method\.params\.bta is no .*=icm\. It has: none\.$"),
        (["method.params.bta=3"], r"^error: method\.params\.bta is no .*=icm\. It has: none\.$"),
        (["method.params={bta:3}"], r"^error: method=icm has no parameters: leave out method\.params\.$"),
        (["experiment=bench", "method.params.bta=3"], r"^error: there is no method\.params\.bta yet"),
        (["method=midsteer", "paths.outputz=3"], r"^error: there is no paths\.outputz\. Did you mean"),
    ],
)
def test_of_an_unknown_parameter_those_that_the_method_has_are_told(
    monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    register_schema()
    register_resolvers()
    monkeypatch.setattr(sys, "argv", ["icm", *words])
    with initialize_config_dir(str(conf_path()), version_base="1.3"), pytest.raises(Exception) as caught:
        compose("config", overrides=words)
    with pytest.raises(SystemExit, match=said):
        end_with(caught.value)


def test_a_file_whose_defaults_lead_back_to_itself_is_told_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("defaults: ['config@_here_: more']\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"), pytest.raises(RecursionError) as caught:
        compose("config")
    with pytest.raises(SystemExit, match="the `defaults` of a file lead back to itself"):
        end_with(caught.value)
    with pytest.raises(RecursionError):
        end_with(RecursionError("of a model's own"))
