"""One trial in this process: every way it can end is an outcome."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ray.tune.execution import class_cache

from activelr_service.config import parse_study
from activelr_service.data import inspect_data
from activelr_service.errors import CommandError, JobError, NonFiniteLossError
from activelr_service.studies.folder import Outcome, StudyFolder
from activelr_service.studies.plan import make_plan
from activelr_service.studies.table import make_table
from activelr_service.studies.trial import classify, run_trial
from activelr_service.studies.tune import PackedTrials, keep_secrets_from_ray, lost_trial_outcome, trials_on
from tests.conftest import ROOT, small_job
from tests.training.test_loop import resolved

pytestmark = pytest.mark.slow

TRILLION = 1_000_000


def outcome_of(folder, **changes):
    job = resolved(small_job(folder, **changes))
    return run_trial(job, inspect_data(job.data))


def test_a_trial_has_a_row_for_the_untrained_model_and_one_for_every_epoch(tmp_path):
    outcome = outcome_of(tmp_path, epochs=2)
    assert (outcome.status, outcome.epoch) == ("finished", 2)
    assert [row["epoch"] for row in outcome.rows] == [0, 1, 2]
    assert outcome.rows[0]["val/accuracy"] < 0.3 < outcome.rows[2]["val/accuracy"]
    assert outcome.rows[2]["perf/samples"] == 1437 // 64 * 64


def test_a_trial_is_the_training_that_the_same_job_would_be(tmp_path):
    from tests.training.test_loop import train

    job = resolved(small_job(tmp_path, epochs=2))
    threads = torch.get_num_threads()
    torch.set_num_threads(job.workers.cpus_per_worker)  # sums depend on it
    _, history = train(job, tmp_path)
    torch.set_num_threads(threads)
    losses = [row["val/loss"] for row in run_trial(job, inspect_data(job.data)).rows[1:]]
    assert losses == [record.metrics["val/loss"] for record in history]


def test_a_trial_that_diverges_says_in_which_epoch(tmp_path):
    outcome = outcome_of(tmp_path, optimizer={"type": "sgd", "lr": 1e30})
    assert (outcome.status, outcome.epoch) == ("diverged", 1)
    assert [row["epoch"] for row in outcome.rows] == [0]


def test_a_trial_that_runs_out_of_memory_says_so(tmp_path):
    outcome = outcome_of(tmp_path, model={"type": "mlp", "hidden": [TRILLION, TRILLION]})
    assert outcome.status == "out_of_memory"
    assert "allocate" in outcome.reason


def test_any_other_error_is_a_failure_with_its_place(tmp_path):
    job = resolved(small_job(tmp_path))
    info = inspect_data(job.data)._replace(num_classes=3)  # not what the data are
    outcome = run_trial(job, info)
    assert outcome.status == "failed"
    assert "IndexError" in outcome.reason
    assert ".py:" in outcome.reason


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NonFiniteLossError("loss"), "diverged"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("shapes"), "failed"),
    ],
)
def test_errors_are_told_apart(error, status):
    assert classify(error) == status


STUDY = {
    "kind": "study",
    "name": "x",
    "workloads": {"digits": {"model": {"type": "mlp"}, "data": {"type": "npz", "path": "none.npz"}, "epochs": 1}},
    "optimizers": ["adamw"],
    "sweeps": [{"optimizer.lr": [1e-3, 1e-2]}],
}


def test_a_study_of_which_no_trial_can_run_is_refused_with_the_reason():
    with pytest.raises(JobError, match=r"none of the 6 trials can run: data\.path: no such file: .*none\.npz"):
        make_plan(parse_study(STUDY))


def test_the_batch_size_of_a_trial_that_gives_none_is_its_limit_whatever_the_timing(tmp_path):
    workload = {"model": {"type": "mlp"}, "data": {"type": "digits"}, "epochs": 20}
    plan = make_plan(parse_study({**STUDY, "optimizers": ["adamw", "rprop"], "workloads": {"digits": workload}}))
    sizes = {job.optimizer.type: (job.global_batch_size, job.grad_accum_steps) for job, _ in plan.ready.values()}
    assert sizes == {"adamw": (32, 1), "rprop": (1437, 1)}
    written = {**workload, "grad_accum_steps": 1}
    same = make_plan(parse_study({**STUDY, "optimizers": ["adamw", "rprop"], "workloads": {"digits": written}}))
    assert same.ready.keys() == plan.ready.keys()


def test_the_score_of_a_trial_is_the_metric_of_its_job_also_beside_trials_of_its_workload_that_cannot_run(tmp_path):
    workload = {"model": {"type": "mlp"}, "data": {"type": "digits"}, "epochs": 1, "metric": "calibrated_loss"}
    sizes = {"optimizers": ["adamw"], "sweeps": [{"global_batch_size": [64, 4096]}], "seeds": [0]}
    plan = make_plan(parse_study({**STUDY, **sizes, "workloads": {"digits": workload}}))
    (trial_id,) = plan.ready
    folder = StudyFolder(tmp_path)
    (tmp_path / "trials").mkdir()
    folder.write_outcome(trial_id, run_trial(*plan.ready[trial_id]))
    table = make_table(plan, folder)
    assert list(table["status"]) == ["finished", "finished", "failed"]
    assert set(table["metric"]) == {"val_calibrated_loss"}
    assert not table["higher_is_better"].any()
    assert list(table["score"][:2]) == list(table["val_calibrated_loss"][:2])


def test_a_trial_that_cannot_run_is_in_the_table_as_failed(tmp_path):
    good = {"model": {"type": "mlp"}, "data": {"type": "digits"}, "epochs": 1}
    study = parse_study({**STUDY, "workloads": {**STUDY["workloads"], "good": good}})
    plan = make_plan(study)
    assert len(plan.ready) == 6
    table = make_table(plan, StudyFolder(tmp_path))
    assert set(table["status"]) == {"failed"}
    assert set(table["reason"]) == {f"data.path: no such file: {Path.cwd() / 'none.npz'}"}
    assert len(table) == 6  # those that could run have not ended yet


@pytest.mark.parametrize(
    ("resources", "needs", "most", "expected"),
    [
        ({"CPU": 16}, {"CPU": 1, "GPU": 0}, 128, 16),  # eight such nodes
        ({"CPU": 16}, {"CPU": 4, "GPU": 0}, 128, 4),
        ({"CPU": 16}, {"CPU": 1, "GPU": 0}, 3, 3),
        ({"CPU": 16, "GPU": 2}, {"CPU": 1, "GPU": 0.25}, 64, 8),
        ({"CPU": 16, "GPU": 1}, {"CPU": 1, "GPU": 0.1}, 64, 10),
        ({}, {"CPU": 1, "GPU": 0}, 8, 1),
    ],
)
def test_a_node_s_memory_is_divided_by_the_trials_that_it_takes_and_not_by_those_of_all_nodes(
    resources, needs, most, expected
):
    assert trials_on(resources, needs, most) == expected


def test_a_trial_that_ran_out_of_memory_is_final_unless_its_machine_was_busy_or_small():
    gib = 2**30
    assert Outcome("out_of_memory").is_result(gib), "of an older study"
    assert Outcome("out_of_memory", memory=8 * gib).is_result(9 * gib)
    assert not Outcome("out_of_memory", memory=1 * gib).is_result(9 * gib)
    assert not Outcome("out_of_memory", memory=0).is_result(gib)
    assert not Outcome("failed").is_result(gib)
    killed = lost_trial_outcome(RuntimeError("OutOfMemoryError: the worker was killed, the node was low on memory"))
    assert (killed.status, killed.is_result(gib)) == ("out_of_memory", False)
    assert lost_trial_outcome(RuntimeError("the actor died")).status == "failed"


def test_a_model_that_needs_more_than_its_share_of_memory_fails_in_its_own_trial(tmp_path):
    code = """
