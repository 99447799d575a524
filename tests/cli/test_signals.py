"""Ctrl-C, SIGTERM and a lost cluster while several workers train: the documented exit code, and the run can be resumed."""

import signal
import subprocess
import time

import psutil
import pytest

from activelr_service.config import dump_job
from activelr_service.export.model import load_model
from activelr_service.runs.run import Run
from tests.conftest import ACTIVELR, PATIENCE_S, small_job

pytestmark = pytest.mark.ray


def kill_head(process):
    (head,) = [child for child in psutil.Process(process.pid).children() if child.name() == "gcs_server"]
    head.kill()


@pytest.mark.parametrize(
    ("happens", "code", "expected"),
    [
        (lambda process: process.send_signal(signal.SIGTERM), 143, "is interrupted; `activelr resume"),
        (lambda process: process.send_signal(signal.SIGINT), 130, "is interrupted; `activelr resume"),
        (kill_head, 5, "the Ray cluster is lost: its head process (GCS) does not answer any more; `activelr resume"),
    ],
    ids=["SIGTERM", "Ctrl-C", "the head of the cluster is killed"],
)
def test_two_workers_end_with_the_documented_code_and_leave_no_process(tmp_path, happens, code, expected):
    job = small_job(tmp_path, epochs=100_000, global_batch_size=64, workers={"num_workers": 2})
    (tmp_path / "job.yaml").write_text(dump_job(job))
    command = [*ACTIVELR, "train", str(tmp_path / "job.yaml")]
    run = Run(tmp_path / "small" / "001")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + PATIENCE_S
    while not (run.journal.exists() and run.journal.read_text().count("\n") >= 2):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    happens(process)
    assert process.wait(timeout=120) == code, (tmp_path / "log").read_text()
    assert expected in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert run.state()["status"] == "interrupted"
    is_signal = code > 128
    assert ("the best model so far, val/accuracy" in (tmp_path / "log").read_text()) == is_signal
    assert not is_signal or load_model(run.model).task == "classification"
    assert not psutil.wait_procs(family, timeout=60)[1]
