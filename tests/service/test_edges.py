"""The edges of a run: what the machine, the data and other hands do to it between its start and its end."""

import json
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from activelr_service.config import dump_job
from activelr_service.errors import JobError, RunDamagedError, RunFailedError
from activelr_service.runs.journal import read_journal
from activelr_service.runs.run import Run, find_run, list_runs, runs_of
from activelr_service.service.launch import resume, train
from activelr_service.service.prepare import read_info
from activelr_service.tracking.store import embedded_store
from tests.conftest import ACTIVELR, PATIENCE_S, activelr, mlflow_run, small_job
from tests.service.conftest import QUICK, bits, cut_off, rows_job

pytestmark = pytest.mark.ray


@pytest.mark.xdist_group("edges")
def test_a_finished_run_whose_model_is_gone_gets_it_again_without_its_data_or_a_new_training(run, capsys):
    before = (run.model / "model.safetensors").read_bytes()
    shutil.rmtree(run.model)
    capsys.readouterr()
    resume(run)
    assert (run.model / "model.safetensors").read_bytes() == before
    assert "loss" not in capsys.readouterr().out, "nothing is trained"


@pytest.mark.xdist_group("edges")
def test_a_model_of_which_half_was_written_is_not_called_a_model(run):
    whole = (run.model / "model.safetensors").read_bytes()
    (run.model / "model.safetensors").write_bytes(b"")
    run.update(tracked=False, model_uri=None)
    resume(run)
    assert (run.model / "model.safetensors").read_bytes() == whole
    assert run.state()["model_uri"].startswith("models:/small/")


@pytest.mark.xdist_group("edges")
def test_a_best_checkpoint_that_is_damaged_is_not_exported_and_that_is_said(run, capsys):
    best = run.state()["best_epoch"]
    path = run.checkpoints / f"epoch-{best:06d}" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    shutil.rmtree(run.model)
    resume(run)
    said = capsys.readouterr().out
    assert "model.safetensors: size or SHA-256 differs from the manifest" in said
    assert run.state()["status"] == "finished"


@pytest.mark.xdist_group("edges")
def test_checkpoints_that_were_removed_are_an_error_and_not_epoch_0(run):
    cut_off(run, 1)
    shutil.rmtree(run.checkpoints)
    run.checkpoints.mkdir()
    with pytest.raises(RunFailedError, match="has epochs behind it and no valid checkpoint left") as caught:
        resume(run)
    assert caught.value.exit_code == 4


@pytest.mark.xdist_group("edges")
def test_a_damaged_journal_is_written_anew_by_resume_and_hides_no_other_run(run):
    whole = bits(run, 2)
    cut_off(run, 1)
    run.journal.write_bytes(b"\0" * 100 + b"\n" + run.journal.read_bytes())
    listed = activelr("list", "--output-dir", run.folder.parent.parent)
    assert listed.returncode == 0, listed.stderr
    assert "damaged" in listed.stdout
    resume(run)
    assert [record.epoch for record in read_journal(run.journal)] == [1, 2]
    assert bits(run, 2) == whole


@pytest.mark.xdist_group("edges")
@pytest.mark.parametrize("content", ["", "{", "[1]", '{"attempts": 1}', "\0\0"])
def test_a_run_whose_state_cannot_be_read_is_named_and_hides_no_other(run, content):
    copy = Run(run.folder.parent / "002")
    shutil.copytree(run.folder, copy.folder)
    shutil.copytree(run.folder, run.folder.parent / "001.bak")
    (copy.folder / "run.json").write_text(content)
    with pytest.raises(RunDamagedError, match=r"run small/002 is damaged: run.json: .*; restore the file, or move"):
        copy.status()
    assert [each.label for each in runs_of(run.folder.parent)] == ["small/001", "small/002"], "a backup is no run"
    assert len(list_runs(run.folder.parent.parent)) == 2


@pytest.mark.xdist_group("edges")
def test_a_driver_that_died_before_it_knew_its_mlflow_run_takes_it_up_again(run):
    run_id = run.state()["mlflow_run_id"]
    cut_off(run, 1)
    state = {key: value for key, value in run.state().items() if key != "mlflow_run_id"}
    (run.folder / "run.json").write_text(json.dumps(state))
    resume(run)
    assert run.state()["mlflow_run_id"] == run_id
    assert mlflow_run(run)[1].info.status == "FINISHED"


@pytest.mark.xdist_group("edges")
def test_a_run_that_was_deleted_in_mlflow_is_begun_anew_there_and_that_is_said(run, capsys):
    client, tracked = mlflow_run(run)
    client.delete_run(tracked.info.run_id)
    cut_off(run, 1)
    resume(run)
    assert "a new MLflow run is begun, with all epochs" in capsys.readouterr().out
    again = run.state()["mlflow_run_id"]
    assert again != tracked.info.run_id
    assert [point.step for point in client.get_metric_history(again, "val/loss")] == [1, 2]
    client.restore_run(tracked.info.run_id)


