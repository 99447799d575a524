"""A process may be killed at any file operation of a run's start, checkpoints, end and delivery: the next mends it."""

import shutil

import pytest
from safetensors.torch import load_file

from activelr_service.export.model import load_model
from activelr_service.runs.begin import create_run, start_attempt
from activelr_service.runs.journal import read_journal
from activelr_service.runs.run import runs_of
from activelr_service.service import finish, track
from activelr_service.service.launch import resume, train
from activelr_service.service.prepare import prepare, read_info, write_data
from activelr_service.training.checkpoint_files import verify
from tests.conftest import mlflow_run, small_job
from tests.cut import KNIFE, kill_everywhere, stopped_after
from tests.training.test_loop import assert_identical, final_tensors, resolved
from tests.training.test_loop import train as train_loop

pytestmark = [pytest.mark.xdist_group("cut"), pytest.mark.ray]
QUICK = {"workers": {"num_workers": 1}, "global_batch_size": 256, "epochs": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(small_job(tmp_path_factory.mktemp("cut"), **QUICK))


def test_a_start_that_is_cut_off_leaves_no_half_of_a_run(tmp_path):
    job = small_job(tmp_path, **QUICK)
    prepared = prepare(job)
    folder = tmp_path / "small"
    folder.mkdir()

    def start():
        data = write_data(prepared.job, prepared.info)
        start_attempt(create_run(folder, job, prepared.job, data, prepared.state()))

    def check(operations):
        for run in runs_of(folder):
            assert run.status() in ("running", "interrupted")
            assert (run.job(), run.written_job()) == (prepared.job, job)
            assert read_info(run) == prepared.info
        shutil.rmtree(folder)
        folder.mkdir()

    assert len(kill_everywhere(tmp_path, start, check)) > 10


def test_an_epoch_that_is_cut_off_while_it_is_committed_ends_on_the_same_bits(tmp_path):
    job = resolved(small_job(tmp_path, **QUICK))
    train_loop(job, tmp_path / "whole")
    expected, history = final_tensors(tmp_path / "whole", 2), read_journal(tmp_path / "whole" / "journal.jsonl")
    folder = tmp_path / "cut"

    def check(operations):
        train_loop(job, folder)
        assert_identical(final_tensors(folder, 2), expected)
        assert [record.epoch for record in read_journal(folder / "journal.jsonl")] == [r.epoch for r in history]
        assert verify(folder / "checkpoints" / "epoch-000002") is None
        assert not list((folder / "checkpoints").glob("*.corrupt*"))
        shutil.rmtree(folder)
        folder.mkdir()

    folder.mkdir()
    assert len(kill_everywhere(folder, lambda: train_loop(job, folder), check)) > 10


def test_an_end_that_is_cut_off_is_made_up_for_by_resume(finished):
    run, whole = finished, finished.state()
    weights = load_file(run.model / "model.safetensors")

    def unfinish():
        run.update(status="running", pid=0, score=None, best_epoch=None)
        for folder in (run.model, run.figures):
            shutil.rmtree(folder)

    def end():
        finish.export_results(run, run.job(), read_info(run), print)
        run.update(status="finished")

    def check(operations):
        state = run.state()
        assert state["status"] == "running" or finish.has_model(run), "a finished run has its model"
        end()
        assert {**run.state(), "pid": whole["pid"]} == whole
        assert_identical(load_file(run.model / "model.safetensors"), weights)
        figures = ["confusion.csv", "confusion.png", "learning_curves.png", "updates.png"]
        assert sorted(path.name for path in run.figures.iterdir()) == figures
        assert load_model(run.model).task == "classification"
        unfinish()

    unfinish()
    assert len(kill_everywhere(run.folder, end, check)) > 10
    end()
    run.update(pid=whole["pid"])


def test_a_delivery_that_is_cut_off_registers_one_complete_model_and_doubles_nothing(finished):
    run, root = finished, finished.folder.parent.parent
    client, tracked = mlflow_run(run)
    first = client.search_model_versions(f"run_id = '{tracked.info.run_id}'")
    assert len(first) == 1
    tracker = track.open_run_tracker(run, run.job(), read_info(run), print)

    def models():
        found = client.search_logged_models([tracked.info.experiment_id])
        return [model for model in found if model.source_run_id == tracked.info.run_id]

    def deliver():
        track.sync_to_tracking(run, tracker, "finished")

    def forget():
        for version in client.search_model_versions(f"run_id = '{tracked.info.run_id}'"):
            client.delete_model_version(version.name, version.version)
        for model in models():
            client.delete_logged_model(model.model_id)
        run.update(model_uri=None, tracked=False)

    def check(operations):
        deliver()
        versions = client.search_model_versions(f"run_id = '{tracked.info.run_id}'")
        assert [f"models:/small/{version.version}" for version in versions] == [run.state()["model_uri"]]
        assert [model.status.value for model in models()] == ["READY"]
        assert run.state()["tracked"]
        assert len(client.get_metric_history(tracked.info.run_id, "val/loss")) == 2
        forget()

    forget()
    assert len(kill_everywhere(root, deliver, check)) > 20
    deliver()


@pytest.mark.slow
def test_a_signal_anywhere_in_the_end_of_a_run_is_said_and_leaves_it_interrupted_here_and_in_mlflow(finished):
    run = finished
    for operations in range(0, 1000, 7):
        run.update(status="interrupted", tracked=False)
        mlflow_run(run)[0].set_terminated(run.state()["mlflow_run_id"], "KILLED")
        with stopped_after(operations, run.folder):
            resume(run)
        if not KNIFE.is_dead:
            break
        if run.state()["status"] == "finished":
            continue
        assert run.status() == "interrupted"
        assert mlflow_run(run)[1].info.status == "KILLED"
        assert "is interrupted" in "".join(run.log.read_text().splitlines()[-2:])
        assert load_model(run.model).task == "classification"
    assert operations > 20
    assert (run.state()["status"], mlflow_run(run)[1].info.status) == ("finished", "FINISHED")
