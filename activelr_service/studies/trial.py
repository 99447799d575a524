"""One trial of a study: in this process without checkpoints, or as a Ray Train run of its own with them.

A killed study repeats a trial of the first kind, and continues within a trial of the second kind.
"""

import itertools
import json
import resource
import shutil
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch

from activelr_service.config import CompleteJob, dump_job
from activelr_service.data.info import DataInfo
from activelr_service.errors import NonFiniteLossError, WorkersLostError, kind_of, says_out_of_memory
from activelr_service.runs.begin import start_attempt
from activelr_service.runs.files import write_text
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import UPDATE_PREFIX, Record, finite_metrics
from activelr_service.runs.run import Run
from activelr_service.service.ray_run import train_on_ray
from activelr_service.studies.folder import Outcome, StudyFolder
from activelr_service.studies.held_out import HeldOut
from activelr_service.training.build import build_training, seed_everything
from activelr_service.training.evaluate import MetricAccumulator
from activelr_service.training.loop import evaluate_val, run_epoch, train_step
from activelr_service.training.monitors import available_memory
from activelr_service.training.optimizers import begin_step, set_training
from activelr_service.training.threads import threads_kept

STEPS_TIMED, STEPS_LIMIT_S = 5, 2.0
STATUSES = {"diverged": "diverged", "memory": "out_of_memory"}  # of a trial, by the kind of its failure; else failed
SHARED_GPU_FRACTION = 0.95  # CUDA itself uses the rest, in every process


def run_trial(job: CompleteJob, info: DataInfo) -> Outcome:
    """Train a resolved job of one worker in this process. An error in the training becomes the outcome and is not raised."""
    rows: list[dict[str, float]] = []
    try:
        with threads_kept():
            torch.set_num_threads(job.workers.cpus_per_worker)
            for row in train_rows(job, info):
                rows.append(row)
    except Exception as error:
        return Outcome(classify(error), describe(error), len(rows), rows)
    return Outcome("finished", "", len(rows) - 1, rows)


def train_rows(job: CompleteJob, info: DataInfo) -> Iterator[dict[str, float]]:
    """Yield the row of the untrained model, then the row of each epoch. Some have metrics of the test samples, see
    :class:`~activelr_service.studies.held_out.HeldOut`.

    Raises :class:`NonFiniteLossError` for a metric that is finite before the training and not after an epoch.
    """
    device = device_of(job)
    training = build_training(job, info, device)
    held_out = HeldOut(training, info)
    untrained = untrained_row(evaluate_val(training))
    yield untrained | held_out.row(untrained, is_last=True)
    epoch = 0
    while not training.progress.is_over():
        epoch += 1
        seed_everything(job.seed, epoch, 0)
        row = epoch_row(run_epoch(training, epoch))
        if lost := sorted(untrained.keys() - row.keys()):
            raise NonFiniteLossError(f"{', '.join(lost)} was not finite at the end of epoch {epoch}")
        yield row | held_out.row(row, is_last=training.progress.is_over())


def device_of(job: CompleteJob) -> torch.device:
    """The device of a job of one worker."""
    return torch.device("cuda" if job.workers.use_gpu else "cpu")


def untrained_row(metrics: dict[str, float]) -> dict[str, float]:
    """The row of epoch 0, from the validation metrics of the untrained model."""
    validation = {f"val/{name}": value for name, value in metrics.items()}
    return {"epoch": 0, "timestamp_ms": round(time.time() * 1000), **finite_metrics(validation)}


def epoch_row(record: Record) -> dict[str, float]:
    """The row of an epoch, without the statistics of the updates, which have a value for each tensor."""
    metrics = {name: value for name, value in record.metrics.items() if not name.startswith(UPDATE_PREFIX)}
    return {"epoch": record.epoch, "timestamp_ms": record.timestamp_ms, **metrics}


def classify(error: BaseException) -> str:
    """The status of a trial that ended with this error."""
    return STATUSES.get(kind_of(error) or "", "failed")


