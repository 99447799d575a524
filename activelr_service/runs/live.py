"""Where a run is within its epoch, as files of the run folder: the worker of rank 0 writes them, the driver shows them.

``live.json`` is replaced about once a second. ``readings.jsonl`` has one line for each reading of the loss and for each
evaluation within an epoch. Nothing is computed from these files: a training does not end because one cannot be written.
"""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from activelr_service.runs.record import Record

BY_STEP = "_by_step"  # ends the names of metrics that are logged against the optimizer step


class Live(NamedTuple):
    """Epoch number ``epoch`` after ``step`` of its ``steps``. ``loss`` is that of the last reading, None before the first.
    ``seconds_left`` is for the whole run."""

    epoch: int
    step: int
    steps: int
    samples_per_sec: float
    seconds_left: float
    loss: float | None = None

    def write(self, path: Path) -> None:
        """Replace the file at ``path``. It is not synced to the disk, which would take longer than a step."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            temporary.write_text(json.dumps(self._asdict()))
            os.replace(temporary, path)


def read_live(path: Path) -> Live | None:
    """What the file at ``path`` says; None if there is none, or if it cannot be read."""
    try:
        return Live(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def append_reading(path: Path, reading: Record) -> None:
    """Append a reading to the file at ``path``, without a sync to the disk."""
    with suppress(OSError), path.open("a") as file:
        file.write(json.dumps(reading.to_json()) + "\n")


def without_repeats(readings: Iterable[Record]) -> list[Record]:
    """The readings without those that a resumed epoch has made again, so that their steps rise."""
    found: list[Record] = []
    for reading in readings:
        if not found or reading.global_step > found[-1].global_step:
            found.append(reading)
    return found


def reading_row(reading: Record) -> dict[str, Any]:
    """A reading as a tracker takes it: its metrics under names of their own, against the optimizer step."""
    metrics = {f"{name}{BY_STEP}": value for name, value in reading.metrics.items() if not name.startswith("perf/")}
    return {"epoch": reading.epoch, "step": reading.global_step, "timestamp_ms": reading.timestamp_ms, **metrics}
