"""Where a run is within its epoch, as files of the run folder: the worker of rank 0 writes them, the driver shows them.

``live.json`` is replaced about once a second. ``readings.jsonl`` has one line for each reading of the loss and for each
evaluation within an epoch. Nothing is computed from these files: a training does not end because one cannot be written.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

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


class ReadingsReader:
    """Reads a file of readings that grows, each line once. A line that cannot be read is left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._readings: list[Record] = []

    def read(self) -> list[Record]:
        """All readings so far; a line that is still being written is left for the next call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            complete = file.read().rpartition(b"\n")[0]
        for line in complete.split(b"\n"):
            with suppress(ValueError, TypeError):
                self._readings.append(Record.from_json(json.loads(line)))
        self._offset += len(complete) + bool(complete)
        return self._readings


def reading_rows(readings: list[Record], after: int = -1) -> list[dict[str, float]]:
    """The readings after so many optimizer steps as a tracker takes them: their metrics have names of their own, and are
    logged against the step. Those that a resumed epoch has made again are left out, so that steps rise."""
    rows: list[dict[str, float]] = []
    for reading in readings:
        if reading.global_step > after:
            metrics = {f"{name}{BY_STEP}": value for name, value in reading.metrics.items() if _is_tracked(name)}
            place = {"epoch": reading.epoch, "step": reading.global_step, "timestamp_ms": reading.timestamp_ms}
            rows.append({**place, **metrics})
            after = reading.global_step
    return rows


def _is_tracked(name: str) -> bool:
    return not name.startswith("perf/") and name != "val/count"
