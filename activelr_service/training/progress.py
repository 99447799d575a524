"""The progress of a run, from 0 to 1: learning-rate schedules and the decay of the robust rule follow it.

Epochs and a budget of steps give the total number of steps at once. For a budget of time the total is an estimate, which all
ranks refresh together from the clock of rank 0. A training with a budget of time does not repeat itself to the last bit; its
ranks agree to the last bit.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from activelr_service.config import CompleteJob
from activelr_service.config.duration import Position
from activelr_service.runs.record import Record, elapsed
from activelr_service.training import distributed
from activelr_service.training.throughput import Throughput

FIRST_ESTIMATE = 1000  # steps of a run with a budget of time, until its first steps were timed
REWARM_SHARE = 0.05  # of the remaining steps: how long a ramp is after the duration of a run has changed


class LinearProgress(NamedTuple):
    """Progress in a straight line from ``progress`` after ``step`` steps to 1 after ``total_steps`` steps."""

    step: int
    progress: float
    total_steps: int

    def at(self, step: int) -> float:
        """The progress after ``step`` steps."""
        return self.progress + (1 - self.progress) * ((step - self.step) / (self.total_steps - self.step))


class RewarmRamp(NamedTuple):
    """An offset that is added to the progress and shrinks to 0 in ``num_steps`` steps after ``start`` steps.

    When the duration of a run changes, its progress after the same steps becomes another number. The ramp leads from the old
    number to the new line, so that step sizes which depend on the progress do not jump.
    """

    start: int = 0
    num_steps: int = 1
    offset: float = 0.0

    def at(self, step: int) -> float:
        """The offset after ``step`` steps."""
        return self.offset * max(0.0, 1 - (step - self.start) / self.num_steps)


def begin_ramp(before: float, line: LinearProgress, step: int) -> RewarmRamp:
    """The ramp from the progress ``before`` a change, which happens after ``step`` steps, to the new ``line``."""
    return RewarmRamp(step, math.ceil(REWARM_SHARE * (line.total_steps - step)), before - line.at(step))


class RunProgress:
    """Counts the steps of a run and knows its progress.

    Every rank calls every method at the same step. There is a collective only where a budget of time is measured: at the
    ends of epochs, and at a few steps that all ranks know.
    """

    def __init__(
        self,
        job: CompleteJob,
        steps_per_epoch: int,
        eval_batches: float,
        device: torch.device,
        read_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``eval_batches``: batches of the validation samples of one rank, in units of an optimizer step's samples.
        ``read_clock``: seconds from any fixed moment on."""
        self.job = job
        self.duration = job.duration
        self.steps_per_epoch = steps_per_epoch
        self.device = device
        self.read_clock = read_clock
        self.step, self.step_in_epoch = 0, 0
        total = self.duration.total_steps(steps_per_epoch)
        self.line = LinearProgress(0, 0.0, FIRST_ESTIMATE if total is None else total)
        self.ramp = RewarmRamp()
        self.ending: LinearProgress | None = None  # since early stopping has set in
        self.patience_from = 0  # patience counts epochs after this one
        self.throughput = Throughput(steps_per_epoch, eval_batches)
        self.next_measurement = 1  # after this many steps
        self.measured_step, self.measured_seconds = 0, 0.0  # at the last measurement
        self.seconds_before = 0.0  # in earlier attempts
        self.started: float | None = None

    def restore(self, history: list[Record], state: dict[str, Any]) -> None:
        """Continue after ``history``, with the ``state`` that a checkpoint keeps.

        If the job has another duration now, the progress goes to that of the new duration in a ramp.
        """
        within = state.get("within") or self._at_end_of(history)
        self.step, self.seconds_before = within["step"], within["seconds"]
        self.next_measurement = self.step + 1
        self.throughput.seconds_per_step = within["seconds_per_step"]
        is_same = state.get("length") in (None, self._saved_duration())
        position = history[-1].position if history else Position(0, 0, 0.0, None)
        self.patience_from = state.get("patience_from", 0) if is_same else position.epoch
        before = within["progress"]
        self.ramp = RewarmRamp(*state.get("ramp", ())) if is_same else RewarmRamp()
        left_in_epoch = self.steps_per_epoch - within["step_in_epoch"]
        self.line = self._restored_line(position, before - self.ramp.at(self.step) if is_same else None, left_in_epoch)
        if not is_same:
            self.ramp = begin_ramp(before, self.line, self.step)
        elif state.get("ending"):
            self.line = self.ending = LinearProgress(*state["ending"])

    def state_dict(self, *, within_epoch: bool = False) -> dict[str, Any]:
        """What a checkpoint keeps besides its history: plain JSON. ``within_epoch``: the epoch is to be continued."""
        state: dict[str, Any] = {"length": self._saved_duration(), "ramp": list(self.ramp)}
        if self.ending is not None:
            state["ending"] = list(self.ending)
        if self.patience_from:
            state["patience_from"] = self.patience_from
        if within_epoch:
            state["within"] = {
                "step": self.step,
                "step_in_epoch": self.step_in_epoch,
                "seconds": self.seconds(),
                "seconds_per_step": self.throughput.seconds_per_step,
                "progress": self.at(self.step),
            }
        return state

    def is_over(self) -> bool:
        """Whether the run has taken its last step."""
        return self.step >= self.line.total_steps

    def at(self, step: int) -> float:
        """The progress after ``step`` steps, from 0 to 1."""
        return 1.0 if step >= self.line.total_steps else min(1.0, self.line.at(step) + self.ramp.at(step))

    def end_within(self, num_steps: int, progress: float) -> None:
        """Early stopping: the run decays and ends within the next ``num_steps``. The progress goes to 1 in a straight line,
        from ``progress``, that of the best epoch."""
        self.ending = LinearProgress(self.step, progress, self.step + num_steps)
        self.line, self.ramp = self.ending, RewarmRamp()

    def share_of_ending(self) -> float:
        """How much of the decay of early stopping is behind, from 0 to 1; 0 if it has not set in."""
        return (
            0.0 if self.ending is None else (self.step - self.ending.step) / (self.line.total_steps - self.ending.step)
        )

    def ended_duration(self) -> str | None:
        """The text of the duration that early stopping has cut short, once the run is over."""
        return self.duration.text if self.ending is not None and self.is_over() else None

    def seconds(self) -> float:
        """Seconds in the training loop, over all attempts, by the clock of this rank. It starts with the first epoch."""
        return self.seconds_before + (0.0 if self.started is None else self.read_clock() - self.started)

    def begin_epoch(self, steps: int = 0) -> None:
        """Call it before the first step of an epoch, or after so many ``steps`` of an interrupted one. It measures how long
        the end of the epoch before took."""
        if self.started is None:
            self.started = self.read_clock()
        now = self._measure()
        if now is not None and self.step_in_epoch > 0:
            self.throughput.add_end(now - self.measured_seconds)
        self.step_in_epoch = steps
        if now is not None:
            self._reestimate_total(now)

    def end_step(self) -> None:
        """Call it after an optimizer step."""
        self.step += 1
        self.step_in_epoch += 1
        is_inside_epoch = not self.is_over() and self.step_in_epoch < self.steps_per_epoch
        if self.step >= self.next_measurement and is_inside_epoch:
            now = self._measure_steps()
            if now is not None:
                self._reestimate_total(now)

    def end_epoch(self) -> None:
        """Call it after the last step of an epoch, before its evaluation."""
        self._measure_steps()

    def _saved_duration(self) -> dict[str, Any]:
        """The duration as checkpoints keep it."""
        return self.job.model_dump(include={"epochs", "budget"}, mode="json")

    def _at_end_of(self, history: list[Record]) -> dict[str, Any]:
        """Where a run is whose last record ended an epoch."""
        metrics = history[-1].metrics
        return {
            "step": history[-1].global_step,
            "step_in_epoch": 0,
            "seconds": elapsed(history),
            "seconds_per_step": self.job.global_batch_size / metrics["perf/samples_per_sec"],
            "progress": metrics.get("optim/progress", 0.0),
        }

    def _restored_line(self, last: Position, progress: float | None, left_in_epoch: int) -> LinearProgress:
        """The line of a restored run, whose last epoch ended at ``last``.

        Steps and epochs fix it. With a budget of time it goes on from ``progress``; None if the duration has changed.
        """
        total = self.duration.steps_after(last, self.steps_per_epoch)
        if total is not None:
            return LinearProgress(0, 0.0, total)
        if progress is not None and progress >= 1:
            return LinearProgress(0, 0.0, self.step)
        rest = self._steps_left(self.seconds_before, left_in_epoch)
        total = self.step + (1 if rest is None else max(1, rest))
        return LinearProgress(self.step, self.step / total if progress is None else progress, total)

    def _steps_left(self, now: float, left_in_epoch: int) -> int | None:
        """The steps that a budget of time has room for ``now``; None without one, or as long as nothing was timed."""
        seconds = self.duration.seconds
        return None if seconds is None else self.throughput.steps_within(seconds - now, left_in_epoch)

    def _measure(self) -> float | None:
        """The seconds of rank 0, on every rank; None without a budget of time, and where the last step is known."""
        if self.duration.seconds is None or self.ending is not None:
            return None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # steps are launched ahead of the device
        return distributed.broadcast_int(round(self.seconds() * 1e6), self.device) / 1e6

    def _measure_steps(self) -> float | None:
        """As :meth:`_measure`; the throughput learns from the steps since the last measurement."""
        now = self._measure()
        if now is not None:
            self.throughput.add_steps(self.step - self.measured_step, now - self.measured_seconds)
            self.measured_step, self.measured_seconds = self.step, now
        return now

    def _reestimate_total(self, now: float) -> None:
        """Draw the line anew, from where the progress is to the new estimate of the total. Progress never goes back."""
        left = self._steps_left(now, self.steps_per_epoch - self.step_in_epoch)
        total = self.line.total_steps if left is None else self.step + left
        self.line = LinearProgress(self.step, self.line.at(self.step), max(total, self.step + 1))
        self.measured_step, self.measured_seconds = self.step, now
        self.next_measurement = self.throughput.next_measurement(self.step, self.line.total_steps)
