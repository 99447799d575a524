"""What happens between two steps of an epoch: its place is shown, the loss is read, the model is evaluated, and a checkpoint
is written, each when it is due. The steps themselves do not change by it, not in the last bit."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from activelr_service.errors import NonFiniteLossError
from activelr_service.runs.live import Live, append_reading
from activelr_service.runs.record import Record, finite_metrics
from activelr_service.runs.run import Run
from activelr_service.training import distributed
from activelr_service.training.agenda import Agenda
from activelr_service.training.batches import random_states, set_random_states
from activelr_service.training.build import TrainContext
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.checkpoint_files import named_state
from activelr_service.training.evaluate import evaluate
from activelr_service.training.optimizers import set_training, uses_lr
from activelr_service.training.running_epoch import RunningEpoch

LIVE_S = 1.0  # seconds between two changes of live.json
LOG, EVALUATE, CHECKPOINT = "log", "evaluate", "checkpoint"


class WithinEpoch:
    """Call it after every step of an epoch, on every rank. ``history`` holds the epochs that have ended, and grows."""

    def __init__(self, training: TrainContext, checkpoints: CheckpointStore, history: list[Record]) -> None:
        job = training.job
        self.training = training
        self.checkpoints = checkpoints
        self.history = history
        self.run = Run(checkpoints.journal.parent)
        intervals = {LOG: job.log_every, EVALUATE: job.evaluate_every, CHECKPOINT: job.checkpoint_every}
        self.agenda = Agenda(intervals, training.device)
        self.read: dict[str, float] = {}  # the sums of the epoch at the last reading
        self.read_at = (0, 0.0)  # the step of the epoch and its seconds of training, then
        self.loss: float | None = None
        self.shown_at = -math.inf

    def begin(self, running: RunningEpoch) -> None:
        """Call it before the first step of an epoch, or of what is left of it."""
        self.agenda.mark_all(self.training.progress.step)
        self.read = self._sums(running) if running.steps else {}
        self.read_at = (running.steps, running.train_seconds)

    def __call__(self, running: RunningEpoch) -> None:
        step = self.training.progress.step
        if running.steps == self.training.steps_per_epoch or self.training.progress.is_over():
            return  # the end of the epoch does all of it
        due = self.agenda.due(step)
        if due:
            self._do(due, running)
            self.agenda.mark(step, due)
        if distributed.rank() == 0 and time.monotonic() - self.shown_at >= LIVE_S:
            self.shown_at = time.monotonic()
            self._live(running).write(self.run.live)

    def _do(self, due: set[str], running: RunningEpoch) -> None:
        """What is due. A checkpoint is never written of weights that a loss which is not finite has spoiled."""
        sums, metrics = self._sums(running), {}
        if due & {LOG, EVALUATE}:
            metrics = self._read_loss(running, sums)
        start = time.monotonic()
        if EVALUATE in due:
            metrics |= {f"val/{name}": value for name, value in evaluate_within(self.training).items()}
        if metrics and distributed.rank() == 0:
            now = round(time.time() * 1000)
            reading = Record(running.epoch, self.training.progress.step, now, finite_metrics(metrics), [])
            append_reading(self.run.readings, reading)
        if CHECKPOINT in due:
            self._checkpoint(running)
        running.paused += time.monotonic() - start

    def _read_loss(self, running: RunningEpoch, sums: dict[str, float]) -> dict[str, float]:
        """The loss since the last reading, and what else the log shows; ``sums`` are those of the epoch over all ranks."""
        live = self._live(running)
        since = {name: value - self.read.get(name, 0.0) for name, value in sums.items()}
        self.read, self.read_at = sums, (running.steps, running.train_seconds)
        metrics = {
            "perf/samples_per_sec": live.samples_per_sec,
            "perf/seconds_left": live.seconds_left,
            "perf/elapsed_seconds": self.training.progress.seconds(),
            "perf/step_in_epoch": float(running.steps),
            "perf/steps_per_epoch": float(self.training.steps_per_epoch),
        }
        if since["count"] > 0:
            self.loss = self.training.task.compute_metrics(since)["loss"]
            metrics["train/loss"] = self.loss
        return metrics

    def _sums(self, running: RunningEpoch) -> dict[str, float]:
        sums = running.totals.over_ranks(running.steps)
        check_finite(self.training, running, sums)
        return sums

    def _checkpoint(self, running: RunningEpoch) -> None:
        training, step = self.training, running.steps
        distributed.broadcast_buffers(training.model, training.device)
        distributed.check_replicas(
            named_state(training.model, training.optimizer), running.epoch, training.device, step
        )
        running.add_joules()
        parts = distributed.gather_texts(json.dumps(running.to_json()), training.device)
        self.checkpoints.commit_within(training, self.history, step, [json.loads(part) for part in parts])

    def _live(self, running: RunningEpoch) -> Live:
        step, seconds = self.read_at
        steps = running.steps - step
        rate = steps / max(running.train_seconds - seconds, 1e-6)
        if steps == 0:
            rate = running.steps / max(running.train_seconds, 1e-6)
        left = self._seconds_left(rate)
        samples = rate * self.training.job.global_batch_size
        return Live(running.epoch, running.steps, self.training.steps_per_epoch, samples, left, self.loss)

    def _seconds_left(self, steps_per_sec: float) -> float:
        """What is left of a budget of time; else what the steps to come will take, with the ends of their epochs."""
        progress = self.training.progress
        if progress.duration.seconds is not None and progress.ending is None:
            return max(0.0, progress.duration.seconds - progress.seconds())
        steps = progress.line.total_steps - progress.step
        end = 0.0
        if self.history:
            metrics = self.history[-1].metrics
            end = metrics["perf/epoch_seconds"] - metrics["perf/samples"] / metrics["perf/samples_per_sec"]
        return steps / max(steps_per_sec, 1e-6) + end * math.ceil(steps / self.training.steps_per_epoch)


def evaluate_within(training: TrainContext) -> dict[str, float]:
    """The validation metrics in the middle of an epoch. The training goes on as if nothing had been."""
    distributed.broadcast_buffers(training.model, training.device)
    with _as_at_the_end(training):
        return evaluate(training.task, training.model, training.val_loader, training.device, training.job.precision)


@contextmanager
def _as_at_the_end(training: TrainContext) -> Iterator[None]:
    """The weights that an epoch would end with. Random states, and the weights of the training, are put back after it.

    A schedule-free optimizer changes the weights for the evaluation and back, which is not exact in the last bit.
    """
    states = random_states(training.device)
    switches = hasattr(training.optimizer, "eval")
    params = list(training.model.parameters()) if switches else []
    kept = [param.detach().clone() for param in params]
    set_training(training.optimizer, False)
    try:
        yield
    finally:
        set_training(training.optimizer, True)
        training.replica.train()
        set_random_states(states, training.device)
        with torch.no_grad():
            for param, before in zip(params, kept, strict=True):
                param.copy_(before)


def check_finite(training: TrainContext, running: RunningEpoch, sums: dict[str, float]) -> None:
    """Raise :class:`NonFiniteLossError` with the first step whose loss was not finite, if there was one."""
    if "first_bad_step" in sums:
        raise NonFiniteLossError(
            f"the loss was not finite at epoch {running.epoch}, step {int(sums['first_bad_step']) + 1} of "
            f"{training.steps_per_epoch}; check the data for extreme values, or set "
            f"{' or '.join(stability_hints(training))}"
        )


def stability_hints(training: TrainContext) -> list[str]:
    """The settings that keep a loss finite."""
    return ["clip_grad_norm", "a smaller optimizer.lr"] if uses_lr(training.optimizer) else ["clip_grad_norm"]
