"""How much of the run is done: learning-rate schedules and the robust rule's decay follow it.

The total number of steps is known for epochs and a budget of steps. For a budget of time it is an estimate that all ranks
refresh together, from rank 0's clock; a training with one does not repeat itself to the last bit, its replicas agree to it.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from activelr_service.config import TrainJob
from activelr_service.runs.record import Record
from activelr_service.training import distributed
from activelr_service.training.throughput import Throughput

FIRST_GUESS = 1000  # steps of a run, until the first of them were timed
REWARM = 0.05  # of the steps that remain, when a run is made longer or shorter


class Line(NamedTuple):
    """The share ``done`` of the run after ``step`` steps, and from there in a straight line to 1 after ``total``."""

    step: int
    done: float
    total: int

    def at(self, step: int) -> float:
        return self.done + (1 - self.done) * ((step - self.step) / (self.total - self.step))


class Ramp(NamedTuple):
    """Where the total of a run was changed, after ``start`` steps, the share done goes to its new line over ``steps`` steps,
    from ``offset`` beside it: step lengths that depend on it do not jump."""

    start: int = 0
    steps: int = 1
    offset: float = 0.0

    def at(self, step: int) -> float:
        return self.offset * max(0.0, 1 - (step - self.start) / self.steps)


def begin_ramp(before: float, line: Line, step: int) -> Ramp:
    """From the share done ``before`` the change, after ``step`` steps, to the new line."""
    return Ramp(step, math.ceil(REWARM * (line.total - step)), before - line.at(step))


class Progress:
    """Counts the steps of a run. Every rank calls every method at the same step; between the refreshes of a time budget
    there is no collective."""

    def __init__(
        self,
        job: TrainJob,
        steps_per_epoch: int,
        eval_batches: float,
        device: torch.device,
        read_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job = job
        self.steps_per_epoch = steps_per_epoch
        self.device = device
        self.read_clock = read_clock
        self.done, self.done_in_epoch = 0, 0
        self.line = Line(0, 0.0, job.duration.total_steps(steps_per_epoch) or FIRST_GUESS)
        self.ramp = Ramp()
        self.throughput = Throughput(steps_per_epoch, eval_batches)
        self.check_at = 1
        self.seconds_before = 0.0
        self.started: float | None = None
        self.checked = (0, 0.0)  # the last time that was measured: steps and seconds

    def restore(self, history: list[Record], state: dict[str, Any]) -> None:
        """Continue after ``history``, with the ``state`` of its checkpoint. If the job has another length now, the share
        done goes to that of the new length in a ramp."""
        metrics = history[-1].metrics
        self.done = history[-1].global_step
        self.check_at = self.done + 1
        self.seconds_before = elapsed_seconds(history)
        self.throughput.seconds_per_step = (self.job.global_batch_size or 1) / metrics["perf/samples_per_sec"]
        is_same = state.get("length") in (None, self._length())
        before = metrics.get("optim/progress", 0.0)
        self.ramp = Ramp(*state.get("ramp", ())) if is_same else Ramp()
        self.line = self._line_from(history, before - self.ramp.at(self.done) if is_same else None)
        if not is_same:
            self.ramp = begin_ramp(before, self.line, self.done)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps besides its history: plain JSON."""
        return {"length": self._length(), "ramp": list(self.ramp)}

    def is_over(self) -> bool:
        """Whether the run has taken its last step."""
        return self.done >= self.line.total

    def share(self, step: int | None = None) -> float:
        """The share of the run that is done after ``step`` steps, by default those taken so far."""
        step = self.done if step is None else step
        return 1.0 if step >= self.line.total else min(1.0, self.line.at(step) + self.ramp.at(step))

    def seconds(self) -> float:
        """Time in the loop, over all attempts, by this rank's clock: it starts with the first epoch."""
        return self.seconds_before + (0.0 if self.started is None else self.read_clock() - self.started)

    def begin_epoch(self) -> None:
        """Before the first step of an epoch."""
        if self.started is None:
            self.started = self.read_clock()
        now = self._measure()
        if now is not None and self.done_in_epoch > 0:
            self.throughput.add_end(now - self.checked[1])
        self.done_in_epoch = 0
        if now is not None:
            self._aim(now)

    def end_step(self) -> None:
        """After an optimizer step."""
        self.done += 1
        self.done_in_epoch += 1
        if self.done >= self.check_at and not self.is_over() and self.done_in_epoch < self.steps_per_epoch:
            now = self._measure_steps()
            if now is not None:
                self._aim(now)

    def end_epoch(self) -> None:
        """After the last step of an epoch, before its evaluation."""
        self._measure_steps()

    def _length(self) -> dict[str, Any]:
        return self.job.model_dump(include={"epochs", "budget"}, mode="json")

    def _line_from(self, history: list[Record], done: float | None) -> Line:
        """The line of the restored run: through ``done`` where a budget of time has been followed so far, else through the
        share of steps."""
        budget, total = (
            self.job.duration.seconds,
            self.job.duration.steps_after(history[-1].position, self.steps_per_epoch),
        )
        if total is not None:
            return Line(0, 0.0, total)
        assert budget
        if done is not None and done >= 1:
            return Line(0, 0.0, self.done)
        total = self.done + max(
            1, self.throughput.steps_within(budget - self.seconds_before, self.steps_per_epoch) or 0
        )
        return Line(self.done, self.done / total if done is None else done, total)

    def _measure(self) -> float | None:
        """Rank 0's seconds, on every rank, where there is a budget of time."""
        if self.job.duration.seconds is None:
            return None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # steps are launched ahead of the device
        return distributed.broadcast_int(round(self.seconds() * 1e6), self.device) / 1e6

    def _measure_steps(self) -> float | None:
        now = self._measure()
        if now is not None:
            self.throughput.add_steps(self.done - self.checked[0], now - self.checked[1])
            self.checked = (self.done, now)
        return now

    def _aim(self, now: float) -> None:
        """Draw the line to the new estimate of the total, from where it has come to: never backwards."""
        left = self.throughput.steps_within(
            (self.job.duration.seconds or 0) - now, self.steps_per_epoch - self.done_in_epoch
        )
        total = self.line.total if left is None else self.done + left
        self.line = Line(self.done, self.line.at(self.done), max(total, self.done + 1))
        self.checked = (self.done, now)
        self.check_at = self.throughput.next_check(self.done, self.line.total)


def elapsed_seconds(history: list[Record]) -> float:
    """Time in the loop up to the last record, over all attempts; of records without it, the sum of their epochs'."""
    total = sum(record.metrics["perf/epoch_seconds"] for record in history)
    return history[-1].metrics.get("perf/elapsed_seconds", total)
