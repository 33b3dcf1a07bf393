"""What is said of a mistake on the command line, with what only the methods know."""

import sys

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
        (["method.params.bta=3"], r"^error: there is no method\.params\.bta yet"),
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
