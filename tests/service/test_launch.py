"""A job from its file to its end, with one worker in this process: what is kept, continued, refused."""

import io
import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from activelr_service.config import dump_job, parse_resolved_job
from activelr_service.errors import JobError, RunFailedError
from activelr_service.export.model import load_model
from activelr_service.runs.begin import lock_run
from activelr_service.runs.journal import read_journal
from activelr_service.runs.run import Run, find_run, list_runs
from activelr_service.service.launch import resume, train
from activelr_service.tracking.names import tracked_metric
from activelr_service.training.batch_size.choice import read_choice
from tests.conftest import ACTIVELR, PATIENCE_S, activelr, mlflow_run, small_job

pytestmark = pytest.mark.ray

ONE = {"num_workers": 1}
QUICK = {"workers": ONE, "global_batch_size": 64}


def wait_for_epoch(folder, epoch, process):
    deadline = time.monotonic() + PATIENCE_S
    while len(read_journal(folder / "journal.jsonl")) < epoch:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_finished_run_has_its_model_figures_and_everything_in_mlflow(tmp_path, capsys):
    run = train(small_job(tmp_path, **QUICK))
    client, tracked = mlflow_run(run)
    history = read_journal(run.journal)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["model.type"] == "mlp"
    assert tracked.data.params["global_batch_size"] == "64"
    assert tracked.data.params["derived.micro_batch_size"] == "64"
    assert tracked.data.params["derived.steps_per_epoch"] == "22"
    for name in (
        "train/loss",
        "val/accuracy",
        "optim/gain_mean",
        "optim/gain_q95",
        "optim/share_grew",
        "optim/grad_norm",
    ):
        points = client.get_metric_history(tracked.info.run_id, tracked_metric(name))
        assert [(p.step, p.value) for p in points] == [(r.epoch, r.metrics[name]) for r in history]
    assert tracked.info.run_name == "small/001"
    state, metrics = run.state(), tracked.data.metrics
    assert (metrics["best/accuracy"], metrics["best/epoch"]) == (state["score"], state["best_epoch"])
    groups = sorted({name.rpartition("/")[0] for name in metrics})
    assert groups == ["", "best", "train", "val", "weights", "workers"], "as MLflow groups and sorts them"
    uses = [{tag.key: tag.value for tag in given.tags} for given in tracked.inputs.dataset_inputs]
    assert sorted((use["mlflow.data.context"], use["num_rows"]) for use in uses) == [
        ("training", "1437"),
        ("validation", "360"),
    ]
    artifacts = {
        file.path
        for folder in (None, "figures", "model")
        for file in client.list_artifacts(tracked.info.run_id, folder)
    }
    assert {"resolved.yaml", "figures/learning_curves.png", "figures/updates.png"} <= artifacts
    assert {"model/model.safetensors", "model/recipe.json"} <= artifacts
    output = capsys.readouterr().out
    assert "global_batch_size = 64  (overridden by the job)" in output
    assert "epoch 3/3  loss" in output
    assert f"run small/001 finished: best val/accuracy {run.state()['score']:.4f}" in output


def test_a_registered_model_loads_back_with_one_call_and_keeps_its_accuracy(tmp_path, monkeypatch):
    import mlflow.pyfunc

    from activelr_service.data import build_data
    from activelr_service.data.bundled import raw_val_digits

    run = train(small_job(tmp_path, **QUICK))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", run.job().tracking.uri)
    module = load_model(run.state()["model_uri"])
    images, labels = build_data(run.job().data)[1].tensors
    accuracy = (module(images).argmax(1) == labels).float().mean().item()
    assert accuracy == pytest.approx(run.state()["score"])
    assert module.classes == tuple("0123456789")
    pictures = [Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8)) for digit in raw_val_digits()]
    answers = mlflow.pyfunc.load_model("models:/small@champion").predict(pd.DataFrame({"image": map(png, pictures)}))
    assert (answers["prediction"].astype(int) == labels.numpy()).mean() == pytest.approx(run.state()["score"])


def png(picture):
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def test_a_finished_run_is_left_alone_and_a_new_one_begins(tmp_path):
    first, second = (train(small_job(tmp_path, epochs=1, **QUICK)) for _ in range(2))
    assert (first.label, second.label) == ("small/001", "small/002")
    assert [run.status() for run in list_runs(tmp_path)] == ["finished", "finished"]
    assert first.state()["mlflow_run_id"] != second.state()["mlflow_run_id"]
    assert find_run(tmp_path, "small") == second
    assert resume(first) == first


