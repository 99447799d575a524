"""Measures a trained model on a dataset in this process: on a GPU if there is one, batch by batch, with progress."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

from activelr_service.tasks import Task, fit_task
from activelr_service.training.evaluate import evaluate

Log = Callable[[str], None]
SECONDS_BETWEEN_LINES = 30.0
COUNTS_SAMPLES = ("classification", "regression", "detection")  # tasks whose ``count`` is the number of samples read
UNREADABLE = "images that cannot be decoded"
LARGEST_BATCH, LARGEST_OTHER_BATCH = {"language_modeling": 8, "detection": 8}, 256  # a worker may have had more memory


class Score(NamedTuple):
    """The metrics of a model on ``rows`` samples, and the number of samples that were left out, by reason."""

    rows: int
    metrics: dict[str, float]
    left_out: dict[str, int]


class Scales(NamedTuple):
    """What the answers of a model are to be multiplied and divided by: ``target`` is the unit of a regression's target, as
    :attr:`DataInfo.target_scale`, and ``temperature`` that of a classifier."""

    target: float
    temperature: float


def measure(task_name: str, model: nn.Module, dataset: Any, batch_size: int, log: Log, scales: Scales) -> Score:
    """Measure ``model`` on all samples of ``dataset``, in float32. A line is logged every half minute.

    A GPU that has too little memory left is not used. Raises ``ValueError`` if no sample can be read.
    """
    task = fit_task(task_name, target_scale=scales.target, temperature=scales.temperature)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = min(batch_size, LARGEST_BATCH.get(task_name, LARGEST_OTHER_BATCH))
    try:
        metrics = _measure(task, model, dataset, batch_size, device, log)
    except torch.cuda.OutOfMemoryError:
        log("the GPU has too little memory left: measured on the CPU")
        metrics = _measure(task, model, dataset, batch_size, torch.device("cpu"), log)
    count = int(metrics["count"])
    skipped = len(dataset) - count if task_name in COUNTS_SAMPLES else 0
    return Score(len(dataset) - skipped, metrics, {UNREADABLE: skipped} if skipped else {})


def _measure(
    task: Task, model: nn.Module, dataset: Any, batch_size: int, device: torch.device, log: Log
) -> dict[str, float]:
    batches: DataLoader[Any] = DataLoader(dataset, batch_size, collate_fn=task.collate)
    return evaluate(task, model.to(device), _with_progress(batches, device, log), device, "float32")


def _with_progress(batches: Any, device: torch.device, log: Log) -> Iterator[Any]:
    last = time.monotonic()
    for number, batch in enumerate(batches):
        if time.monotonic() - last > SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            log(f"measured {number:,} of {len(batches):,} batches on {device.type}")
        yield batch