def test_outputs_that_were_moved_are_resumed_where_they_are_now(tmp_path, capsys):
    first = train(small_job(tmp_path / "before", **QUICK))
    whole = bits(first, 2)
    cut_off(first, 1)
    shutil.move(tmp_path / "before", tmp_path / "after")
    run = find_run(tmp_path / "after", "small")
    resume(run)
    said = capsys.readouterr().out
    assert f"its output directory was moved from {tmp_path / 'before'} to {tmp_path / 'after'}" in said
    assert bits(run, 2) == whole
    assert run.job().tracking.uri == embedded_store(tmp_path / "after")
    client, tracked = mlflow_run(run)
    assert tracked.info.status == "FINISHED"
    files = {file.path for file in client.list_artifacts(tracked.info.run_id)}
    assert "resolved.yaml" in files
    assert not (tmp_path / "before").exists(), "nothing is written where the outputs were"


def test_data_that_changed_are_refused_and_what_was_there_is_kept(tmp_path):
    job, arrays = rows_job(tmp_path)
    run = train(job)
    cut_off(run, 1)
    arrays["x"][0, 0] += 1
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(
        JobError, match=r"data: the data of run small/001 have changed since it began: .*; restore them"
    ):
        train(job)
    np.savez(tmp_path / "rows.npz", **{name: array[:-1] for name, array in arrays.items()})
    with pytest.raises(JobError, match="have changed since it began"):
        resume(run)
    assert read_journal(run.journal)[-1].epoch == 1
    rows_job(tmp_path)
    assert resume(run).status() == "finished"


def test_a_model_is_not_measured_on_its_data_once_they_changed(tmp_path):
    job, arrays = rows_job(tmp_path)
    train(job)
    np.savez(tmp_path / "rows.npz", **{name: np.concatenate([array, array[:1]]) for name, array in arrays.items()})
    measured = activelr("evaluate", "small", "--output-dir", tmp_path / "out")
    assert measured.returncode == 2
    assert "have changed since it began" in measured.stderr
    assert "--set data." in measured.stderr


def test_what_the_data_are_is_in_the_log_with_the_run_and_in_mlflow(tmp_path):
    job, _ = rows_job(tmp_path)
    run = train(job)
    info = read_info(run)
    assert info.notes
    log, tags = run.log.read_text(), mlflow_run(run)[1].data.tags
    for line in info.notes:
        assert line in log
        assert line in tags["mlflow.note.content"]
    assert json.loads(run.data.read_text())["fingerprint"]["files"] == 1


def test_a_disk_that_is_full_interrupts_a_run_and_the_same_job_continues_it(tmp_path):
    job = small_job(tmp_path, **{**QUICK, "model": {"type": "mlp", "hidden": [512, 512]}})
    (tmp_path / "job.yaml").write_text(dump_job(job))

    def limit_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))

    command = [*ACTIVELR, "train", str(tmp_path / "job.yaml")]
    full = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, preexec_fn=limit_files
    )
    assert full.returncode == 7, full.stderr
    assert "cannot be written" in full.stderr
    assert "what was committed is kept" in full.stderr
    run = find_run(tmp_path, "small")
    assert run.status() == "interrupted"
    assert not list(run.checkpoints.glob(".epoch-*")), "what could not be written does not fill the disk"
    assert train(job) == run
    assert run.status() == "finished"


def test_a_score_that_is_never_finite_is_no_crash(tmp_path, capsys):
    run = train(small_job(tmp_path, **{**QUICK, "epochs": 1}))
    run.update(status="running", pid=2**22 + 1, model_uri=None, tracked=False)
    history = read_journal(run.journal)
    history[0].metrics.pop("val/accuracy")
    state = run.checkpoints / "epoch-000001" / "state.json"
    kept = json.loads(state.read_text())
    kept["record"]["metrics"].pop("val/accuracy")
    state.write_text(json.dumps(kept))
    manifest = run.checkpoints / "epoch-000001" / "manifest.json"
    described = json.loads(manifest.read_text())
    from activelr_service.training.checkpoint_files import _describe

    described["files"]["state.json"] = _describe(state)
    manifest.write_text(json.dumps(described))
    resume(run)
    assert "best val/accuracy was never finite, at epoch 1" in capsys.readouterr().out


def test_a_run_is_not_active_because_another_process_has_its_number(tmp_path):
    run = train(small_job(tmp_path, **{**QUICK, "epochs": 1}))
    run.update(status="running")
    assert run.is_active(), "this process is still here"
    run.update(pid_started=run.state()["pid_started"] - 100)
    assert not run.is_active()
    assert run.status() == "interrupted"


def test_a_run_keeps_nothing_of_a_start_that_its_tracking_server_refused(tmp_path):
    job = small_job(tmp_path, **QUICK, tracking={"uri": "http://127.0.0.1:9"})
    with pytest.raises(RuntimeError, match="MLflow at"):
        train(job)
    assert not [path for path in Path(tmp_path / "small").iterdir() if path.name != ".lock"]
