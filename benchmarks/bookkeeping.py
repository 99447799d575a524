"""milliseconds of CPU time and bytes on disk of an epoch of a tiny job beside its training, after few and many epochs"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch

from activelr_service.config import CompleteJob, parse_job
from activelr_service.data import inspect_data
from activelr_service.runs.journal import write_journal
from activelr_service.runs.live import ReadingsReader, append_reading, reading_rows
from activelr_service.runs.record import Record, seconds_left
from activelr_service.runs.run import Run
from activelr_service.service.batch_size import EventReader
from activelr_service.service.resolve import Resources, resolve_job
from activelr_service.training.build import TrainContext, build_training
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.early_stop import end_early
from activelr_service.training.loop import run_epoch

EPOCHS = (10, 10_000)  # that a run has behind it
ROUNDS = 9
STATE = ("state.json", "manifest.json")  # of a checkpoint: what is not a tensor
JOB = {
    "kind": "train",
    "name": "bookkeeping",
    "model": {"type": "mlp"},
    "data": {"type": "digits", "image_size": 8},
    "epochs": 100_000,
    "global_batch_size": 512,
    "early_stop": {"patience": 10_000},
}


def measure() -> dict[str, float]:
    """The worker commits an epoch, and the driver reads and shows it. The median of the epochs."""
    checked = parse_job(JOB)
    info = inspect_data(checked.data)
    job = resolve_job(checked, info, Resources(1, 0))[0]
    assert isinstance(job, CompleteJob)
    training = build_training(job, info, torch.device("cpu"))
    record = run_epoch(training, 1)
    figures: dict[str, float] = {}
    for epochs in EPOCHS:
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder))
            worker, driver = keep_books(training, record, run, epochs)
            written = sum((run.checkpoints / f"epoch-{epochs + ROUNDS:06d}" / name).stat().st_size for name in STATE)
        figures |= {f"worker, after {epochs:,} epochs": worker, f"driver, after {epochs:,} epochs": driver}
        figures[f"bytes of {' and '.join(STATE)}, after {epochs:,} epochs"] = written
    few, many = (f"after {epochs:,} epochs" for epochs in EPOCHS)
    for name in ("worker", "driver", f"bytes of {' and '.join(STATE)}"):
        figures[f"{name}, {many}, times {few}"] = figures[f"{name}, {many}"] / figures[f"{name}, {few}"]
    return figures


def keep_books(training: TrainContext, record: Record, run: Run, epochs: int) -> tuple[float, float]:
    """Milliseconds of the worker and of the driver for one more epoch, in a run that has so many behind it."""
    history = [_at(record, epoch) for epoch in range(1, epochs + 1)]
    run.checkpoints.mkdir()
    write_journal(run.journal, history)
    for reading in history:
        append_reading(run.readings, reading)
    checkpoints = CheckpointStore(run.checkpoints, run.journal, print)
    events, readings = EventReader(run), ReadingsReader(run.readings)
    events.read(0)
    readings.read()
    worker, driver = [], []
    for epoch in range(epochs + 1, epochs + ROUNDS + 1):
        history.append(_at(record, epoch))
        append_reading(run.readings, history[-1])
        worker.append(timed(partial(_commit, training, history, checkpoints)))
        driver.append(timed(partial(_show, training, history, events, readings, epoch - 1)))
    return median(worker), median(driver)


def _commit(training: TrainContext, history: list[Record], checkpoints: CheckpointStore) -> None:
    """What the worker does when the last epoch of ``history`` has ended."""
    end_early(training, history)
    checkpoints.commit(training, history)


def _show(
    training: TrainContext, history: list[Record], events: EventReader, readings: ReadingsReader, last: int
) -> None:
    """What the driver does when epoch number ``last + 1`` has ended."""
    assert [number for number, _ in events.read(last)] == [last + 1]
    assert len(reading_rows(readings.read()[last:])) == 1
    seconds_left(history, training.job)


def _at(record: Record, epoch: int) -> Record:
    return replace(record, epoch=epoch, global_step=epoch * record.global_step)


def timed(function: Callable[[], object]) -> float:
    """Milliseconds of CPU time."""
    start = time.process_time()
    function()
    return 1000 * (time.process_time() - start)
