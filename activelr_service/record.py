"""What is written down of an epoch: the same record goes to the checkpoint, the journal, the log and MLflow."""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from activelr_service.config import TrainJob

GAIN_DECADES = (-3, 2)
BINS_PER_DECADE = 20
PACE_PREFIX = "pace/"
GRAD_NORM_PREFIX = "grad_l1/"


@dataclass(frozen=True)
class Record:
    """One epoch. ``timestamp_ms`` is taken once, so that logging a record again changes nothing in MLflow;
    ``gain_histogram`` is empty where the optimizer has no gains."""

    epoch: int
    global_step: int
    timestamp_ms: int
    metrics: dict[str, float]
    gain_histogram: list[int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def gain_edges() -> list[float]:
    """Edges of the gain histogram, evenly spaced in log10."""
    low, high = GAIN_DECADES
    count = (high - low) * BINS_PER_DECADE
    return [10 ** (low + index / BINS_PER_DECADE) for index in range(count + 1)]


def finite_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Without the values that are not finite, which JSON and MLflow's plots cannot hold."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def pace_groups(history: list[Record]) -> list[str]:
    """The groups of tensors whose pace was recorded, from the input of the model to its output."""
    start = f"{PACE_PREFIX}step/"
    return [name.removeprefix(start) for name in (history[-1].metrics if history else {}) if name.startswith(start)]


def pace_series(history: list[Record], field: str, group: str) -> list[tuple[int, float]]:
    """(epoch, value) of a field of a group, where it was measured."""
    name = f"{PACE_PREFIX}{field}/{group}"
    return [(record.epoch, record.metrics[name]) for record in history if name in record.metrics]


def best_epoch(history: list[Record], score: str, higher_is_better: bool) -> int:
    """The first epoch with the best ``val/{score}``; the last epoch if none has one."""
    sign = 1 if higher_is_better else -1
    scored = [record for record in history if f"val/{score}" in record.metrics]
    if not scored:
        return history[-1].epoch
    return max(scored, key=lambda record: (sign * record.metrics[f"val/{score}"], -record.epoch)).epoch


def progress_line(record: Record, job: TrainJob, seconds_left: float) -> str:
    """One line that reads well in a terminal and in a job log."""
    metrics = record.metrics
    width = len(str(job.epochs))
    shown = [f"epoch {record.epoch:>{width}}/{job.epochs}", f"loss {metrics.get('train/loss', math.nan):.4f}"]
    for name, label in (
        ("loss", "val loss"),
        ("accuracy", "val acc"),
        ("perplexity", "val ppl"),
        ("map_50", "val mAP50"),
    ):
        if f"val/{name}" in metrics:
            shown.append(f"{label} {metrics[f'val/{name}']:.4f}")
    if "optim/step" in metrics:
        shown.append(f"step {metrics['optim/step']:.2%}")
    elif "optim/gain_mean" in metrics:
        shown.append(f"gain {metrics['optim/gain_mean']:.3f}")
    shown.append(f"{metrics['perf/samples_per_sec']:,.0f} samples/s")
    if skipped := round(metrics.get("train/skipped", 0) + metrics.get("val/skipped", 0)):
        shown.append(f"{skipped} corrupt skipped")
    shown.append(f"ETA {duration(seconds_left)}" if record.epoch < job.epochs else "done")
    return "  ".join(shown)


def seconds_left(history: list[Record], epochs: int) -> float:
    """What the remaining epochs will take, from the mean of the last five."""
    recent = [record.metrics["perf/epoch_seconds"] for record in history[-5:]]
    return (epochs - history[-1].epoch) * sum(recent) / len(recent)


def write_journal(path: Path, history: list[Record]) -> None:
    """Replace the journal by these records, at once or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(record.to_json()) + "\n" for record in history))
    os.replace(temporary, path)


def append_journal(path: Path, record: Record) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record.to_json()) + "\n")


def read_journal(path: Path) -> list[Record]:
    """All complete records; a line that is still being written is left for the next call."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [Record(**json.loads(line)) for line in lines if line]


def numbered(journal: Path) -> list[tuple[int, Record]]:
    """The records of a journal with their epochs."""
    return [(record.epoch, record) for record in read_journal(journal)]


def duration(seconds: float) -> str:
    """``1h02m`` or ``3m07s``."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{secs:02d}s"
