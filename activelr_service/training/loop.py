"""The training loop, in plain torch.

An epoch: take its steps, end it for the optimizer (all-reduce the gradient sums, move the gains), check that all
replicas agree, evaluate, commit a checkpoint, report. The last one is shorter where a budget ends within it.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from activelr_service.runs.record import Record, finite_metrics
from activelr_service.training import distributed, optimizers
from activelr_service.training.build import TrainContext, seed_everything
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.checkpoint_files import named_state
from activelr_service.training.early_stop import end_early, go_back
from activelr_service.training.evaluate import MetricAccumulator, autocast, evaluate, to_device
from activelr_service.training.optimizers import (
    begin_step,
    end_step,
    gain_histogram,
    gain_metrics,
    set_training,
)
from activelr_service.training.replicate import describe_without_gradient, few_rows
from activelr_service.training.running_epoch import Part, RunningEpoch
from activelr_service.training.update_metrics import update_metrics
from activelr_service.training.within_epoch import WithinEpoch, check_finite

OnEpoch = Callable[[Record], None]


def fit(training: TrainContext, checkpoints: CheckpointStore, on_epoch: OnEpoch) -> list[Record]:
    """Train from the latest checkpoint to the end of the job; returns the records of all epochs.

    A training that was stopped ends bit for bit as one that never was, unless its budget is a time: then it goes on with
    the time that its checkpoint has left of it.
    """
    history, part = checkpoints.restore(training)
    log = checkpoints.log if distributed.rank() == 0 else ignore
    if training.without_gradient and not history:
        log(describe_without_gradient(training.without_gradient))
    within = WithinEpoch(training, checkpoints, history)
    while part is not None or not training.progress.is_over():
        epoch = history[-1].epoch + 1 if history else 1
        go_back(training, checkpoints, history)
        if part is not None:
            log(f"epoch {epoch} goes on after step {part['steps']:,} of {training.steps_per_epoch:,}")
        seed_everything(training.job.seed, epoch, distributed.rank())
        record = run_epoch(training, epoch, within, part)
        part = None
        history.append(record)
        if line := end_early(training, history):
            log(line)
        checkpoints.commit(training, history)
        on_epoch(record)
    return history


def ignore(line: str) -> None:
    """Where the lines of all ranks but the first go."""


def run_epoch(
    training: TrainContext, epoch: int, within: WithinEpoch | None = None, part: Part | None = None
) -> Record:
    """Train one epoch, end it, and measure it; returns its record, equal on every rank.

    ``within`` is called after every step. ``part`` is what a checkpoint within this epoch has kept of this rank.
    """
    running = RunningEpoch(training, epoch, part)
    sums = train_epoch(training, running, within)
    train_seconds = running.train_seconds
    reduce_seconds = end_epoch(training, epoch)
    metrics = {f"train/{name}": value for name, value in training.task.compute_metrics(sums).items()}
    metrics |= {"train/count": sums["count"]}
    metrics |= {f"val/{name}": value for name, value in evaluate_val(training).items()}
    metrics |= gain_metrics(training.optimizer)
    metrics |= update_metrics(training.optimizer, training.model)
    metrics |= {
        "optim/grad_norm": sums["grad_norm"] / sums["steps"],
        "optim/progress": training.progress.at(training.progress.step),
        "perf/samples": sums["samples"],
        "perf/samples_per_sec": sums["samples"] / train_seconds,
        "perf/epoch_seconds": running.seconds,
        "perf/elapsed_seconds": training.progress.seconds(),
        "perf/epoch_end_reduce_seconds": reduce_seconds,
    }
    if training.progress.ending is not None:
        metrics["optim/steps_left"] = training.progress.line.total_steps - training.progress.step
    running.add_joules()
    if running.joules is not None:
        metrics["perf/energy_joules"] = running.joules
    if getattr(training.job.data, "on_corrupt", "fail") == "skip":
        metrics |= count_skipped(training, metrics, sums["samples"])
    if training.grad_norms is not None:
        metrics |= training.grad_norms.flush()
    return Record(
        epoch=epoch,
        global_step=training.progress.step,
        timestamp_ms=round(time.time() * 1000),
        metrics=finite_metrics(metrics),
        gain_histogram=gain_histogram(training.optimizer),
        ended=training.progress.ended_duration(),
    )


def count_skipped(training: TrainContext, metrics: dict[str, float], due: float) -> dict[str, float]:
    """How many rows of the epoch were left out as corrupt: those that were due less those that were counted."""
    num_val = len(training.val_loader.dataset.dataset)  # type: ignore[attr-defined] # a Subset for each rank
    return {"train/skipped": due - metrics["train/count"], "val/skipped": num_val - metrics["val/count"]}


def train_epoch(training: TrainContext, running: RunningEpoch, within: WithinEpoch | None) -> dict[str, float]:
    """The optimizer steps of one epoch, or those that the budget leaves of it; returns sums over all ranks. No host
    synchronization inside, but for a budget of time and where ``within`` has something to do."""
    training.replica.train()
    set_training(training.optimizer, True)
    progress = training.progress
    progress.begin_epoch(running.steps)
    if within is not None:
        within.begin(running)
    while running.steps < training.steps_per_epoch and not progress.is_over():
        shares = progress.at(progress.step), progress.at(progress.step + 1)
        ending = None if training.job.early_stop is None else progress.share_of_ending()
        config = training.job.optimizer
        begin_step(training.optimizer, config.schedule, *shares, ending, config.warmup)
        norm = train_step(training, running.batches, running.totals, running.steps)
        running.totals.add({"grad_norm": norm / distributed.world_size()})
        progress.end_step()
        running.steps += 1
        if within is not None:
            within(running)
    progress.end_epoch()
    set_training(training.optimizer, False)
    sums = running.totals.over_ranks(running.steps)
    check_finite(training, running, sums)
    return {**sums, "steps": running.steps, "samples": running.steps * training.job.global_batch_size}


def train_step(training: TrainContext, batches: Any, totals: MetricAccumulator, step: int) -> Tensor:
    """One optimizer step over ``grad_accum_steps`` micro-batches; returns the norm of its gradient, before clipping."""
    accum_steps = training.job.grad_accum_steps
    for micro_step in range(accum_steps):
        rows = next(batches)
        batch = to_device(stand_in(training) if rows is None else rows, training.device)
        is_last = micro_step == accum_steps - 1
        with reduce_gradients(training.replica, is_last), autocast(training.device, training.job.precision):
            loss, sums = training.task.compute_loss(training.replica, batch)
        if rows is None:
            loss = loss * 0
        else:
            totals.add_loss(loss, sums, step)
        (loss / accum_steps).backward()
    if training.grad_norms is not None:
        training.grad_norms.add()
    norm = clip_gradients(training)
    training.optimizer.step()
    end_step(training.optimizer)
    training.optimizer.zero_grad()
    return norm


def stand_in(training: TrainContext) -> Any:
    """Rows for a batch of which every row is skipped as corrupt. Their loss counts nothing, but the other ranks wait for the
    gradients of this one."""
    return few_rows(training.task, training.train_loader.dataset, training.job.micro_batch_size())


def end_epoch(training: TrainContext, epoch: int) -> float:
    """Move the gains on the mean of the ranks' gradient sums, then check that all ranks agree to the last bit.

    Returns the seconds that the reduction and the rule took.
    """
    start = time.monotonic()
    optimizers.end_epoch(training.optimizer)
    seconds = time.monotonic() - start
    distributed.broadcast_buffers(training.model, training.device)
    distributed.check_replicas(named_state(training.model, training.optimizer), epoch, training.device)
    return seconds


def evaluate_val(training: TrainContext) -> dict[str, float]:
    job, tables = training.job, training.tables
    return evaluate(training.task, training.model, training.val_loader, training.device, job.precision, tables)


def clip_gradients(training: TrainContext) -> Tensor:
    """Clip to ``clip_grad_norm`` if the job says so; the norm before clipping, 0-dim, on the device."""
    params = [param for param in training.model.parameters() if param.grad is not None]
    norm = nn.utils.get_total_norm([param.grad for param in params if param.grad is not None])
    if training.job.clip_grad_norm is not None:
        nn.utils.clip_grads_with_norm_(params, training.job.clip_grad_norm, norm)
    return norm


def reduce_gradients(replica: nn.Module, is_last: bool) -> Any:
    """Only the last micro-batch of a step sends gradients to the other ranks."""
    return replica.no_sync() if isinstance(replica, DistributedDataParallel) and not is_last else nullcontext()
