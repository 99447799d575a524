"""Early stopping: decided by the records, decayed from the best epoch, and continued to the same bits."""

import numpy as np
import pytest

from activelr_service.errors import JobError
from activelr_service.runs.record import best_epoch, describe_early_stop
from activelr_service.service.launch import resume
from activelr_service.service.launch import train as train_job
from tests.conftest import mlflow_run, small_job
from tests.ranks import run_ranks
from tests.training.test_loop import assert_identical, final_tensors, resolved, train, train_an_epoch
from tests.training.test_within_epoch import measured, train_until

pytestmark = pytest.mark.slow

OPTIMIZERS = {
    "robust": {"type": "active_adamw"},
    "paper": {"type": "active_sgd", "rule": "paper", "lr": 0.05},
    "cosine": {"type": "adamw", "lr": 3e-3, "schedule": "cosine"},
    "wsd": {"type": "sgd", "lr": 0.02, "schedule": "wsd"},
    "constant": {"type": "adamw", "lr": 3e-3},
    "schedule-free": {"type": "schedule_free_adamw"},
}


def noisy(folder, seed=0):
    """Four classes that overlap, with a label in seven wrong: what can be learned is learned in few epochs."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, 600)
    x = (rng.normal(size=(4, 20))[y] * 0.55 + rng.normal(size=(600, 20))).astype(np.float32)
    wrong = rng.random(600) < 0.15
    y[wrong] = rng.integers(0, 4, wrong.sum())
    np.savez(folder / "noisy.npz", x=x, y=y)
    return {"type": "npz", "path": str(folder / "noisy.npz")}


def noisy_job(folder, num_workers=1, **changes):
    job = {
        "epochs": 60,
        "global_batch_size": 32,
        "early_stop": {"patience": 3},
        "model": {"type": "mlp", "hidden": [64]},
    }
    return resolved(small_job(folder, data=noisy(folder), **{**job, **changes}), num_workers)


def best_of(history):
    return best_epoch(history, "accuracy", higher_is_better=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_without_a_better_score_goes_back_decays_and_ends_with_an_epoch_as_good_as_the_best(
    tmp_path, name, capsys
):
    training, history = train(noisy_job(tmp_path, optimizer=OPTIMIZERS[name]), tmp_path)
    best, last = best_of(history[:-1]), history[-1]
    assert len(history) < 40
    assert last.ended == "60 epochs"
    assert last.metrics["optim/progress"] == 1
    assert last.metrics["val/loss"] < 1.05 * history[best - 1].metrics["val/loss"]
    assert last.metrics["val/loss"] <= history[-2].metrics["val/loss"], (
        "the epoch of the decision has learned the noise"
    )
    out = capsys.readouterr().out
    assert f"early stop: val/accuracy has not improved for 3 epochs; the run goes back to epoch {best}, its best" in out
    text = f"early stop with epoch {last.epoch}, before 60 epochs: val/accuracy had not improved for 3 epochs"
    assert describe_early_stop(last, training.job, "val/accuracy") == text


@pytest.mark.parametrize("name", ["robust", "constant"])
def test_stopped_and_killed_within_the_decay_it_ends_bit_for_bit_as_the_one_never_stopped(tmp_path, name):
    job = noisy_job(tmp_path, optimizer=OPTIMIZERS[name], checkpoint_every={"steps": 4})
    _, history = train(job, tmp_path / "whole")
    decision = next(record for record in history if "optim/steps_left" in record.metrics or record.ended).epoch - 1
    for _ in range(decision):
        train_an_epoch(job, tmp_path / "parts")
    for steps in (1, 7):
        assert train_until(job, tmp_path / "parts", history[decision - 1].global_step + steps)
    _, resumed = train(job, tmp_path / "parts")
    assert measured(resumed) == measured(history)
    assert_identical(*(final_tensors(tmp_path / folder, len(history)) for folder in ("whole", "parts")))
    assert train(job, tmp_path / "parts")[1] == resumed, "what has ended is not gone on with"


def scores(rank, job, folder):
    _, history = train(job, folder)
    return [record.metrics["val/accuracy"] for record in history], history[-1].ended


def test_two_ranks_stop_at_the_same_epoch(tmp_path):
    first, second = run_ranks(scores, 2, tmp_path, noisy_job(tmp_path, 2, early_stop={"patience": 1}), tmp_path)
    assert first == second
    assert first[1] == "60 epochs"


def test_a_budget_of_time_stops_early_too_and_a_run_whose_end_is_near_does_not(tmp_path):
    timed = noisy_job(tmp_path, epochs=None, budget={"time": "1h"})
    _, history = train(timed, tmp_path / "timed")
    assert (history[-1].ended, history[-1].metrics["optim/progress"]) == ("1h", 1)
    constant = OPTIMIZERS["constant"]  # its steps depend on no length
    _, history = train(noisy_job(tmp_path, optimizer=constant), tmp_path / "long")
    _, short = train(noisy_job(tmp_path, optimizer=constant, epochs=len(history)), tmp_path / "short")
    assert len(short) == len(history)
    assert short[-1].ended is None


def test_a_run_that_stopped_early_is_finished_said_and_can_be_made_longer(tmp_path):
    job = small_job(
        tmp_path,
        data=noisy(tmp_path),
        epochs=60,
        global_batch_size=32,
        early_stop={"patience": 2},
        log_every={"steps": 20},
        workers={"num_workers": 1},
    )
    run = train_job(job)
    text = run.state()["early_stop"]
    assert text.endswith("before 60 epochs: val/accuracy had not improved for 2 epochs")
    assert text in run.log.read_text()
    assert mlflow_run(run)[1].data.tags["activelr.early_stop"] == text
    assert run.status() == "finished"
    with pytest.raises(JobError, match="early stopping has ended it there: give another length, got 60 epochs"):
        resume(run, run.job())
    resume(run, run.job().lasting(job.model_copy(update={"epochs": 70}).duration))
    assert run.status() == "finished"
    assert "before 70 epochs" in run.state()["early_stop"]
    client, tracked = mlflow_run(run)
    steps = [metric.step for metric in client.get_metric_history(tracked.info.run_id, "train/loss_by_step")]
    assert len(steps) > 5
    assert steps == sorted(set(steps)), "what was delivered while it ran is not doubled"
    assert all(step % 20 == 0 for step in steps)
    assert train_job(job).label == "small/002", "the same job begins a new run"
