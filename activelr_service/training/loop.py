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

from activelr_service.errors import NonFiniteLossError
from activelr_service.runs.record import Record, finite_metrics
from activelr_service.training import distributed, optimizers
from activelr_service.training.build import TrainContext, seed_everything, seed_loader
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.checkpoint_files import named_state
from activelr_service.training.evaluate import MetricAccumulator, autocast, evaluate, to_device
from activelr_service.training.optimizers import (
    begin_step,
    end_step,
    gain_histogram,
    gain_metrics,
    set_training,
    uses_lr,
)
from activelr_service.training.replicate import describe_without_gradient, few_rows
from activelr_service.training.update_metrics import update_metrics

OnEpoch = Callable[[Record], None]


def fit(training: TrainContext, checkpoints: CheckpointStore, on_epoch: OnEpoch) -> list[Record]:
    """Train from the last committed epoch to the end of the job; returns the records of all epochs.

    A training that was stopped ends bit for bit as one that never was, unless its budget is a time: then it goes on with
    the time that its committed epochs have left of it.
    """
    history = checkpoints.restore(training)
    if training.without_gradient and not history and distributed.rank() == 0:
        checkpoints.log(describe_without_gradient(training.without_gradient))
    while not training.progress.is_over():
        epoch = history[-1].epoch + 1 if history else 1
        seed_everything(training.job.seed, epoch, distributed.rank())
        record = run_epoch(training, epoch)
        history.append(record)
        checkpoints.commit(training, history)
        on_epoch(record)
    return history


def run_epoch(training: TrainContext, epoch: int) -> Record:
    """Train one epoch, end it, and measure it; returns its record, equal on every rank."""
    start = time.monotonic()
    sums = train_epoch(training, epoch)
    train_seconds = time.monotonic() - start
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
        "perf/epoch_seconds": time.monotonic() - start,
        "perf/elapsed_seconds": training.progress.seconds(),
        "perf/epoch_end_reduce_seconds": reduce_seconds,
    }
    joules = training.energy.flush()
    if joules is not None:
        metrics["perf/energy_joules"] = joules
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
    )


def count_skipped(training: TrainContext, metrics: dict[str, float], due: float) -> dict[str, float]:
    """How many rows of the epoch were left out as corrupt: those that were due less those that were counted."""
    num_val = len(training.val_loader.dataset.dataset)  # type: ignore[attr-defined] # a Subset for each rank
    return {"train/skipped": due - metrics["train/count"], "val/skipped": num_val - metrics["val/count"]}


def train_epoch(training: TrainContext, epoch: int) -> dict[str, float]:
    """The optimizer steps of one epoch, or those that the budget leaves of it; returns sums over all ranks. No host
    synchronization inside, but for a budget of time."""
    seed_loader(training.train_loader, training.job.seed, epoch)
    training.replica.train()
    set_training(training.optimizer, True)
    totals = MetricAccumulator((*training.task.sum_names, "grad_norm"), training.device)
    batches = iter(training.train_loader)
    progress, steps = training.progress, 0
    progress.begin_epoch()
    while steps < training.steps_per_epoch and not progress.is_over():
        shares = progress.at(progress.step), progress.at(progress.step + 1)
        begin_step(training.optimizer, training.job.optimizer.schedule, *shares)
        norm = train_step(training, batches, totals, steps)
        totals.add({"grad_norm": norm / distributed.world_size()})
        progress.end_step()
        steps += 1
    progress.end_epoch()
    set_training(training.optimizer, False)
    sums = totals.over_ranks(steps)
    if "first_bad_step" in sums:
        raise NonFiniteLossError(
            f"the loss was not finite at epoch {epoch}, step {int(sums['first_bad_step']) + 1} of {steps}; check the "
            f"data for extreme values, or set {' or '.join(stability_hints(training))}"
        )
    return {**sums, "steps": steps, "samples": steps * training.job.global_batch_size}


def stability_hints(training: TrainContext) -> list[str]:
    """The settings that keep a loss finite."""
    return ["clip_grad_norm", "a smaller optimizer.lr"] if uses_lr(training.optimizer) else ["clip_grad_norm"]


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
