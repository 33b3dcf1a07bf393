"""Serving the page: to this machine alone unless told otherwise, with nothing of a disk and nothing from elsewhere."""

import json
import logging
import socket
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from icm_pipeline.explore.page import VECTORS_ROUTE, Page
from icm_pipeline.explore.setting import Setting, checked, saved_vectors
from icm_pipeline.explore.studio import Studio

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Gradio's routes that take files, give files, fetch from elsewhere or list the routes: the page needs none of them.
CLOSED = (
    "/upload", "/file", "/proxy", "/stream", "/deep_link", "/custom_component", "/process_recording", "/run", "/vibe",
    "/undo", "/openapi.json",
)  # fmt: skip
STYLE = Path(__file__).resolve().parent / "page.css"
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none that is fetched
log = logging.getLogger(__name__)


class WithoutFiles:
    """Answers 404 for what reads or writes files."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", "")).removeprefix("/gradio_api")
        if path.startswith(CLOSED):
            await Response(status_code=404)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def application(studio: Studio, host: str) -> FastAPI:
    """Return the page as an application of a server."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def vectors(setting: str) -> Response:
        return Response(vectors_of(studio, setting), media_type="application/octet-stream")

    app.add_api_route(f"/{VECTORS_ROUTE}", vectors)
    app.add_middleware(WithoutFiles)
    if host in LOOPBACK:  # else a page elsewhere could have a browser ask under a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    return gr.mount_gradio_app(
        app, Page(studio).blocks, "/", server_name=host, theme=gr.themes.Base(**FONTS), css_paths=STYLE,
        footer_links=[], ssr_mode=False, enable_monitoring=False, pwa=False, show_error=True, max_file_size=0,
    )  # fmt: skip


def vectors_of(studio: Studio, asked: str) -> bytes:
    """Return the file of a setting's vectors; raises HTTPException for a setting that cannot be."""
    try:
        told: dict[str, Any] = json.loads(asked)
        material = studio.materials[told.pop("name")]
        setting = checked(Setting(**{**told, "layers": tuple(told["layers"])}), material)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HTTPException(422, f"This is no setting: {error}") from error
    with TemporaryDirectory() as folder:
        path = Path(folder) / VECTORS_ROUTE
        saved_vectors(setting, material).save(path)
        return path.read_bytes()


def serve(studio: Studio, host: str, port: int) -> None:
    """Serve the page until the process is interrupted; raises ValueError for a port that is taken."""
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"explore.host={host} explore.port={port} cannot be listened on ({error}): give another explore.port."
            ) from error
    server = server_of(application(studio, host), host, port)
    shown = f"[{host}]" if ":" in host else host
    log.info("explore: open http://%s:%d in a browser; Ctrl-C ends it", shown, port)
    with suppress(KeyboardInterrupt):
        server.run()


class _Server(uvicorn.Server):  # type: ignore[misc]  # where uvicorn is not installed
    """A server that ends within a second: an open tab's heartbeat would hold it for half a minute, silently."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("explore: stopping")
        for mounted in (getattr(route, "app", None) for route in self.config.app.routes):
            if (stop := getattr(mounted, "stop_event", None)) is not None:
                stop.set()
        await super().shutdown(sockets)


def server_of(app: FastAPI, host: str, port: int) -> uvicorn.Server:
    """Return the server of an application, which does not wait for its open tabs when it ends."""
    return _Server(uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=1))
