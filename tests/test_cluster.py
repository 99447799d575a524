"""The whole service on a real cluster, as docs/cluster.md starts it: Ray with token authentication, and an MLflow server."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import psutil
import pytest

from activelr_service.config import dump_job
from activelr_service.data import inspect_data
from activelr_service.export.model import load_model
from activelr_service.runs.journal import read_journal
from activelr_service.runs.run import Run
from activelr_service.service.resolve import Resources, resolve_job
from tests.conftest import ACTIVELR, PATIENCE_S, ROOT, activelr, free_port, small_job
from tests.data.generate_images import write_images
from tests.ranks import run_ranks
from tests.training.test_loop import assert_identical, final_tensors, train

pytestmark = [
    pytest.mark.xdist_group("cluster"),
    pytest.mark.ray,
]  # one cluster, and the other process has all other tests

EPOCHS = 8  # two pass before a kill, and some are left after it
LARGE = {"epochs": EPOCHS, "global_batch_size": 64, "model": {"type": "mlp", "hidden": [1024, 1024]}}
TWO = {"num_workers": 2}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """What `make cluster-up` starts, on free ports and in a folder of its own."""
    home = tmp_path_factory.mktemp("cluster")
    ports = {name: free_port() for name in ("gcs", "dashboard", "mlflow")}
    options = [text for name, port in ports.items() for text in (f"--{name}-port", str(port))]
    command = [sys.executable, "-m", "cluster.local"]
    subprocess.run([*command, "up", "--home", home, *options], cwd=ROOT, check=True, timeout=PATIENCE_S)
    processes = [psutil.Process(json.loads(path.read_text())["pid"]) for path in home.glob("outputs/.cluster/*.json")]
    family = [member for process in processes for member in (process, *process.children(recursive=True))]
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_ADDRESS": f"127.0.0.1:{ports['gcs']}",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
        "ACTIVELR_HOME": str(home),
    }
    yield SimpleNamespace(
        home=home,
        address=f"http://127.0.0.1:{ports['dashboard']}",
        mlflow=environment["MLFLOW_TRACKING_URI"],
        environment=environment,
    )
    subprocess.run([*command, "down", "--home", home], cwd=ROOT, check=True, timeout=PATIENCE_S)
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def mlflow_rest(cluster, call, body=None):
    """A call of MLflow's REST API, as any other program makes it."""
    headers = {"Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{cluster.mlflow}/api/2.0/mlflow/{call}", data, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def run_named(cluster, name):
    """The only MLflow run of that name."""
    body = {"experiment_ids": ["1"], "filter": f"attributes.run_name = '{name}'"}
    (run,) = mlflow_rest(cluster, "runs/search", body)["runs"]
    return run


def train_workers(cluster):
    """The processes of Ray Train's workers on this cluster. Other tests may have workers on a cluster of their own."""
    head = psutil.Process(json.loads((cluster.home / "outputs" / ".cluster" / "ray.json").read_text())["pid"])
    return [process for process in head.children(recursive=True) if "RayTrainWorker" in " ".join(process.cmdline())]


def epochs_logged(cluster, run, metric):
    found = mlflow_rest(cluster, f"metrics/get-history?run_id={run['info']['run_id']}&metric_key={metric}")
    return [point["step"] for point in found["metrics"]]


def driver(cluster, job, folder):
    """A driver attached to the cluster, in a process of its own."""
    path = folder / f"{job.name}.yaml"
    path.write_text(dump_job(job))
    log = (folder / f"{job.name}.log").open("a")
    return subprocess.Popen([*ACTIVELR, "train", str(path)], env=cluster.environment, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    """The final state of the large job on two ranks, from the plain loop: no Ray, no kill."""
    folder = tmp_path_factory.mktemp("plain")
    job = small_job(folder, workers={**TWO, "cpus_per_worker": 1}, **LARGE)
    resolved, _ = resolve_job(job, inspect_data(job.data), Resources(2, 0))
    run_ranks(train_once, 2, folder, resolved, folder)
    return final_tensors(folder, EPOCHS)


def train_once(rank, job, folder):
    train(job, folder)


def test_the_documented_line_trains_tracks_registers_and_survives_a_killed_worker_bit_for_bit(
    cluster, never_killed, monkeypatch
):
    large = {
        "model": "{type: mlp, hidden: [1024, 1024]}",
        "data.image_size": 8,
        "epochs": EPOCHS,
        "global_batch_size": 64,
    }
    process = submit_as_documented(cluster, name="worker-killed", **large)
    run = Run(cluster.home / "outputs" / "worker-killed" / "001")
    wait_until(lambda: len(read_journal(run.journal)) >= 2)
    workers = train_workers(cluster)
    assert len(workers) == 2
    workers[1].send_signal(signal.SIGKILL)
    log, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, log
    assert "workers lost (rank" in log
    assert "from the last checkpoint on" in log
    assert f"epoch {EPOCHS}/{EPOCHS}" in log
    assert_identical(final_tensors(run.folder, EPOCHS), never_killed)
    tracked = run_named(cluster, "worker-killed/001")
    params = {param["key"]: param["value"] for param in tracked["data"]["params"]}
    metrics = {metric["key"] for metric in tracked["data"]["metrics"]}
    assert tracked["info"]["status"] == "FINISHED"
    assert params["workers.num_workers"] == "2"
    assert {"train/loss", "val/accuracy", "weights/gain_mean", "workers/epoch_end_reduce_seconds"} <= metrics
    assert epochs_logged(cluster, tracked, "val/loss") == list(range(1, EPOCHS + 1))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", cluster.mlflow)
    assert load_model("models:/worker-killed/1").task == "classification"


def submit_as_documented(cluster, module="jobs.train", **settings):
    """The `ray job submit` line of docs/cluster.md, word for word but for the address, with ``settings``."""
    (line,) = re.findall(
        rf"^(?:\S+=\S+ )*\.venv/bin/ray job submit .*{re.escape(module)} \S+$",
        (ROOT / "docs" / "cluster.md").read_text(),
        re.MULTILINE,
    )
    line = line.replace("http://127.0.0.1:8265", cluster.address)
    line = line.replace(".venv/bin/", f"{os.path.dirname(sys.executable)}/")
    line += "".join(f" --set '{path}={value}'" for path, value in settings.items())
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.Popen(  # noqa: S602 - the line is for a shell
        line, shell=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_submitted_job_whose_driver_is_killed_continues_when_submitted_again(cluster, never_killed, tmp_path):
    job = small_job(cluster.home / "outputs", name="driver-killed", workers=TWO, **LARGE)
    (tmp_path / "job.yaml").write_text(dump_job(job))
    at = ("--address", cluster.address)
    submission_id = submitted(tmp_path, at)
    run = Run(cluster.home / "outputs" / job.name / "001")
    wait_until(lambda: len(read_journal(run.journal)) >= 2)
    psutil.Process(run.state()["pid"]).send_signal(signal.SIGKILL)
    wait_until(lambda: "FAILED" in activelr("status", submission_id, *at).stdout)
    again = activelr("submit", tmp_path / "job.yaml", *at, "--follow")
    assert again.returncode == 0, again.stderr
    assert "continued after epoch" in again.stdout
    assert_identical(final_tensors(run.folder, EPOCHS), never_killed)
    assert [path.name for path in run.folder.parent.glob("[0-9]*")] == ["001"]
    assert run_named(cluster, f"{job.name}/001")["info"]["status"] == "FINISHED"


def test_a_submitted_job_can_be_watched_and_stopped(cluster, tmp_path):
    job = small_job(cluster.home / "outputs", name="stopped", epochs=100_000, workers=TWO)
    (tmp_path / "job.yaml").write_text(dump_job(job))
    at = ("--address", cluster.address)
    submission_id = submitted(tmp_path, at)
    run = Run(cluster.home / "outputs" / "stopped" / "001")
    wait_until(lambda: len(read_journal(run.journal)) >= 1)
    assert f"{submission_id}: RUNNING" in activelr("status", submission_id, *at).stdout
    assert "epoch      1/100000" in activelr("logs", submission_id, *at).stdout
    assert submission_id in activelr("list", *at).stdout
    assert "is asked to stop" in activelr("stop", submission_id, *at).stdout
    wait_until(lambda: "STOPPED" in activelr("status", submission_id, *at).stdout)
    assert run.state()["status"] == "interrupted"
    assert load_model(run.model).task == "classification"
    assert run_named(cluster, "stopped/001")["info"]["status"] == "KILLED"
    unknown = activelr("status", "nothing-here", *at)
    assert unknown.returncode == 2
    assert "Traceback" not in unknown.stderr


def submitted(folder, at):
    sent = activelr("submit", folder / "job.yaml", *at)
    assert sent.returncode == 0, sent.stderr
    submission_id = re.search(r"submitted (\S+) to", sent.stdout)[1]
    assert f"activelr logs --follow {submission_id} --address" in sent.stdout
    return submission_id


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_data_that_go_bad_on_one_rank_end_all_workers_at_once_without_a_retry(cluster, tmp_path):
    write_images(tmp_path / "images")
    broken = tmp_path / "images" / "cat" / "0.png"
    job = small_job(
        cluster.home / "outputs",
        name="bad-data",
        workers=TWO,
        model={"type": "mlp"},
        data={"type": "imagefolder", "root": str(tmp_path / "images"), "image_size": 8},
        global_batch_size=4,
        epochs=500,
    )
    process = driver(cluster, job, tmp_path)
    wait_until((cluster.home / "outputs" / "bad-data" / "001" / "journal.jsonl").exists)
    broken.write_bytes(broken.read_bytes()[:-200])
    assert process.wait(timeout=PATIENCE_S) == 3
    log = (tmp_path / "bad-data.log").read_text()
    assert "ValueError: " in log
    assert "cat/0.png cannot be decoded as an image" in log
    assert "workers lost" not in log
    assert "Traceback" not in log


def test_the_documented_line_for_a_study_runs_it_on_the_cluster_and_tracks_every_trial(cluster):
    process = submit_as_documented(cluster, "jobs.study", preset="smoke")
    log, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, log
    assert "16 of 16 trials" in log
    assert (cluster.home / "outputs" / "studies" / "digits-grid" / "report" / "report.html").exists()
    study = run_named(cluster, "digits-grid")
    where = f"tags.mlflow.parentRunId = '{study['info']['run_id']}' and params.`optimizer.type` = 'active_sgd'"
    found = mlflow_rest(cluster, "runs/search", {"experiment_ids": ["1"], "filter": where})["runs"]
    assert len(found) == 4
    assert {run["info"]["status"] for run in found} == {"FINISHED"}


def test_a_client_without_the_token_is_told_what_to_set(cluster, tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    result = activelr("list", "--address", cluster.address, env=environment)
    assert result.returncode == 2
    assert "RAY_AUTH_MODE=token" in result.stderr
    assert "Traceback" not in result.stderr