def test_a_training_leaves_this_process_its_number_of_threads(tmp_path):
    before = torch.get_num_threads()
    run = train(few_rows(tmp_path, epochs=1, workers={**ONE, "cpus_per_worker": before + 1}))
    assert run.job().workers.cpus_per_worker == before + 1
    assert torch.get_num_threads() == before


def few_rows(folder, **changes):
    """A job of seconds that gives no batch size: of 64 rows, 8 at a time are the most it may have."""
    rng = np.random.default_rng(0)
    np.savez(folder / "rows.npz", x=rng.normal(size=(80, 4)).astype(np.float32), y=np.arange(80) % 3)
    return small_job(folder, **{"workers": ONE, "data": {"type": "npz", "path": str(folder / "rows.npz")}, **changes})


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """A run whose workers chose its batch size."""
    return train(few_rows(tmp_path_factory.mktemp("chosen")))


@pytest.mark.xdist_group("chosen")
def test_the_batch_size_that_was_chosen_and_why_is_in_the_log_in_mlflow_and_in_the_checkpoint(chosen):
    run, log, choice = chosen, chosen.log.read_text(), read_choice(chosen.batch_size)
    reason = "the smallest, though the run has few samples: 192"
    lines = [
        f"  global_batch_size = at most 8  (probed when the workers start; {reason})\n",
        f"  global_batch_size = 8  (probed: {reason})\n",
        "  grad_accum_steps = 1  (8 samples at a time on each of 1 workers)\n",
        f"    {choice.tried[0]}\n",
        "epoch 1/3  loss",
    ]
    places = [log.index(line) for line in lines]
    assert places == sorted(places)
    client, tracked = mlflow_run(run)
    sizes = {name: value for name, value in tracked.data.params.items() if "batch_size" in name or "steps" in name}
    assert sizes == {
        "global_batch_size": "8",
        "grad_accum_steps": "1",
        "derived.micro_batch_size": "8",
        "derived.steps_per_epoch": "8",
    }
    assert tracked.data.tags["activelr.why.global_batch_size"] == f"probed: {reason}"
    assert "batch_size.json" in {file.path for file in client.list_artifacts(tracked.info.run_id)}
    manifest = json.loads((run.checkpoints / "epoch-000003" / "manifest.json").read_text())
    assert manifest["batch_size"] == choice.to_json()


@pytest.mark.xdist_group("chosen")
def test_the_resolved_job_has_the_batch_size_that_was_chosen_and_trains_to_the_same_bits(chosen):
    assert (chosen.job().global_batch_size, chosen.job().grad_accum_steps) == (8, 1)
    again = train(chosen.job())
    assert again.label == "small/002"
    assert not again.batch_size.exists(), "it gives its batch size, so nothing is probed"
    assert bits(again, 3) == bits(chosen, 3)


def test_a_driver_that_died_between_the_choice_and_the_resolved_job_is_made_up_for(tmp_path, capsys):
    run = train(few_rows(tmp_path))
    whole, chosen = bits(run, 3), run.batch_size.stat().st_mtime_ns
    sizes = {"global_batch_size": None, "grad_accum_steps": None}
    run.write_jobs(run.written_job(), parse_resolved_job({**run.job().model_dump(mode="json"), **sizes}))
    run.update(status="interrupted")
    shutil.rmtree(run.checkpoints / "epoch-000003")
    capsys.readouterr()
    resume(run)
    output = capsys.readouterr().out
    assert output.index("continued after epoch 2/3") < output.index("global_batch_size = 8  (probed: ")
    assert "epoch 1/3" not in output
    assert run.job().global_batch_size == 8
    assert run.batch_size.stat().st_mtime_ns == chosen, "a resume does not probe again"
    assert bits(run, 3) == whole


