"""One trial in this process: the plain loop without checkpoints, and how it ended."""

import itertools
import resource
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from activelr_service.config import CompleteJob
from activelr_service.data.info import DataInfo
from activelr_service.errors import NonFiniteLossError, kind_of
from activelr_service.runs.record import PACE_PREFIX, Record, finite_metrics
from activelr_service.studies.folder import Outcome
from activelr_service.training.build import build_training, seed_everything
from activelr_service.training.evaluate import MetricAccumulator
from activelr_service.training.loop import evaluate_held_out, run_epoch, train_step
from activelr_service.training.monitors import available_memory
from activelr_service.training.optimizers import begin_step, set_training

STEPS_TIMED, STEPS_LIMIT_S = 5, 2.0
STATUSES = {"diverged": "diverged", "memory": "out_of_memory"}  # of a trial, by the kind of its failure; else failed
OF_A_SHARED_GPU = 0.95  # the rest is for what CUDA itself takes in every process


def run_trial(job: CompleteJob, info: DataInfo) -> Outcome:
    """Train a resolved one-worker job to its end, whatever that is: what goes wrong is its outcome, not an error."""
    rows: list[dict[str, float]] = []
    try:
        with _threads(job.workers.cpus_per_worker):
            for row in train_rows(job, info):
                rows.append(row)
    except Exception as error:
        return Outcome(classify(error), describe(error), len(rows), rows)
    return Outcome("finished", "", len(rows) - 1, rows)


def train_rows(job: CompleteJob, info: DataInfo) -> Iterator[dict[str, float]]:
    """The untrained model's row, then one an epoch."""
    device = device_of(job)
    training = build_training(job, info, device)
    untrained = untrained_row(evaluate_held_out(training))
    yield untrained
    epoch = 0
    while not training.progress.is_over():
        epoch += 1
        seed_everything(job.seed, epoch, 0)
        row = epoch_row(run_epoch(training, epoch))
        if lost := sorted(untrained.keys() - row.keys()):
            raise NonFiniteLossError(f"{', '.join(lost)} was not finite at the end of epoch {epoch}")
        yield row


def device_of(job: CompleteJob) -> torch.device:
    return torch.device("cuda" if job.workers.use_gpu else "cpu")


def untrained_row(metrics: dict[str, float]) -> dict[str, float]:
    """The row of epoch 0."""
    held_out = {f"val/{name}": value for name, value in metrics.items()}
    return {"epoch": 0, "timestamp_ms": round(time.time() * 1000), **finite_metrics(held_out)}


def epoch_row(record: Record) -> dict[str, float]:
    metrics = {name: value for name, value in record.metrics.items() if not name.startswith(PACE_PREFIX)}
    return {"epoch": record.epoch, "timestamp_ms": record.timestamp_ms, **metrics}


def classify(error: BaseException) -> str:
    """The status of a trial that ended with ``error``."""
    return STATUSES.get(kind_of(error) or "", "failed")


def describe(error: BaseException) -> str:
    """One line: what went wrong, and where unless it is of the kind that a study expects."""
    line = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
    frames = traceback.extract_tb(error.__traceback__)
    if classify(error) != "failed" or not frames:
        return line
    return f"{line} ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})"


def limit_memory(count: int, gpus: float = 0.0) -> int:
    """Let this process take one of ``count`` equal shares of the memory that is free, and of its GPU what it was given of it
    (``gpus``): a model that needs more fails in its own trial. Without it the system or Ray would kill processes, and Ray
    Tune 2.60 ends with the first that Ray kills. Returns the share in bytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    share = available_memory() // count
    resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + share, hard))
    if 0 < gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus * OF_A_SHARED_GPU)
    return share


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_step(job: CompleteJob, info: DataInfo) -> float:
    """Seconds of one training step of a single worker on the CPU: the mean of a few, after a first that is not counted."""
    workers = job.workers.model_copy(update={"num_workers": 1, "num_loader_workers": 0})
    training = build_training(job.model_copy(update={"workers": workers}), info, torch.device("cpu"))
    training.replica.train()
    set_training(training.optimizer, True)
    totals = MetricAccumulator((*training.task.sum_names, "grad_norm"), training.device)
    batches = itertools.chain.from_iterable(itertools.repeat(training.train_loader))
    begin_step(training.optimizer, "constant", 0.0, 1e-3)
    with _threads(job.workers.cpus_per_worker):
        train_step(training, batches, totals, 0)
        start, steps = time.perf_counter(), 0
        while steps < STEPS_TIMED and time.perf_counter() - start < STEPS_LIMIT_S:
            train_step(training, batches, totals, steps)
            steps += 1
    return (time.perf_counter() - start) / steps
