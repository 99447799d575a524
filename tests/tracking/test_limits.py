"""What MLflow does not take, runs that it has no more, and servers that do not come to an end."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from mlflow import MlflowClient

from activelr_service.errors import TrackingError
from activelr_service.tracking import deadline
from activelr_service.tracking.client import connect, read_experiment
from activelr_service.tracking.deadline import hurry, within
from activelr_service.tracking.names import journal_metric, tracked_metric, tracked_name
from activelr_service.tracking.store import embedded_store, open_tracker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    return open_tracker(embedded_store(root), "exp", "run", root)


NAMES = ["conv(3x3)", "conv[3x3]", "a,b", "größe 1", "../x", "a//b", "/a", "x" * 300, "x" * 299 + "y", "%", "a\nb", "."]


def test_names_that_mlflow_does_not_take_are_changed_kept_apart_and_said_once(tracker):
    said = []
    tracker.log = said.append
    rows = [{"epoch": 1, "timestamp_ms": 1, **{name: float(n) for n, name in enumerate(NAMES)}}]
    tracker.log_metrics(rows)
    tracker.log_metrics(rows)
    logged = MlflowClient(tracker.uri).get_run(tracker.run_id).data.metrics
    assert {logged[tracked_name(name)] for name in NAMES} == set(map(float, range(len(NAMES))))
    changed = [name for name in NAMES if tracked_name(name) != name]
    assert len(said) == len(changed)
    assert tracked_name("weights/update_ratio:layer1.0.conv1") == "weights/update_ratio:layer1.0.conv1"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("val/accuracy", "val/accuracy"),
        ("update/update_ratio/layer1.0.conv1", "weights/update_ratio:layer1.0.conv1"),
        ("optim/update_ratio", "weights/update_ratio"),
        ("grad_l1/fc.weight", "weights/grad_l1:fc.weight"),
        ("perf/epoch_seconds", "workers/epoch_seconds"),
    ],
)
def test_metrics_of_the_rule_are_one_group_of_mlflow_and_are_read_back(ours, theirs):
    assert tracked_metric(ours) == theirs
    assert journal_metric(theirs) == ours
    assert journal_metric(ours) == ours, "a run of an older version has these names in MLflow"


def test_long_values_are_cut_with_a_mark_and_many_parameters_are_all_there(tracker):
    said = []
    tracker.log = said.append
    tracker.log_params({"long": "y" * 7000, **{f"p{n}": n for n in range(250)}}, {"tag": "z" * 9000})
    data = MlflowClient(tracker.uri).get_run(tracker.run_id).data
    assert data.params["long"].endswith("y... (7,000 characters in all)")
    assert data.tags["tag"].endswith("z... (9,000 characters in all)")
    assert {f"p{n}" for n in range(250)} <= set(data.params)
    assert len(said) == 2


def test_a_run_that_mlflow_has_no_more_is_told_from_a_server_that_fails(tracker):
    gone = tracker.child("gone", {})
    gone.delete()
    root, said = Path(unquote(tracker.uri.removeprefix("sqlite:///"))).parent, []
    for run_id, reason in ((gone.run_id, "is deleted; restored in MLflow"), ("0123" * 8, "has no run 0123")):
        new = open_tracker(tracker.uri, "exp", "run", root, run_id=run_id, log=said.append)
        assert new.run_id not in (run_id, None)
        assert reason in said[-1]
        assert said[-1].endswith("; a new MLflow run is begun, with all epochs")


def test_a_server_that_has_moved_is_answered_with_the_option_that_names_the_new_place():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(TrackingError, match=r"resume RUN --set tracking\.uri=URI"), within(3):
            open_tracker(uri, "exp", "run", Path(), run_id="x")


@pytest.fixture
def dripping():
    """A server that sends a byte of its answer every tenth of a second, for ever: no timeout of the network is met."""
    server = socket.create_server(("127.0.0.1", 0))
    is_over = threading.Event()

    def drip(connection):
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
            while not is_over.wait(0.1):
                connection.sendall(b" ")

    def accept():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    is_over.set()
    server.close()


def test_a_server_that_never_ends_its_answer_is_given_up(dripping):
    start = time.monotonic()
    with pytest.raises(TrackingError, match="no complete answer within"), within(1):
        connect(dripping)
    assert time.monotonic() - start < 10


def test_a_process_that_was_asked_to_end_gives_up_what_it_waits_for(dripping, monkeypatch):
    monkeypatch.setattr(deadline, "_process_end", float("inf"))
    threading.Timer(0.5, hurry, (0.5,)).start()
    start = time.monotonic()
    with pytest.raises(TrackingError, match="no complete answer within"):
        connect(dripping)
    assert time.monotonic() - start < 10


USE = """
import sys
from activelr_service.tracking.store import open_tracker, tracking_uri
from pathlib import Path
uri = tracking_uri(None, Path("here"))
assert "c4nary" not in uri, uri
try:
    open_tracker(uri, "exp", "name", Path("here"))
except Exception as error:
    print(error)
"""


def test_credentials_of_the_servers_uri_are_sent_to_it_and_are_not_kept():
    server = socket.create_server(("127.0.0.1", 0))
    asked = []

    def answer():
        connection, _ = server.accept()
        asked.append(connection.recv(65536).decode())
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 8\r\n\r\nme:c4nary"[:-1])
        connection.close()

    threading.Thread(target=answer, daemon=True).start()
    uri = f"http://me:c4nary-S3cret@127.0.0.1:{server.getsockname()[1]}"
    environment = {"MLFLOW_TRACKING_URI": uri, "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    said = subprocess.run([sys.executable, "-c", USE], env=environment, capture_output=True, text=True, check=True)
    server.close()
    assert "authorization: basic" in asked[0].lower()
    assert "c4nary" not in said.stdout + said.stderr


def test_an_experiment_is_read_by_epoch_under_the_names_of_the_journal_from_old_runs_too(tmp_path):
    run = open_tracker(embedded_store(tmp_path), "read", "run", tmp_path)
    run.log_params({"optimizer": {"type": "sgd"}})
    by_epoch = {"val/accuracy": 0.5, "optim/progress": 0.25, "perf/epoch_seconds": 2.0, "update/update_ratio/fc": 0.1}
    rows = [{"epoch": epoch, "timestamp_ms": epoch, **by_epoch} for epoch in (1, 2)]
    run.log_metrics(rows)
    run.log_metrics([{"epoch": 0, "timestamp_ms": 9, "best/accuracy": 0.5, "test/accuracy": 0.4, "system/cpu": 1.0}])
    run.log_metrics([{"epoch": 1, "step": 77, "timestamp_ms": 9, "train/loss_by_step": 0.4}])
    client = MlflowClient(run.uri)
    client.log_metric(run.run_id, "perf/epoch_seconds", 1.5, step=0)
    run.end("finished")
    (read,) = read_experiment(run.uri, "read")
    assert read.history == {name: {1: value, 2: value} for name, value in by_epoch.items()} | {
        "perf/epoch_seconds": {0: 1.5, 1: 2.0, 2: 2.0}
    }
