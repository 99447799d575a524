"""A run that was stopped: its best model so far, and how it is made a finished one."""

import os
import socket

import psutil
import pytest

from activelr_service.config import read_resolved_job
from activelr_service.errors import CommandError, JobError
from activelr_service.export.model import load_model
from activelr_service.runs.begin import start_attempt
from activelr_service.runs.console import log_to
from activelr_service.runs.journal import read_journal
from activelr_service.service.launch import finish, resume
from activelr_service.service.prepare import read_info
from activelr_service.service.stopped import leave_best
from tests.conftest import activelr, mlflow_run
from tests.service.conftest import bits, cut_off

pytestmark = [pytest.mark.xdist_group("stopped"), pytest.mark.ray]


def test_a_stopped_run_is_finished_once_with_the_model_of_its_best_epoch(run):
    cut_off(run, 1)
    finish(run)
    state, (client, tracked) = run.state(), mlflow_run(run)
    reason = "ended by hand after epoch 1 of 2"
    assert (state["status"], state["reason"], state["best_epoch"]) == ("finished", reason, 1)
    assert (tracked.info.status, tracked.data.tags["activelr.reason"]) == ("FINISHED", reason)
    assert tracked.data.metrics["best/epoch"] == 1
    assert load_model(run.model).task == "classification"
    assert (
        client.get_model_version(*state["model_uri"].removeprefix("models:/").split("/")).run_id == tracked.info.run_id
    )
    assert f"run {run.label} finished ({reason}): best val/accuracy" in run.log.read_text()
    before, given = run.state(), contexts(tracked)
    assert given == ["training", "validation"]
    assert finish(run) == run
    assert run.state() == before, "the second time there is nothing to do"
    assert contexts(mlflow_run(run)[1]) == given
    assert run.log.read_text().splitlines()[-1].endswith(f"is finished ({reason}), and MLflow has all of it")


def contexts(tracked):
    """What the inputs of an MLflow run are for, one entry for each."""
    tags = [tag for given in tracked.inputs.dataset_inputs for tag in given.tags]
    return sorted(tag.value for tag in tags if tag.key == "mlflow.data.context")


def test_a_run_that_was_ended_by_hand_does_the_rest_when_its_length_is_given_again(run):
    whole = bits(run, 2)
    cut_off(run, 1)
    finish(run)
    registered = run.state()["model_uri"]
    resume(run)
    assert len(read_journal(run.journal)) == 1, "a plain resume leaves it as it is"
    resume(run, read_resolved_job(run.folder / "resolved.yaml", ["epochs=2"])[0])
    assert bits(run, 2) == whole
    assert (run.state()["status"], run.state()["reason"]) == ("finished", None)
    assert mlflow_run(run)[1].data.tags["activelr.reason"] == ""
    if run.state()["best_epoch"] == 2:
        assert run.state()["model_uri"] != registered
    with pytest.raises(JobError, match="has done 2 epochs"):
        resume(run, read_resolved_job(run.folder / "resolved.yaml", ["epochs=2"])[0])


def test_a_run_ended_by_hand_that_lost_its_model_gets_it_again_and_is_not_trained(run):
    cut_off(run, 1)
    finish(run)
    (run.model / "model.safetensors").write_bytes(b"")
    resume(run)
    assert load_model(run.model).task == "classification"
    assert run.state()["reason"] == "ended by hand after epoch 1 of 2"
    assert len(read_journal(run.journal)) == 1


def test_a_failed_run_is_finished_and_the_failure_is_still_said(run):
    cut_off(run, 1)
    run.update(status="failed", reason="run small/001 failed: the loss was not finite")
    finish(run)
    assert run.state()["reason"].startswith("ended by hand after epoch 1 of 2; before, it failed: ")


def test_what_cannot_be_finished_is_refused_with_the_remedy(run):
    cut_off(run, 0)
    with pytest.raises(CommandError, match=r"has no committed epoch.*; `activelr resume small/001` trains it"):
        finish(run)
    process = psutil.Process(os.getpid())
    run.update(status="running", pid=process.pid, pid_started=process.create_time(), host=socket.gethostname())
    with pytest.raises(CommandError, match=r"is being trained by process \d+ on .*: `activelr stop small/001`"):
        finish(run)


def test_a_stop_leaves_the_best_model_and_the_final_export_makes_it_anew(run, tmp_path):
    example = run.model / "example.parquet"
    cut_off(run, 1)
    lines = []
    leave_best(run, run.job(), read_info(run), start_attempt(run), lines.append)
    (line,) = lines
    assert line.startswith(
        f"  the best model so far, val/accuracy {run.state()['score']:.4f}, at epoch 1, is in {run.model}"
    )
    assert load_model(run.model).task == "classification"
    assert not example.exists(), "it needs a look at the data"
    run.update(status="interrupted")
    finish(run)
    assert example.exists()


def test_a_stop_before_the_first_epoch_says_that_there_is_no_model(run):
    cut_off(run, 0)
    lines = []
    leave_best(run, run.job(), read_info(run), start_attempt(run), lines.append)
    assert lines == ["  there is no model yet: no epoch is committed"]
    assert not run.model.exists()


def test_a_stop_that_cannot_export_says_so_and_goes_on(run):
    cut_off(run, 1)
    (run.checkpoints / "epoch-000001" / "model.safetensors").unlink()
    lines = []
    leave_best(run, run.job(), read_info(run), start_attempt(run), lines.append)
    assert lines[-1].startswith("  the best model so far is not exported: ")


def test_status_says_in_words_how_a_run_is_doing_and_what_can_be_done(run):
    cut_off(run, 1)
    log_to(run.log)("the last line")
    root = run.folder.parent.parent
    shown = activelr("status", "small", "--output-dir", root).stdout
    facts = [line.strip().split(maxsplit=1) for line in shown.splitlines()[1:]]
    found = {}
    for name, text in facts:
        found.setdefault(name, text)
    assert shown.startswith("small/001: interrupted")
    assert found["done"].startswith("epoch 1 of 2 (50 %), step 22, ")
    assert found["best"].endswith(", at epoch 1")
    assert found["trains"] == "mlp for classification with active_adamw, robust rule; batch 64: 1 x 64"
    assert found["data"] == "digits, 1,437 training, 360 validation samples"
    assert found["log"] == str(run.log)
    assert f"`activelr resume {run.folder}` continues it" in shown
    assert f"`activelr finish {run.folder}` ends it with the best model of its epochs" in shown
    assert "the last line" in shown
    run.update(status="running", host="another")
    assert '"status": "interrupted"' in activelr("status", run.folder, "--json").stdout
