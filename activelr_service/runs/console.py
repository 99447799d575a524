"""What the driver shows while a run trains: it follows the files that workers write, and logs one readable line an epoch.

A file is the queue between a training and its readers: it is on disk, it costs one line an epoch, and it outlives every
process. A reader that fails waits and tries again, and the training is not disturbed.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from activelr_service.config import TrainJob
from activelr_service.redact import redact
from activelr_service.runs.files import append_line
from activelr_service.runs.record import Record

POLL_S = 0.3
LONGEST_PAUSE_S = 30.0

VAL_LABELS = {"loss": "val loss", "accuracy": "val acc", "perplexity": "val ppl", "map_50": "val mAP50"}

Item = TypeVar("Item")


class Follower(threading.Thread, Generic[Item]):
    """Calls ``deliver`` with every item after number ``last``, in order. ``read`` is given the number of the last item that
    was delivered, and returns those after it with their numbers.

    After an exception in either, it waits and tries the same item again.
    """

    def __init__(
        self, read: Callable[[int], list[tuple[int, Item]]], deliver: Callable[[Item], None], last: int = 0
    ) -> None:
        super().__init__(daemon=True)
        self.read = read
        self.deliver = deliver
        self.last = last
        self._finish = threading.Event()

    def run(self) -> None:
        pause = POLL_S
        while not self._finish.wait(pause):
            pause = POLL_S if self.catch_up() else min(2 * pause, LONGEST_PAUSE_S)

    def catch_up(self) -> bool:
        """Deliver all items that there are; False if one could not be delivered: it is tried again later."""
        try:
            for number, item in self.read(self.last):
                self.deliver(item)
                self.last = number
        except Exception:
            return False
        return True

    def finish(self) -> bool:
        """Stop the thread and deliver the rest; False if something could not be delivered."""
        self._finish.set()
        self.join()
        return self.catch_up()


def log_to(path: Path, *, is_printed: bool = True) -> Callable[[object], None]:
    """A function that prints a line, without secrets, and appends it with the time to the log at ``path``.

    A full disk, or a terminal or pipe that is gone, does not end a training.
    """

    def log(line: object) -> None:
        text = redact(str(line))
        try:
            if is_printed:
                print(text, flush=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        try:
            append_line(path, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
        except OSError as error:
            with suppress(OSError):
                print(f"{path}: {error}", file=sys.stderr)

    return log


def progress_line(record: Record, job: TrainJob, seconds_left: float) -> str:
    """One line that reads well in a terminal and in a job log."""
    metrics = record.metrics
    shown = [job.duration.describe(record.position), f"loss {metrics.get('train/loss', math.nan):.4f}"]
    shown += _validation(metrics, job)
    if "optim/update_ratio" in metrics:
        shown.append(f"step {metrics['optim/update_ratio']:.2%}")
    elif "optim/gain_mean" in metrics:
        shown.append(f"gain {metrics['optim/gain_mean']:.3f}")
    shown.append(f"{metrics['perf/samples_per_sec']:,.0f} samples/s")
    if skipped := round(metrics.get("train/skipped", 0) + metrics.get("val/skipped", 0)):
        shown.append(f"{skipped} corrupt skipped")
    shown.append("done" if job.duration.is_over(record.position) else f"ETA {duration(seconds_left)}")
    return "  ".join(shown)


def show_score(value: float) -> str:
    """Four digits after the point; four significant digits of a very small or large one, such as an error in dollars."""
    return f"{value:.4f}" if value == 0 or 1e-2 <= abs(value) < 1e4 else f"{value:.4g}"


def reading_line(reading: Record, job: TrainJob) -> str:
    """One line about a place within an epoch."""
    metrics = reading.metrics
    step, steps = metrics["perf/step_in_epoch"], metrics["perf/steps_per_epoch"]
    shown = [job.duration.describe(reading.position), f"step {step:,.0f}/{steps:,.0f}"]
    shown.append(f"loss {metrics.get('train/loss', math.nan):.4f}")
    shown += _validation(metrics, job)
    shown.append(f"{metrics['perf/samples_per_sec']:,.0f} samples/s")
    return "  ".join([*shown, f"ETA {duration(metrics['perf/seconds_left'])}"])


def _validation(metrics: dict[str, float], job: TrainJob) -> list[str]:
    """The validation metrics of a line; among them is the one that the job names."""
    known = {label: metrics.get(f"val/{name}") for name, label in VAL_LABELS.items()}
    shown = [f"{label} {value:.4f}" for label, value in known.items() if value is not None]
    if job.metric not in VAL_LABELS and f"val/{job.metric}" in metrics:
        shown.append(f"val {job.metric} {show_score(metrics[f'val/{job.metric}'])}")
    return shown


def duration(seconds: float) -> str:
    """``1h02m`` or ``3m07s``."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{secs:02d}s"
