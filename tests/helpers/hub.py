"""A stand-in of the hub's HTTP interface, as far as publishing and fetching a file need it: repositories in memory."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import constants

from icm_pipeline.machine.hub import hub_answers

TOKEN, READ_ONLY = "hf_of_me", "hf_that_reads"
LARGE = (".safetensors", ".png")  # kept in large file storage, as on the hub


@dataclass
class StandIn:
    """What the hub holds, and what was asked of it."""

    endpoint: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256."""
    commits: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn

    def log_message(self, *about: Any) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        parts = urlsplit(self.path).path.strip("/").split("/", 4)
        if parts[:2] == ["api", "models"]:
            is_there = "/".join(parts[2:4]) in self.hub.repositories
            names = [{"rfilename": name} for name in self.hub.repositories.get("/".join(parts[2:4]), ())]
            about = {"id": "/".join(parts[2:4]), "siblings": names}
            return self._json(200, about) if is_there else self._answer(401, code="RepoNotFound")
        if len(parts) < 5 or parts[2] != "resolve":
            return self._answer(200)
        repo_id, revision, name = "/".join(parts[:2]), parts[3], parts[4]
        files = self.hub.repositories.get(repo_id)
        if files is None or (repo_id in self.hub.private and self._token() != TOKEN):
            return self._answer(401, code="RepoNotFound")
        if revision not in ("main", "a" * 40):
            return self._answer(404, code="RevisionNotFound")
        if name not in files:
            return self._answer(404, code="EntryNotFound")
        return self._answer(200, files[name], etag=hashlib.sha256(files[name]).hexdigest())

    def do_POST(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path.strip("/")
        if path == "api/validate-yaml":
            return self._json(200, {"errors": [], "warnings": []})
        if self._token() != TOKEN:
            known = self._token() == READ_ONLY
            return self._answer(
                403 if known else 401, message="" if known else "Invalid credentials in Authorization header"
            )
        if path == "api/repos/create":
            return self._create(json.loads(body))
        if path.endswith("info/lfs/objects/batch"):
            return self._json(200, {"objects": [self._stored_or_wanted(one) for one in json.loads(body)["objects"]]})
        _, _, user, name, action, _ = path.split("/")
        files = self.hub.repositories[f"{user}/{name}"]
        if action == "preupload":
            modes = [
                (one["path"], "lfs" if one["path"].endswith(LARGE) else "regular") for one in json.loads(body)["files"]
            ]
            return self._json(200, {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes]})
        for line in map(json.loads, body.splitlines()):
            self._commit(files, line["key"], line["value"])
        return self._json(
            200, {"commitUrl": f"{self.hub.endpoint}/{user}/{name}/commit/{'a' * 40}", "commitOid": "a" * 40}
        )

    def do_PUT(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.stored[self.path.rpartition("/")[2]] = content
        self._answer(200)

    def _create(self, wanted: dict[str, Any]) -> None:
        repo_id = f"{wanted['organization']}/{wanted['name']}"
        status = 409 if repo_id in self.hub.repositories else 200
        self.hub.repositories.setdefault(repo_id, {})
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.hub.private.add(repo_id)
        self._json(status, {"url": f"{self.hub.endpoint}/{repo_id}"})

    def _stored_or_wanted(self, one: dict[str, Any]) -> dict[str, Any]:
        if one["oid"] in self.hub.stored:
            return one
        return {**one, "actions": {"upload": {"href": f"{self.hub.endpoint}/large/{one['oid']}"}}}

    def _commit(self, files: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
        if key == "header":
            self.hub.commits.append(value["summary"])
        elif key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "deletedFile":
            del files[value["path"]]
        elif key == "lfsFile":
            files[value["path"]] = self.hub.stored[value["oid"]]

    def _token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def _json(self, status: int, content: Any) -> None:
        self._answer(status, json.dumps(content).encode())

    def _answer(self, status: int, content: bytes = b"", code: str = "", message: str = "", etag: str = "") -> None:
        self.send_response(status)
        headers = {"X-Error-Code": code, "X-Error-Message": message, "ETag": f'"{etag}"' if etag else ""}
        for name, value in {**headers, "X-Repo-Commit": "a" * 40 if etag else ""}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Serve an empty hub on a free port of this machine."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def own_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Be on a hub of this machine, whose token is in the environment; nobody's own token or cache is looked for."""
    with stand_in() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub_answers.cache_clear()
        yield hub
        hub_answers.cache_clear()
