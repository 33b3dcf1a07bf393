"""The server gives the page and a setting's vectors, no file of the disk, and nothing to a page of another name."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from icm_pipeline.explore.material import Material
from icm_pipeline.explore.setting import first_setting
from icm_pipeline.explore.studio import Studio
from icm_pipeline.methods.vectors import load_vectors

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def client(shipped: list[Material]) -> Iterator[Any]:
    pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    from icm_pipeline.explore.serving import application

    with TestClient(application(Studio(shipped), "127.0.0.1"), base_url="http://127.0.0.1:7860") as client:
        yield client


def test_the_page_names_no_other_host(client: Any) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert not [host for host in ("googleapis", "gstatic", "cdnjs", "huggingface.co") if host in page.text]


@pytest.mark.parametrize(
    "path",
    ["file=/etc/passwd", "file=pyproject.toml", "file/etc/passwd", "upload", "proxy=http://127.0.0.1/", "runs",
     "run-history/buckets", "deep_link", "../etc/passwd", "openapi.json"],
)  # fmt: skip
@pytest.mark.parametrize("before", ["/", "/gradio_api/"])
def test_no_file_and_no_other_address_can_be_read_through_it(client: Any, before: str, path: str) -> None:
    assert client.get(f"{before}{path}").status_code == 404
    assert client.post(f"{before}{path}").status_code in (404, 405)


def test_a_port_in_use_is_told_with_its_setting() -> None:
    pytest.importorskip("gradio")
    from icm_pipeline.explore.serving import serve

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ValueError, match=r"cannot be listened on \(.*\): give another explore\.port\."):
            serve(Studio([]), "127.0.0.1", taken.getsockname()[1])


def test_it_ends_at_once_though_a_tab_is_open(shipped: list[Material]) -> None:
    pytest.importorskip("gradio")
    from icm_pipeline.explore.serving import application, server_of

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = server_of(application(Studio(shipped), "127.0.0.1"), "127.0.0.1", port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    with httpx.stream("GET", f"http://127.0.0.1:{port}/gradio_api/heartbeat/tab", timeout=60) as tab:
        assert tab.status_code == 200
        server.should_exit = True
        thread.join(timeout=40)
        assert not thread.is_alive()


def test_a_page_of_another_name_gets_nothing(client: Any) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_the_vectors_of_a_setting_can_be_had_and_those_of_no_setting_not(
    client: Any, gender: Material, tmp_path: Path
) -> None:
    setting = replace(first_setting(gender), alpha=3.0)
    told = {"name": "gender", **asdict(setting)}
    answer = client.get("/vectors.safetensors", params={"setting": json.dumps(told)})
    (tmp_path / "v.safetensors").write_bytes(answer.content)
    vectors = load_vectors(tmp_path / "v.safetensors")
    assert vectors.layers == list(setting.layers)
    assert vectors.strength is not None
    assert vectors.strength.alpha == 3.0
    for wrong in ({**told, "alpha": 1e9}, {**told, "name": "x"}, {**told, "more": 1}, [], {**told, "layers": None}):
        assert client.get("/vectors.safetensors", params={"setting": json.dumps(wrong)}).status_code == 422
