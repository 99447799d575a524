"""MLflow, real: a store in a file, a server that is there, one that is not, and one that dies."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from activelr_service.config import dump_job
from activelr_service.errors import TrackingError
from activelr_service.runs.console import Follower
from activelr_service.runs.record import Record
from activelr_service.runs.run import list_runs
from activelr_service.service.launch import resume, train
from activelr_service.tracking.store import open_tracker
from activelr_service.tracking.tracker import MlflowTracker
from tests.conftest import PATIENCE_S, activelr, free_port, small_job

pytestmark = pytest.mark.ray

RECORD = Record(1, 22, 1_700_000_000_000, {"train/loss": 0.5}, [])


def tracker(tmp_path):
    return open_tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", "exp", "name", tmp_path)


def start_server(folder, port):
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    where = [
        "--artifacts-destination",
        str(folder / "files"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        [*command, *where],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
            return server
        except OSError:
            time.sleep(0.3)
    os.killpg(server.pid, signal.SIGKILL)
    raise AssertionError("the MLflow server did not start")


def end_server(server):
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def test_logging_a_record_again_changes_nothing(tmp_path):
    run = tracker(tmp_path)
    for _ in range(3):
        run.log_metrics([RECORD.to_row()])
    points = MlflowClient(tracking_uri=run.uri).get_metric_history(run.run_id, "train/loss")
    assert [(point.step, point.value, point.timestamp) for point in points] == [(1, 0.5, 1_700_000_000_000)]


def test_params_that_are_there_are_kept_when_a_run_is_continued(tmp_path):
    run = tracker(tmp_path)
    run.log_params({"a": {"b": 1}})
    again = open_tracker(run.uri, "exp", "name", tmp_path, run_id=run.run_id)
    assert again.run_id == run.run_id
    again.log_params({"a": {"b": 2}, "c": [1, 2]})
    assert MlflowClient(tracking_uri=run.uri).get_run(run.run_id).data.params == {"a.b": "1", "c": "[1, 2]"}


@pytest.mark.parametrize("is_listening", [False, True], ids=["closed port", "accepts and never answers"])
def test_a_dead_server_at_the_start_is_an_error_within_15_seconds(is_listening):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        if is_listening:
            deaf.listen()
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(TrackingError, match=f"MLflow at {uri}"):
            open_tracker(uri, "exp", "name", Path())
        assert time.monotonic() - start < 15


def test_a_training_without_its_server_is_one_line_and_leaves_no_run(tmp_path):
    job = small_job(tmp_path, workers={"num_workers": 1}, tracking={"uri": f"http://127.0.0.1:{free_port()}"})
    (tmp_path / "job.yaml").write_text(dump_job(job))
    result = activelr("train", tmp_path / "job.yaml")
    assert result.returncode == 6
    assert len(result.stderr.strip().splitlines()) == 1
    assert list_runs(tmp_path) == []


def test_a_server_that_dies_during_a_training_does_not_stop_it_and_gets_all_of_it_later(tmp_path, capsys):
    port = free_port()
    server = start_server(tmp_path, port)
    job = small_job(tmp_path, epochs=4, workers={"num_workers": 1}, tracking={"uri": f"http://127.0.0.1:{port}"})
    original = MlflowTracker.log_metrics

    def kill_then_log(self, rows):
        if rows[0]["epoch"] == 2 and server.poll() is None:
            end_server(server)
        original(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowTracker, "log_metrics", kill_then_log)
        run = train(job)
    assert run.status() == "finished"
    assert not run.state()["tracked"]
    assert f"`activelr resume {run.folder}` delivers it" in capsys.readouterr().out
    server = start_server(tmp_path, port)
    try:
        resume(run)
        client = MlflowClient(tracking_uri=job.tracking.uri)
        tracked = client.get_run(run.state()["mlflow_run_id"])
        assert tracked.info.status == "FINISHED"
        assert [p.step for p in client.get_metric_history(tracked.info.run_id, "val/loss")] == [1, 2, 3, 4]
        assert {file.path for file in client.list_artifacts(tracked.info.run_id, "figures")} == {
            "figures/confusion.csv",
            "figures/confusion.png",
            "figures/updates.png",
            "figures/learning_curves.png",
        }
        assert client.get_model_version("small", "1").run_id == tracked.info.run_id
        assert client.get_model_version_by_alias("small", "champion").description.startswith("# small")
        assert run.state()["tracked"]
    finally:
        end_server(server)


def test_a_follower_delivers_in_order_and_tries_again_what_failed():
    delivered, failures = [], [RuntimeError("down")] * 3

    def deliver(item):
        if item == "b" and failures:
            raise failures.pop()
        delivered.append(item)

    follower = Follower(lambda after: list(enumerate("abc", start=1))[after:], deliver)
    assert not follower.catch_up()
    assert delivered == ["a"]
    follower.start()
    deadline = time.monotonic() + 20
    while len(delivered) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert follower.finish()
    assert delivered == ["a", "b", "c"]