import sys, psutil
from activelr_service.data import inspect_data
from activelr_service.studies.trial import limit_memory, run_trial
from tests.studies.test_trial import resolved, small_job
limit_memory(psutil.virtual_memory().available // 2**29)  # half a GiB
job = resolved(small_job(sys.argv[1], model={"type": "mlp", "hidden": [12000, 12000]}))  # half a GiB, and gradients
outcome = run_trial(job, inspect_data(job.data))
print(outcome.status)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.split() == ["out_of_memory"]


def test_a_study_hands_ray_no_keys_to_write_into_its_logs(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    keep_secrets_from_ray()
    assert "canary" not in str(class_cache._ActorClassCache().get(PackedTrials)._default_options)


def test_a_damaged_outcome_counts_as_none_and_a_damaged_state_is_named(tmp_path):
    folder = StudyFolder(tmp_path)
    (tmp_path / "trials").mkdir()
    folder.write_outcome("a", Outcome("finished"))
    assert not folder.has_damaged_outcome("a")
    assert not folder.has_damaged_outcome("b"), "it has not ended"
    for content in (b"", b"{", b"\0\xff", b"[1]", b'{"x": 1}'):
        folder.outcome("a").write_bytes(content)
        assert folder.read_outcome("a") is None
        assert folder.has_damaged_outcome("a")
    for content in (b"", b"{", b"\0\xff"):
        (tmp_path / "study.json").write_bytes(content)
        with pytest.raises(CommandError, match=r"study\.json is damaged: .*; restore the file, or move"):
            folder.state()
