"""Within an epoch: a training killed at any step ends as the one never killed, and what is watched does not change it."""

import signal
import subprocess
import sys

import numpy as np
import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook

from activelr_service.config import dump_job
from activelr_service.data import inspect_data
from activelr_service.errors import NonFiniteLossError
from activelr_service.runs.journal import read_journal
from activelr_service.runs.live import read_live
from activelr_service.training.build import build_training
from activelr_service.training.checkpoint import Place
from activelr_service.training.loop import fit
from tests.conftest import PATIENCE_S, small_job
from tests.data.generate_images import write_images
from tests.ranks import run_ranks
from tests.training.test_loop import CPU, IMAGES, assert_identical, final_tensors, resolved, store, train

pytestmark = pytest.mark.slow

NOISY = ("perf/", "pace")  # metrics that are times


class StoppedError(Exception):
    pass


def train_until(job, folder, steps):
    """Train a resolved job in this process until just before its step of this number in the run; whether it got there."""
    training = build_training(job, inspect_data(job.data), CPU)

    def stop(optimizer, *_):
        if optimizer is training.optimizer and training.progress.step == steps:
            raise StoppedError

    hook = register_optimizer_step_pre_hook(stop)
    try:
        fit(training, store(folder), lambda record: None)
    except StoppedError:
        return True
    finally:
        hook.remove()
    return False


def measured(records):
    """What the records hold, but for times."""
    return [{name: value for name, value in record.metrics.items() if not name.startswith(NOISY)} for record in records]


def write_arrays(folder):
    rng = np.random.default_rng(0)
    np.savez(folder / "images.npz", x=rng.normal(size=(120, 3, 8, 8)).astype(np.float32), y=rng.integers(0, 4, 120))


