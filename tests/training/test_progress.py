"""How much of a run is done: known for steps, estimated for a time, and continuous where a run is made longer."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from activelr_service.data import inspect_data
from activelr_service.optim import ActiveOptimizer
from activelr_service.runs.journal import read_journal
from activelr_service.training.build import build_training
from activelr_service.training.checkpoint import Place
from activelr_service.training.loop import fit
from activelr_service.training.progress import LinearProgress, RunProgress, begin_ramp
from activelr_service.training.throughput import Throughput
from tests.conftest import small_job
from tests.ranks import run_ranks
from tests.training.test_loop import CPU, assert_identical, final_tensors, resolved, store, train

pytestmark = pytest.mark.slow

ROBUST = {"type": "active_adamw", "rule": "robust"}
STEPS_PER_EPOCH = 22  # of 64 of the 1,437 rows


def seconds_of_steps(step):
    """As a GPU's: one that compiles, a few that choose kernels, and from the middle on a throughput of half of it."""
    return {0: 12.0, 1: 0.9, 2: 0.4}.get(step, 0.1 if step < 400 else 0.2)


@pytest.mark.parametrize(
    ("seconds_of_step", "about"),
    [
        (lambda step: 0.1, 988),
        (seconds_of_steps, 620),
        (lambda step: 0.2 if step < 300 else 0.05, 1000),
        (lambda step: 9, 8),
    ],
    ids=["steady", "slow start, then half the throughput", "faster in the middle", "ten steps"],
)
def test_a_time_is_used_up_by_steps_whose_progress_never_goes_back_and_ends_at_one(tmp_path, seconds_of_step, about):
    clock = [0.0]
    job = small_job(tmp_path, epochs=None, budget={"time": "100s"})
    progress = RunProgress(resolved(job), 250, 9, CPU, read_clock=lambda: clock[0])
    shares = []
    while not progress.is_over():
        progress.begin_epoch()
        while progress.step_in_epoch < 250 and not progress.is_over():
            shares.append(progress.at(progress.step + 1))
            clock[0] += seconds_of_step(progress.step)
            progress.end_step()
        progress.end_epoch()
        clock[0] += 0.3  # evaluation and checkpoint
    assert all(before <= after for before, after in pairwise(shares))
    assert shares[-1] == 1
    assert shares[0] < 0.01
    assert progress.step == pytest.approx(about, rel=0.35)
    assert 95 < clock[0] < 103 or progress.step < 20
    if about > 20:
        assert max(after - before for before, after in pairwise(shares)) < 0.03, "it does not jump, at the end either"
        assert shares[9] < 0.03, "a slow first step is no measure of the run"


def test_what_fits_into_a_time_leaves_room_for_the_ends_of_epochs():
    throughput = Throughput(100, 30, seconds_per_step=1.0)
    throughput.add_end(10.0)
    assert throughput.steps_within(60, left_in_epoch=100) == 50
    assert throughput.steps_within(110, left_in_epoch=100) == 100
    assert throughput.steps_within(125, left_in_epoch=100) == 100, (
        "5 steps are not worth an evaluation that takes as long as 10"
    )
    assert throughput.steps_within(150, left_in_epoch=100) == 130
    assert throughput.steps_within(30 + 10 + 3 * 110 + 70, left_in_epoch=30) == 30 + 300 + 60
    assert throughput.steps_within(5, left_in_epoch=100) == 0


@pytest.mark.parametrize(("total", "before"), [(880, 1.0), (880, 0.5), (30_000, 1.0), (600, 0.3), (441, 1.0)])
def test_a_ramp_goes_from_the_old_share_to_the_new_line_without_a_jump(total, before):
    line, step = LinearProgress(0, 0.0, total), 440
    ramp = begin_ramp(before, line, step)
    shares = [line.at(done) + ramp.at(done) for done in range(step, total + 1)]
    assert shares[0] == pytest.approx(before)
    assert shares[-1] == 1
    end = ramp.start + ramp.num_steps
    assert 1 <= ramp.num_steps <= 0.05 * (total - step) + 1
    assert [line.at(done) for done in range(end, total + 1)] == shares[end - step :]
    rises = [after - before for before, after in pairwise(shares[: end - step + 1])]
    assert rises == pytest.approx([rises[0]] * len(rises), abs=1e-9)


def test_a_budget_of_whole_epochs_is_the_same_training_as_those_epochs(tmp_path):
    job = resolved(small_job(tmp_path, epochs=2, optimizer=ROBUST))
    train(job, tmp_path / "epochs")
    train(with_steps(job, 2 * STEPS_PER_EPOCH), tmp_path / "steps")
    assert_identical(final_tensors(tmp_path / "epochs", 2), final_tensors(tmp_path / "steps", 2))


def with_steps(job, steps):
    return job.lasting(small_job("x", epochs=None, budget={"steps": steps}).duration)


