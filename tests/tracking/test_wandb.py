"""Tracking: what is logged lands in W&B's offline run or in files, and a tracker nobody used leaves nothing."""

import csv
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from icm_pipeline.tracking import wandb as tracking
from icm_pipeline.tracking.base import NoTracker, Tracker
from icm_pipeline.tracking.files import CsvTracker, TensorBoardTracker
from icm_pipeline.tracking.wandb import WandbTracker


def make(folder: Path, mode: str = "offline") -> WandbTracker:
    return WandbTracker(
        mode=mode,
        project="icm_pipeline",
        entity=None,
        group="tiny-gender",
        job_type="evaluate",
        name="evaluate-tiny-gender",
        tags=["tiny", "gender"],
        folder=folder,
        config={"alpha": 1.5, "layers": {"k": 4}},
    )


def media(folder: Path, name: str) -> Path:
    (path,) = folder.glob(f"wandb/offline-run-*/files/media/{name}")
    return path


def read_back(folder: Path) -> Any:
    """Return what `wandb leet inspect` reads from the only offline run in a folder."""
    (run,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--summary", "--json", run]
    done = subprocess.run(  # a separate program, so nothing of the test can leak into what it reads
        [str(part) for part in command], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Log one of everything, close, and return the folder."""
    folder = tmp_path_factory.mktemp("tracker")
    log_one_of_everything(make(folder / "run"), folder)
    return folder / "run"


def log_one_of_everything(tracker: Tracker, folder: Path) -> None:
    picture = folder / "grid.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    tracker.metrics({"fd/mean": 0.125})
    tracker.table("probe/scores", ["layer", "accuracy"], [["mid.attn1", 0.875], ["up.attn1", 0.5]])
    tracker.image("report/grid", picture)
    page = folder / "page.html"
    page.write_text("<!doctype html><title>page</title>")
    tracker.page("report/page", page)
    tracker.artifact("steer", "0123456789abcdef", {"probe": "fedcba9876543210"}, folder)
    tracker.close()


@pytest.fixture(scope="module")
def inspected(run_folder: Path) -> Any:
    return read_back(run_folder)


def test_scalars_land_in_the_run(inspected: Any) -> None:
    assert inspected["summary"]["fd/mean"] == 0.125


def test_a_page_lands_in_the_run_as_it_is(inspected: Any, run_folder: Path) -> None:
    assert inspected["summary"]["report/page"]["_type"] == "html-file"
    assert media(run_folder, "html/report/*.html").read_text() == "<!doctype html><title>page</title>"


def test_a_table_lands_in_the_run_with_its_rows(inspected: Any, run_folder: Path) -> None:
    assert (inspected["summary"]["probe/scores"]["nrows"], inspected["summary"]["probe/scores"]["ncols"]) == (2, 2)
    table = json.loads(media(run_folder, "table/probe/*.json").read_text())
    assert table == {"columns": ["layer", "accuracy"], "data": [["mid.attn1", 0.875], ["up.attn1", 0.5]]}


def test_a_picture_lands_in_the_run_as_it_was(inspected: Any, run_folder: Path) -> None:
    assert inspected["summary"]["report/grid"]["_type"] == "image-file"
    with Image.open(media(run_folder, "images/report/*.png")) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_the_run_carries_its_name_tags_and_configuration(inspected: Any) -> None:
    assert (inspected["name"], inspected["project"]) == ("evaluate-tiny-gender", "icm_pipeline")
    assert inspected["tags"] == ["tiny", "gender"]
    assert inspected["config"] == {"alpha": 1.5, "layers": {"k": 4}}


def test_an_artifact_lands_in_the_run_with_its_parents(inspected: Any, run_folder: Path) -> None:
    assert inspected["summary"]["lineage/steer"] == "0123456789abcdef"
    (run,) = run_folder.glob("wandb/offline-run-*/*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(run)]
    records = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.splitlines()
    (logged,) = [line for line in records if "steer-0123456789abcdef" in line]
    assert "fedcba9876543210" in logged
    assert run_folder.parent.as_uri() in logged


def test_what_wandb_refuses_is_told_once_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = make(tmp_path / "run")
    tracker.metrics({"fd/mean": 0.5})
    tracker._run.finish()  # as when the service behind the run is gone
    tracker.metrics({"fd/mean": 0.25})
    tracker.image("report/grid", tmp_path / "missing.png")
    tracker.close()
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "the job goes on" in message


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Give a function that points W&B's client, which remembers its server for the process, to an address."""
    import wandb

    def point(address: str) -> None:
        wandb.teardown()
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)

    yield point
    wandb.teardown()


@pytest.mark.slow
def test_an_online_run_that_cannot_reach_wandb_is_kept_offline(
    tmp_path: Path,
    own_server: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tracking, "BEGIN_SECONDS", 1)
    with socket.socket() as taken:  # bound and not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        own_server(f"http://127.0.0.1:{taken.getsockname()[1]}")
        tracker = make(tmp_path / "run", "online")
        tracker.metrics({"fd/mean": 0.5})
        tracker.close()
    assert [record.getMessage()[:25] for record in caplog.records if record.levelname == "WARNING"] == [
        "W&B cannot be reached; th"
    ]
    assert read_back(tmp_path / "run")["summary"]["fd/mean"] == 0.5


@pytest.mark.slow
def test_an_online_run_that_is_refused_is_an_error(tmp_path: Path, own_server: Callable[[str], None]) -> None:
    with refusing_server() as address:
        own_server(address)
        with pytest.raises(ValueError, match=r"could not begin.*wandb login"):
            make(tmp_path / "run", "online")


@contextmanager
def refusing_server() -> Iterator[str]:
    """Run a server that answers everything as W&B answers a wrong key; give its address."""

    class Refusal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = b'{"errors": [{"message": "user is not logged in"}]}'
            self.send_response(401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_closing_finishes_the_run(inspected: Any) -> None:
    assert (inspected["state"], inspected["exit_code"]) == ("finished", 0)


def test_a_tracker_nobody_used_leaves_no_run(tmp_path: Path) -> None:
    make(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()


def test_no_tracker_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = NoTracker()
    tracker.metrics({"fd/mean": 0.1})
    tracker.table("probe/scores", ["layer"], [["mid.attn1"]])
    tracker.image("report/grid", tmp_path / "missing.png")
    tracker.close()
    assert not list(tmp_path.iterdir())


def test_the_csv_tracker_leaves_tables_that_anyone_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "tracker"
    log_one_of_everything(CsvTracker(folder), tmp_path)
    with (folder / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["name"], row["value"]) == ("fd/mean", "0.125")
    assert (folder / "probe_scores.csv").read_text().splitlines() == [
        "layer,accuracy",
        "mid.attn1,0.875",
        "up.attn1,0.5",
    ]
    assert (folder / "report_grid.png").read_bytes() == (tmp_path / "grid.png").read_bytes()
    assert (folder / "report_page.html").read_text() == (tmp_path / "page.html").read_text()
    with (folder / "lineage.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["key"], json.loads(row["parents"])) == ("0123456789abcdef", {"probe": "fedcba9876543210"})


def test_the_csv_tracker_that_nobody_used_leaves_nothing(tmp_path: Path) -> None:
    CsvTracker(tmp_path / "tracker").close()
    assert not list(tmp_path.iterdir())


def test_the_tensorboard_tracker_writes_what_tensorboard_reads(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_one_of_everything(TensorBoardTracker(tmp_path / "run", {"alpha": 1.5}), tmp_path)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert [event.value for event in events.Scalars("fd/mean")] == [0.125]
    assert events.Tags()["images"] == ["report/grid"]
    (table,) = events.Tensors("probe/scores/text_summary")
    assert b"| mid.attn1 | 0.875 |" in table.tensor_proto.string_val[0]


def test_tensorboard_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"icm_pipeline\[tensorboard\]"):
        TensorBoardTracker(tmp_path / "run", {})


def test_an_offline_run_that_cannot_begin_is_told_once_and_not_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").write_text("in the way")
    tracker = make(tmp_path / "run")
    for _ in range(2):
        tracker.metrics({"fd/mean": 0.5})
    tracker.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