def bits(run, epoch):
    path = run.checkpoints / f"epoch-{epoch:06d}"
    return [(path / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]


ENDED_EARLY = {"epochs": 12, "global_batch_size": 64, "model": {"type": "mlp", "hidden": [512, 512]}, "workers": ONE}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = train(small_job(tmp_path_factory.mktemp("whole"), **ENDED_EARLY))
    assert "MLFLOW_TRACKING_URI" not in os.environ, "a training leaves the process as it was"
    return run


@pytest.mark.xdist_group("whole")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["killed", "stopped", "ctrl-c"])
def test_a_run_that_ended_early_is_continued_in_the_same_mlflow_run_to_the_same_bits(tmp_path, whole, sent):
    job = small_job(tmp_path, **ENDED_EARLY)
    (tmp_path / "job.yaml").write_text(dump_job(job))
    process = subprocess.Popen([*ACTIVELR, "train", str(tmp_path / "job.yaml")], stdout=subprocess.DEVNULL)
    run = Run(tmp_path / "small" / "001")
    wait_for_epoch(run.folder, 2, process)
    process.send_signal(sent)
    process.wait(timeout=PATIENCE_S)
    run_id = run.state()["mlflow_run_id"]
    assert run.status() == "interrupted"
    if sent == signal.SIGKILL:
        assert not run.model.exists()
    else:
        assert process.returncode == 128 + sent
        tracked = mlflow_run(run)[1]
        assert tracked.info.status == "KILLED"
        assert tracked.data.metrics["best/accuracy"] == run.state()["score"]
        assert "  the best model so far, val/accuracy " in run.log.read_text().splitlines()[-1]
        assert load_model(run.model).task == "classification"
        assert run.state().get("model_uri") is None, "it is registered when the run is finished"
    with pytest.raises(JobError, match=r"run small/001 is unfinished and its job differs \(seed: 0 -> 1\)"):
        train(job.model_copy(update={"seed": 1}))
    assert train(job) == run
    assert run.state()["mlflow_run_id"] == run_id
    assert run.state()["attempts"] == 2
    client, tracked = mlflow_run(run)
    assert tracked.info.status == "FINISHED"
    assert len(client.get_metric_history(run_id, "train/loss")) == 12
    for name in ("model.safetensors", "optimizer.safetensors"):
        path = f"checkpoints/epoch-000012/{name}"
        assert (run.folder / path).read_bytes() == (whole.folder / path).read_bytes()


def test_a_loss_that_is_not_finite_fails_the_run_once_and_says_why(tmp_path):
    job = small_job(tmp_path, **QUICK, optimizer={"type": "sgd", "lr": 1e30})
    with pytest.raises(RunFailedError, match="NonFiniteLossError: the loss was not finite at epoch 1, step") as caught:
        train(job)
    assert caught.value.exit_code == 3
    run = find_run(tmp_path, "small")
    assert run.status() == "failed"
    assert json.loads(run.failure.read_text())["rank"] == 0
    assert mlflow_run(run)[1].info.status == "FAILED"
    assert train(small_job(tmp_path, **QUICK)).label == "small/002", "a failed run does not stand in the way"


def test_two_drivers_of_one_name_do_not_meet(tmp_path):
    with lock_run(tmp_path, "small"), pytest.raises(JobError, match="'small' is being trained"):
        train(small_job(tmp_path, **QUICK))


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JobError, match="output_dir"):
        train(small_job(tmp_path / "file", **QUICK))


def test_a_run_without_a_valid_checkpoint_is_not_begun_again_in_silence(tmp_path):
    run = train(small_job(tmp_path, **QUICK))
    run.update(status="interrupted")
    for manifest in run.checkpoints.glob("*/manifest.json"):
        manifest.write_text("{}")
    with pytest.raises(RunFailedError, match="no valid checkpoint left") as caught:
        resume(run)
    assert caught.value.exit_code == 4


def test_the_commands_speak_of_a_run_and_secrets_of_the_environment_are_written_nowhere(tmp_path):
    environment = {**os.environ, "MLFLOW_TRACKING_PASSWORD": "canary-1234", "AWS_SECRET_ACCESS_KEY": "canary-1234"}
    (tmp_path / "job.yaml").write_text(dump_job(small_job(tmp_path, **QUICK)))
    trained = activelr("train", tmp_path / "job.yaml", env=environment)
    assert trained.returncode == 0, trained.stderr
    assert "canary-1234" not in trained.stdout + trained.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"canary-1234" not in path.read_bytes(), path
    run, options = find_run(tmp_path, "small"), ("--output-dir", tmp_path)
    assert "small/001  finished  3/3" in activelr("list", *options).stdout
    assert activelr("status", "small", *options).stdout.startswith("small/001: finished\n")
    assert "epoch 3/3" in activelr("logs", "small/001", *options).stdout
    measured = json.loads(activelr("evaluate", "small", "--json", *options).stdout)["validation"]
    assert (measured["rows"], measured["accuracy"]) == (360, pytest.approx(run.state()["score"]))
    missing = activelr("status", "nothing", *options)
    assert missing.returncode == 2
    assert "no run 'nothing'" in missing.stderr
    assert "names there: small" in missing.stderr
