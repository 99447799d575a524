"""`tracking.system_metrics`: the load of the machine in MLflow, ended with the training, however it ends."""

import threading

import pytest

from activelr_service.config import parse_job
from activelr_service.errors import JobError, RunFailedError
from activelr_service.runs.run import find_run
from activelr_service.service.launch import train
from activelr_service.tracking.system_metrics import system_metrics
from tests.conftest import free_port, mlflow_run, small_job

pytestmark = pytest.mark.slow
WATCHED = {"workers": {"num_workers": 1}, "global_batch_size": 64, "epochs": 1, "tracking": {"system_metrics": True}}
USE = {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"}


def test_a_short_training_has_the_use_of_cpu_and_memory_and_the_monitor_ends_with_it(tmp_path):
    metrics = mlflow_run(train(small_job(tmp_path, **WATCHED)))[1].data.metrics
    assert set(metrics) >= USE
    assert not [thread for thread in threading.enumerate() if thread.name == "SystemMetricsMonitor"]


def test_a_training_that_fails_ends_the_monitor_too(tmp_path):
    with pytest.raises(RunFailedError):
        train(small_job(tmp_path, **WATCHED, optimizer={"type": "sgd", "lr": 1e30}))
    assert set(mlflow_run(find_run(tmp_path, "small"))[1].data.metrics) >= USE
    assert not [thread for thread in threading.enumerate() if thread.name == "SystemMetricsMonitor"]


def test_a_server_that_is_gone_is_one_line_and_nothing_else(tmp_path):
    lines, done = [], []
    with system_metrics(f"http://127.0.0.1:{free_port()}", "0" * 32, None, lines.append):
        done.append("trained")
    assert done == ["trained"]
    assert len(lines) == 1
    assert lines[0].startswith("system metrics are not tracked: MLflow at http://127.0.0.1:")


def test_without_mlflow_there_are_none():
    job = {"kind": "train", "name": "a", "model": {"type": "mlp"}, "data": {"type": "digits"}, "epochs": 1}
    with pytest.raises(JobError, match="system_metrics: needs the backend mlflow"):
        parse_job({**job, "tracking": {"backend": "none", "system_metrics": True}})