@pytest.mark.parametrize(("steps", "epochs"), [(10, 1), (50, 3)])
def test_a_budget_of_steps_cuts_its_last_epoch_short(tmp_path, steps, epochs):
    job = with_steps(resolved(small_job(tmp_path, log_grad_norms=True)), steps)
    _, history = train(job, tmp_path)
    metrics = history[-1].metrics
    rest = steps - (epochs - 1) * STEPS_PER_EPOCH
    assert [record.global_step for record in history][-1] == steps
    assert len(history) == epochs
    assert (metrics["perf/samples"], metrics["train/count"], metrics["val/count"]) == (rest * 64, rest * 64, 360)
    assert metrics["optim/progress"] == 1
    assert store(tmp_path).find_valid() == Place(epochs)


@pytest.mark.parametrize("optimizer", [ROBUST, {"type": "adamw", "schedule": "cosine"}], ids=["robust", "cosine"])
def test_a_run_made_longer_and_stopped_in_its_ramp_ends_as_one_that_was_only_made_longer(tmp_path, optimizer):
    job = with_steps(resolved(small_job(tmp_path, optimizer=optimizer)), 30)
    for folder in ("whole", "parts"):
        train(job, tmp_path / folder)
    longer = with_steps(job, 30 + 100 * STEPS_PER_EPOCH)
    whole, history = train_for(longer, tmp_path / "whole", 3)
    for epochs in (1, 2):
        training, _ = train_for(longer, tmp_path / "parts", epochs)
    assert_identical(final_tensors(tmp_path / "whole", 5), final_tensors(tmp_path / "parts", 5))
    assert whole.progress.ramp == training.progress.ramp
    assert whole.progress.ramp[:2] == (30, 110)
    shares = [record.metrics["optim/progress"] for record in history]
    assert 1 == shares[1] > shares[2] > shares[3] > shares[4] > history[4].global_step / longer.budget.steps
    if isinstance(whole.optimizer, ActiveOptimizer):
        group = whole.optimizer.param_groups[0]
        assert history[4].global_step == group["steps_done"] <= group["window_end"] <= 1.2 * group["steps_done"]


class StoppedError(Exception):
    pass


def train_for(job, folder, epochs):
    """Train so many epochs more, and stop."""
    records = []

    def stop(record):
        records.append(record)
        if len(records) == epochs:
            raise StoppedError

    training = build_training(job, inspect_data(job.data), CPU)
    with pytest.raises(StoppedError):
        fit(training, store(folder), stop)
    return training, read_journal(folder / "journal.jsonl")


def test_a_time_ends_two_ranks_at_the_same_step_with_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", x=rng.normal(size=(485, 4)).astype(np.float32), y=rng.integers(0, 3, 485))
    data = {
        "type": "npz",
        "path": str(tmp_path / "rows.npz"),
    }  # 97 validation samples are 7 batches on one rank, 6 on the other
    changes = {"epochs": None, "budget": {"time": "3s"}, "global_batch_size": 16, "optimizer": ROBUST, "data": data}
    results = run_ranks(train_for_a_time, 2, tmp_path, resolved(small_job(tmp_path, **changes), 2), tmp_path)
    (first, shares), (second, _) = results
    assert [r.global_step for r in first] == [r.global_step for r in second]
    assert [r.metrics["optim/progress"] for r in first] == [r.metrics["optim/progress"] for r in second]
    assert sum(r.metrics["perf/samples"] for r in first) == first[-1].global_step * 16
    assert first[-1].metrics["optim/progress"] == 1
    assert all(before <= after for before, after in pairwise(shares))
    assert first[-1].metrics["perf/elapsed_seconds"] > 0.9, "the time is used"
    checked = final_tensors(tmp_path, first[-1].epoch)
    assert all(torch.isfinite(tensor).all() for tensor in checked.values())


def train_for_a_time(rank, job, folder):
    """The records, and the progress that the optimizer saw at every step; the loop itself compares the replicas."""
    shares = []
    register_optimizer_step_pre_hook(lambda optimizer, *_: shares.append(optimizer.progress))
    _, history = train(job, folder)
    return history, shares


def test_a_resumed_time_goes_on_with_what_its_committed_epochs_left_of_it(tmp_path):
    job = resolved(small_job(tmp_path, epochs=None, budget={"time": "1000s"}, optimizer=ROBUST))
    _, history = train_for(job, tmp_path, 2)
    before = history[-1].metrics
    short = job.lasting(small_job("x", epochs=None, budget={"time": "2s"}).duration)
    _, history = train(short, tmp_path)
    assert history[-1].epoch > 2
    assert history[-1].metrics["optim/progress"] == 1
    assert history[2].metrics["perf/elapsed_seconds"] > before["perf/elapsed_seconds"]
    assert before["optim/progress"] < 0.1
    assert train(short, tmp_path)[1] == history, "what is done is done"
