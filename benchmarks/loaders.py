"""Rows a second that each loader delivers, decoded and augmented, with and without loader processes."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from activelr_service.config import parse_job
from activelr_service.data import build_data, inspect_data, prepare_data
from activelr_service.service.check import infer_task
from activelr_service.tasks import TASKS
from tests.data.generate_cifar import write_cifar
from tests.data.generate_text import write_wikitext
from tests.data.generate_voc import write_voc

ROUNDS = 3
BATCH_SIZE = 32


def main() -> None:
    """The training split, batches of 32; one pass that warms up, then the median of three."""
    print(f"rows a second of each loader, batches of {BATCH_SIZE}, median of {ROUNDS} passes")
    print(f"{'':46}{'in the worker':>15}{'2 processes':>13}")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in LOADERS.items():
            data = make(Path(folder) / name)
            rates = [rows_per_second(data, Path(folder), processes) for processes in (0, 2)]
            print(f"{name:46}{rates[0]:15,.0f}{rates[1]:13,.0f}", flush=True)


def rows_per_second(data: dict[str, Any], cache: Path, processes: int) -> float:
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


def photographs(root: Path) -> dict[str, Any]:
    """JPEGs of the size of ImageNet's mean, smooth as photographs are."""
    rng = np.random.default_rng(0)
    for split, name in ((split, name) for split in ("train", "val") for name in ("a", "b")):
        (root / split / name).mkdir(parents=True)
        for index in range(48):
            small = Image.fromarray(rng.integers(0, 255, (25, 33, 3), dtype=np.uint8))
            small.resize((500, 375), Image.Resampling.BICUBIC).save(root / split / name / f"{index}.jpg", quality=90)
    return {"type": "imagefolder", "root": str(root), "image_size": 224}


def cifar(root: Path) -> dict[str, Any]:
    write_cifar(root, rows=1000)
    return {"type": "cifar10", "root": str(root)}


def text(root: Path) -> dict[str, Any]:
    write_wikitext(root)
    return {"type": "text", "root": str(root), "block_size": 200, "vocab_size": 300}


def voc(root: Path) -> dict[str, Any]:
    write_voc(root, sets=(("train", 96), ("val", 1)), size=(500, 375))
    return {"type": "voc", "root": str(root), "years": ["2007"]}


def table(root: Path) -> dict[str, Any]:
    root.mkdir()
    values = np.random.default_rng(0).normal(size=(20_000, 20))
    names = ",".join(f"c{index}" for index in range(20))
    np.savetxt(root / "t.csv", values, delimiter=",", header=names, comments="")
    return {"type": "table", "path": str(root / "t.csv"), "target": "c0"}


LOADERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "imagefolder, 500 x 375 JPEG to 224 x 224": photographs,
    "cifar10, cropped and flipped": cifar,
    "voc, 500 x 375 JPEG and its boxes": voc,
    "text, blocks of 200 tokens": text,
    "table, 20 columns": table,
}
