"""samples a second of each loader, decoded and augmented, in batches of 32"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from torch.utils.data import DataLoader

from activelr_service.config import parse_job
from activelr_service.data import build_data, inspect_data, prepare_data
from activelr_service.service.check import infer_task
from activelr_service.tasks import TASKS
from benchmarks import generate

ROUNDS = 3
BATCH_SIZE = 32
LOADERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "imagefolder, 500 x 375 JPEG to 224 x 224": generate.photographs,
    "cifar10, cropped and flipped": generate.cifar,
    "voc, 500 x 375 JPEG and its boxes": generate.voc,
    "text, blocks of 200 tokens": generate.text,
    "table, 20 columns": generate.table,
}


def measure() -> dict[str, float]:
    """The training split: one pass that warms up, then the median of three."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in LOADERS.items():
            data = make(Path(folder) / name)
            for processes, where in ((0, "in the worker"), (2, "2 processes")):
                figures[f"{name}, {where}"] = samples_per_second(data, Path(folder), processes)
    return figures


def samples_per_second(data: dict[str, Any], cache: Path, processes: int) -> float:
    job = parse_job({"kind": "train", "name": "x", "epochs": 1, "model": {"type": "mlp"}, "data": data})
    config = prepare_data(job.data, cache)
    train, _ = build_data(config)
    task = TASKS[infer_task(job, inspect_data(config))]
    loader: DataLoader = DataLoader(
        train, BATCH_SIZE, num_workers=processes, persistent_workers=processes > 0, collate_fn=task.collate
    )
    passes = [timed_pass(loader) for _ in range(1 + ROUNDS)]
    return len(train) / median(passes[1:])


def timed_pass(loader: DataLoader) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start
