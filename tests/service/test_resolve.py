"""What is derived, from what, and what cannot be."""

import pytest

from activelr_service.config import dump_job, read_resolved_job
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.runs.run import output_root
from activelr_service.service.check import check_job, with_absolute_paths
from activelr_service.service.resolve import Resources, resolve_job
from tests.conftest import small_job

DIGITS = DataInfo(("classification",), 1437, 360, (3, 8, 8), num_classes=10)


def resolve(folder, info=DIGITS, resources=(2, 0), **changes):
    return resolve_job(small_job(folder, **changes), info, Resources(*resources))


def test_the_batch_size_is_left_to_the_workers_within_what_the_steps_allow(tmp_path):
    job, choices = resolve(tmp_path, epochs=20)
    assert (job.global_batch_size, job.grad_accum_steps) == (None, None)
    (line,) = [str(choice) for choice in choices if choice.path == "global_batch_size"]
    assert line.startswith("global_batch_size = at most 32  (probed when the workers start; ")
    assert line.endswith("more would leave fewer than 500 steps to learn in)")
    assert resolve(tmp_path, grad_accum_steps=4)[0].grad_accum_steps == 4


def test_detection_takes_fewer_of_its_large_images_at_a_time(tmp_path):
    voc = DataInfo(("detection",), 16_551, 4_952, (), num_classes=20)
    changes = {"model": {"type": "torchvision_detection"}, "data": {"type": "voc", "root": str(tmp_path)}, "epochs": 26}
    job, choices = resolve(tmp_path, voc, **changes)
    assert (job.task, job.global_batch_size) == ("detection", None)
    assert any(choice.at_most == 16 for choice in choices)


@pytest.mark.parametrize(
    ("resources", "num_workers", "use_gpu", "cpus_per_worker"),
    [
        ((1, 0), 1, False, 1),
        ((2, 0), 2, False, 1),
        ((16, 0), 2, False, 8),
        ((16, 4), 4, True, 1),
        ((8, 0, True), 2, False, 1),
    ],
)
def test_the_workers_follow_the_machine(tmp_path, resources, num_workers, use_gpu, cpus_per_worker):
    workers = resolve(tmp_path, resources=resources)[0].workers
    assert (workers.num_workers, workers.use_gpu, workers.cpus_per_worker) == (num_workers, use_gpu, cpus_per_worker)


def test_what_the_job_gives_is_kept_and_said_to_be_overridden(tmp_path):
    job, choices = resolve(tmp_path, optimizer={"lr": 0.5}, global_batch_size=32)
    assert (job.optimizer.lr, job.global_batch_size) == (0.5, 32)
    reasons = {choice.path: choice.reason for choice in choices}
    assert reasons["global_batch_size"] == "overridden by the job"
    assert reasons["optimizer.lr"] == "overridden by the job; it has no effect under the robust rule"


def test_a_resolved_job_is_a_valid_job_that_resolves_to_itself(tmp_path):
    job, _ = resolve(tmp_path)
    (tmp_path / "resolved.yaml").write_text(dump_job(job))
    again, _ = read_resolved_job(tmp_path / "resolved.yaml")
    assert again == job
    assert resolve_job(again, DIGITS, Resources(2, 0))[0] == job
    assert resolve(tmp_path, global_batch_size=64)[0].grad_accum_steps == 1


@pytest.mark.parametrize(
    ("changes", "info", "resources", "expected"),
    [
        ({"workers": {"use_gpu": True}}, DIGITS, (2, 0), r"workers\.use_gpu: a GPU is asked for and there is none"),
        (
            {"workers": {"num_workers": 5}},
            DIGITS,
            (8, 4),
            r"workers\.num_workers: 5 workers need 5 GPUs and there are 4",
        ),
        ({"workers": {"num_workers": 5}}, DIGITS, (4, 0, True), r"5 workers need 5 CPUs and there are 4"),
        (
            {"global_batch_size": 33},
            DIGITS,
            (2, 0),
            "33 is not a multiple of 2 workers x 1 accumulation steps; use 32 or 34",
        ),
        ({"grad_accum_steps": 4000}, DIGITS, (1, 0), "data: a batch of 4000 does not fit into 1437 training samples"),
        ({"global_batch_size": 2000}, DIGITS, (2, 0), "a batch of 2000 does not fit into 1437 training samples"),
        ({"task": "regression"}, DIGITS, (2, 0), "task: these data are for classification, got 'regression'"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(tmp_path, changes, info, resources, expected):
    with pytest.raises(JobError, match=expected):
        resolve(tmp_path, info, resources, **changes)


def test_more_workers_than_rows_are_refused(tmp_path):
    import numpy as np

    np.savez(tmp_path / "tiny.npz", x=np.ones((4, 2)), y=np.arange(4) % 2)
    data = {"type": "npz", "path": str(tmp_path / "tiny.npz"), "val_fraction": 0.5}
    with pytest.raises(
        JobError, match=r"workers\.num_workers: 2 training samples cannot be shared by 3 workers; use at most 2"
    ):
        check_job(small_job(tmp_path, data=data, workers={"num_workers": 3}))


def test_relative_paths_mean_the_folder_the_job_was_started_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = with_absolute_paths(small_job("runs", data={"type": "npz", "path": "data.npz"}))
    assert job.data.path == str(tmp_path / "data.npz")
    assert output_root("runs") == tmp_path / "runs"
    monkeypatch.setenv("ACTIVELR_HOME", str(tmp_path / "home"))
    assert output_root("runs") == tmp_path / "home" / "runs"
    assert output_root("/elsewhere") == output_root("/elsewhere").resolve()


def test_a_tracking_server_comes_from_the_job_or_the_environment_or_is_embedded(tmp_path, monkeypatch):
    assert resolve(tmp_path)[0].tracking.uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert resolve(tmp_path)[0].tracking.uri == "http://127.0.0.1:5000"
    assert resolve(tmp_path, tracking={"uri": "http://127.0.0.1:6000"})[0].tracking.uri == "http://127.0.0.1:6000"