EVERY = {"checkpoint_every": {"steps": 3}}
CHANGES = {
    "adamw under the robust rule": {},
    "dropout, accumulation and gradient norms": {**IMAGES, "grad_accum_steps": 2, "log_grad_norms": True},
    "a budget of steps, and evaluations": {
        "epochs": None,
        "budget": {"steps": 30},
        "evaluate_every": {"steps": 4},
        "log_every": {"steps": 2},
    },
    "the paper's rule and momentum": {"optimizer": {"type": "active_sgd", "momentum": 0.9, "rule": "paper"}},
    "schedule-free, with evaluations": {"optimizer": {"type": "schedule_free_adamw"}, "evaluate_every": {"steps": 5}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_training_killed_at_random_steps_ends_bit_for_bit_as_the_one_never_killed(
    tmp_path, monkeypatch, name, capsys
):
    monkeypatch.chdir(tmp_path)
    write_arrays(tmp_path)
    job = resolved(small_job(tmp_path, **{"epochs": 2, **EVERY, **CHANGES[name]}))
    training, history = train(job, tmp_path / "whole")
    total = training.progress.step
    for step in sorted(np.random.default_rng(len(name)).choice(total, 4, replace=False)):
        assert train_until(job, tmp_path / "parts", step)
    _, resumed = train(job, tmp_path / "parts")
    assert_identical(final_tensors(tmp_path / "whole", 2), final_tensors(tmp_path / "parts", 2))
    assert measured(resumed) == measured(history)
    assert "goes on after step" in capsys.readouterr().out
    assert not any(place.steps for place in store(tmp_path / "parts").places()), "what was within an epoch is removed"


def test_what_happens_within_an_epoch_changes_no_bit_of_the_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_arrays(tmp_path)
    watched = {**EVERY, "evaluate_every": {"steps": 2}, "log_every": {"steps": 1}}
    histories = [
        train(resolved(small_job(tmp_path, epochs=1, **IMAGES, **changes)), tmp_path / folder)[1]
        for folder, changes in (("plain", {}), ("watched", watched))
    ]
    assert_identical(final_tensors(tmp_path / "plain", 1), final_tensors(tmp_path / "watched", 1))
    assert measured(histories[0]) == measured(histories[1])


def test_killed_with_loader_processes_that_draw_crops_it_goes_on_with_their_random_numbers(tmp_path):
    write_images(tmp_path / "data" / "train", count=12)
    write_images(tmp_path / "data" / "val", count=2)
    data = {"type": "imagefolder", "root": str(tmp_path / "data"), "image_size": 16}
    changes = {"global_batch_size": 2, "workers": {"num_loader_workers": 3}, "checkpoint_every": {"steps": 1}}
    job = resolved(small_job(tmp_path, epochs=1, data=data, **changes))
    _, history = train(job, tmp_path / "whole")
    for step in (2, 5, 6, 11):  # before every process has given a batch, and later; 6 goes on from a resumed epoch
        assert train_until(job, tmp_path / "parts", step)
    _, resumed = train(job, tmp_path / "parts")
    assert_identical(final_tensors(tmp_path / "whole", 1), final_tensors(tmp_path / "parts", 1))
    assert measured(resumed) == measured(history)


def train_in_parts(rank, job, folder):
    """Whole, and in parts on two ranks; the records of both."""
    _, history = train(job, folder / "whole")
    stopped = [train_until(job, folder / "parts", step) for step in (3, 8)]
    _, resumed = train(job, folder / "parts")
    return stopped, measured(history) == measured(resumed)


def test_two_ranks_killed_within_an_epoch_end_as_those_never_killed(tmp_path):
    write_arrays(tmp_path)
    data, always = {"type": "npz", "path": str(tmp_path / "images.npz")}, {"minutes": 1e-6}
    changes = {**IMAGES, "data": data, "grad_accum_steps": 2, "checkpoint_every": always, "log_every": always}
    job = resolved(small_job(tmp_path, epochs=2, **changes), 2)
    assert run_ranks(train_in_parts, 2, tmp_path, job, tmp_path) == [([True] * 2, True)] * 2
    assert_identical(final_tensors(tmp_path / "whole", 2), final_tensors(tmp_path / "parts", 2))


KILLED = """
import os, signal, sys
from pathlib import Path
from torch.optim.optimizer import register_optimizer_step_pre_hook
from activelr_service.config import read_resolved_job
from tests.training.test_loop import train
job = read_resolved_job(sys.argv[1])[0].complete(64, 1)
steps = iter(range(int(sys.argv[3])))
def kill(*_):
    if next(steps, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
register_optimizer_step_pre_hook(kill)
train(job, Path(sys.argv[2]))
"""


def test_a_process_killed_with_kill_9_goes_on_within_its_epoch(tmp_path):
    job = resolved(small_job(tmp_path, epochs=2, **EVERY))
    (tmp_path / "job.yaml").write_text(dump_job(job))
    train(job, tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, tmp_path / "job.yaml", tmp_path / "parts", "17"]
    assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode == -signal.SIGKILL
    assert store(tmp_path / "parts").find_valid() == Place(0, 15)
    train(job, tmp_path / "parts")
    assert_identical(final_tensors(tmp_path / "whole", 2), final_tensors(tmp_path / "parts", 2))


def test_a_damaged_checkpoint_within_an_epoch_is_set_aside_and_the_epoch_begins_anew(tmp_path, capsys):
    job = resolved(small_job(tmp_path, epochs=2, **EVERY))
    train(job, tmp_path / "whole")
    for step, expected in ((4, Place(0, 3)), (30, Place(1, 8))):
        assert train_until(job, tmp_path / "parts", step)
        assert store(tmp_path / "parts").find_valid() == expected
        (store(tmp_path / "parts").path(expected) / "model.safetensors").write_bytes(b"")
    train(job, tmp_path / "parts")
    assert_identical(final_tensors(tmp_path / "whole", 2), final_tensors(tmp_path / "parts", 2))
    assert "epoch-000002-step-000008 is set aside: model.safetensors" in capsys.readouterr().out


def test_epochs_shorter_than_the_interval_leave_no_other_files(tmp_path):
    train(resolved(small_job(tmp_path, epochs=2)), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "journal.jsonl", "live.json"}
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["epoch-000001", "epoch-000002"]


def test_the_loss_by_step_is_read_at_its_interval_and_its_mean_is_that_of_the_epoch(tmp_path):
    changes = {"log_every": {"steps": 11}, "evaluate_every": {"steps": 7}}
    _, history = train(resolved(small_job(tmp_path, epochs=2, **changes)), tmp_path)
    readings = read_journal(tmp_path / "readings.jsonl")
    assert [reading.global_step for reading in readings] == [7, 11, 14, 21, 28, 33, 35, 42]
    assert [reading.global_step for reading in readings if "val/accuracy" in reading.metrics] == [7, 14, 21, 28, 35, 42]
    steps = np.diff([0, 7, 11, 14, 21])
    losses = [reading.metrics["train/loss"] for reading in readings[:4]]
    assert history[0].metrics["train/loss"] == pytest.approx(
        np.average([*losses, losses[-1]], weights=[*steps, 1]), rel=0.02
    )
    live = read_live(tmp_path / "live.json")
    assert (live.epoch, live.steps) in ((1, 22), (2, 22))


def test_a_loss_that_is_not_finite_ends_the_epoch_at_the_next_reading_and_spoils_no_checkpoint(tmp_path):
    changes = {"optimizer": {"type": "sgd", "lr": 1e30}, "checkpoint_every": {"steps": 5}}
    job = resolved(small_job(tmp_path, **changes))
    with pytest.raises(NonFiniteLossError, match=r"not finite at epoch 1, step [2-5] of 22"):
        train(job, tmp_path)
    assert store(tmp_path).places() == []


def test_a_run_made_shorter_than_the_steps_that_it_has_taken_ends_its_epoch_there(tmp_path):
    job = resolved(small_job(tmp_path, epochs=None, budget={"steps": 40}, **EVERY))
    assert train_until(job, tmp_path, 17)
    shorter = job.lasting(small_job("x", epochs=None, budget={"steps": 10}).duration)
    _, history = train(shorter, tmp_path)
    assert [record.global_step for record in history] == [15]
