"""Whether the hub can be reached: what answers at all does, what cannot be found or waited for does not."""

import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPMessage
from urllib.error import HTTPError, URLError

import pytest
from huggingface_hub import constants

from icm_pipeline.machine import hub
from icm_pipeline.machine.hub import asked_once, hub_answers


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_answers.cache_clear()
    yield
    hub_answers.cache_clear()


@pytest.mark.parametrize(
    ("error", "answers"),
    [
        (HTTPError("https://hub", 403, "Forbidden", HTTPMessage(), None), True),
        (URLError(ssl.SSLCertVerificationError("a proxy's own certificate")), True),
        (URLError(socket.gaierror(-2, "Name or service not known")), False),
        (TimeoutError("timed out"), False),
    ],
)
def test_only_a_hub_that_gives_no_answer_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, error: Exception, answers: bool
) -> None:
    def refusing(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(hub, "urlopen", refusing)
    with asked_once():
        assert answers is not constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_OFFLINE is False


def test_where_the_environment_says_that_there_is_no_hub_none_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "urlopen", pytest.fail)
    assert not hub_answers()
