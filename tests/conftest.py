"""Shared by all tests: small jobs, real parts, and no home directory but a temporary one for what is written."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from activelr_service.config import TrainJob, parse_job

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes and a cluster share the machine's cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a thread that waits leaves its core to the others
os.environ.setdefault("RAY_worker_niceness", "0")  # at 15, workers of one process wait for tests of the other
for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "ACTIVELR_HOME"):
    os.environ.pop(name, None)

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 900  # for what ends in seconds to a minute: a limit against hangs, whatever the speed of the machine
ACTIVELR = [sys.executable, "-m", "activelr_service.cli"]


@pytest.fixture(autouse=True)
def _own_signal_handlers():
    """A command that a test calls in this process sets handlers for the rest of the process: here, of the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if handler is not None:  # one that was not set from Python
            signal.signal(number, handler)


def small_job(folder: Path, **changes) -> TrainJob:
    """An MLP on the real digits: seconds an epoch even on one core."""
    job = {
        "kind": "train",
        "name": "small",
        "model": {"type": "mlp", "hidden": [32]},
        "data": {"type": "digits", "image_size": 8},
        "epochs": 3,
        "output_dir": str(folder),
    }
    return parse_job({**job, **changes})


def activelr(*args, timeout=PATIENCE_S, **options) -> subprocess.CompletedProcess:
    """Run the command as a user does."""
    command = [*ACTIVELR, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)


def mlflow_run(run):
    """A client, and the run as MLflow has it."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=run.job().tracking.uri)
    return client, client.get_run(run.state()["mlflow_run_id"])


def export_model(folder, model, config, info, task):
    """Export a module as the end of a run does."""
    from safetensors.torch import save_model

    from activelr_service.export.model import WEIGHTS, sha256_of, write_recipe

    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, str(folder / WEIGHTS))
    write_recipe(folder, config, info, task, sha256_of(folder / WEIGHTS))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def job_file(tmp_path):
    """Writes the quickstart job with some text appended or replaced; returns its path."""
    quickstart = (ROOT / "configs" / "quickstart.yaml").read_text()

    def write(append="", replace=("", "")):
        path = tmp_path / "job.yaml"
        path.write_text(quickstart.replace(*replace) + append if replace[0] else quickstart + append)
        return path

    return write