def describe(error: BaseException) -> str:
    """The error in one line. An error that a study does not expect has its file and line too."""
    line = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
    frames = traceback.extract_tb(error.__traceback__)
    if classify(error) != "failed" or not frames:
        return line
    return f"{line} ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})"


def limit_memory(count: int, gpus: float = 0.0) -> int:
    """Limit this process to one of ``count`` equal shares of the free memory, and to the fraction ``gpus`` of its GPU.

    A model that needs more then fails in its own trial. Without the limit the system or Ray would kill processes, and Ray
    Tune 2.60 ends with the first process that Ray kills. Returns the share in bytes.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    share = available_memory() // count
    resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + share, hard))
    if 0 < gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus * SHARED_GPU_FRACTION)
    return share


def time_step(job: CompleteJob, info: DataInfo) -> float:
    """The mean seconds of a training step of one worker on the CPU. The first step is not counted."""
    workers = job.workers.model_copy(update={"num_workers": 1, "num_loader_workers": 0})
    training = build_training(job.model_copy(update={"workers": workers}), info, torch.device("cpu"))
    training.replica.train()
    set_training(training.optimizer, True)
    totals = MetricAccumulator((*training.task.sum_names, "grad_norm"), training.device)
    batches = itertools.chain.from_iterable(itertools.repeat(training.train_loader))
    begin_step(training.optimizer, "constant", 0.0, 1e-3)
    with threads_kept():
        torch.set_num_threads(job.workers.cpus_per_worker)
        train_step(training, batches, totals, 0)
        start, steps = time.perf_counter(), 0
        while steps < STEPS_TIMED and time.perf_counter() - start < STEPS_LIMIT_S:
            train_step(training, batches, totals, steps)
            steps += 1
    return (time.perf_counter() - start) / steps


def run_distributed_trial(config: dict[str, Any]) -> dict[str, Any]:
    """Run a trial as a Ray Train run of its own. Ray Tune calls this function; it needs no CPU, its workers do."""
    folder = StudyFolder(Path(config["study"]))
    job, info = folder.read_plan(config["trial"])
    run = open_run(folder.trial(config["trial"]), job)
    outcome = train(run, job, info)
    folder.write_outcome(config["trial"], outcome)
    shutil.rmtree(run.checkpoints)
    return {"status": outcome.status}


def open_run(path: Path, job: CompleteJob) -> Run:
    """The run folder of a trial. It may exist, if the study was killed within the trial."""
    run = Run(path)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    write_text(path / "resolved.yaml", dump_job(job))
    if not (path / "run.json").exists():
        write_text(path / "run.json", json.dumps({"status": "running", "attempts": 0}))
    start_attempt(run)
    return run


def train(run: Run, job: CompleteJob, info: DataInfo) -> Outcome:
    """Train the run of a trial with Ray Train, and return how it ended."""
    try:
        train_on_ray(run, job, info, measure_untrained=True)
    except WorkersLostError as error:
        if says_out_of_memory(str(error)):
            return replace(_ended(run, "out_of_memory", str(error)), memory=0)
        return _ended(run, "failed", str(error))
    return ending(run)


def ending(run: Run) -> Outcome:
    """The outcome of a run whose workers have ended, from the files that they wrote."""
    failure = run.read_failure()
    if failure is None:
        return Outcome("finished", "", len(read_journal(run.journal)), _rows(run))
    return _ended(run, STATUSES.get(failure.kind, "failed"), f"{failure.type}: {failure.message[:300]}")


def _ended(run: Run, status: str, reason: str) -> Outcome:
    """The outcome of a run that ended in the epoch after its last committed one."""
    return Outcome(status, reason, len(read_journal(run.journal)) + 1, _rows(run))


def _rows(run: Run) -> list[dict[str, float]]:
    untrained = [untrained_row(json.loads(run.untrained.read_text()))] if run.untrained.exists() else []
    return untrained + [epoch_row(record) for record in read_journal(run.journal)]
