"""What is written about an epoch, and about an error that ends a run. Checkpoint, journal, log and tracker get the same."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from activelr_service.config import TrainJob
from activelr_service.config.duration import Position
from activelr_service.errors import says_out_of_memory

GAIN_DECADES = (-3, 2)
BINS_PER_DECADE = 20
UPDATE_PREFIX = "update/"
OLDER_FIELDS = {
    "step": "update_ratio",
    "rate": "effective_lr",
    "agreeing": "sign_agreement",
    "capped": "clip_fraction",
    "cosine": "cosine",
}
GRAD_NORM_PREFIX = "grad_l1/"


KINDS_BY_TYPE = {"NonFiniteLossError": "diverged", "MemoryError": "memory", "OutOfMemoryError": "memory"}


class Failure(NamedTuple):
    """An error of a worker that another worker group would meet again. ``type`` is the name of its class, ``kind`` a key
    of :data:`~activelr_service.errors.EXIT_CODES`, ``rank`` the rank that met it first."""

    type: str
    kind: str
    message: str
    rank: int
    traceback: str

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Failure":
        """Read a failure. Files of version 0.1.0 have fewer kinds: there the type and the message tell the others."""
        kind = kept.get("kind", "training")
        if kind in ("training", "environment"):
            kind = "memory" if says_out_of_memory(kept["message"]) else KINDS_BY_TYPE.get(kept["type"], kind)
        return cls(kept["type"], kind, kept["message"], kept.get("rank", 0), kept.get("traceback", ""))


@dataclass(frozen=True)
class Record:
    """One epoch. ``timestamp_ms`` is taken once, so that logging a record again changes nothing in MLflow;
    ``gain_histogram`` is empty where the optimizer has no gains. ``ended`` is the text of the duration that early stopping
    has cut short with this epoch, or None."""

    epoch: int
    global_step: int
    timestamp_ms: int
    metrics: dict[str, float]
    gain_histogram: list[int]
    ended: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; ``ended`` is left out where it is None."""
        return {name: value for name, value in asdict(self).items() if name != "ended" or value is not None}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Record":
        """A record as :meth:`to_json` made it, or a version of this package that had other names for metrics."""
        record = cls(**values)
        return replace(record, metrics={_present_name(name): value for name, value in record.metrics.items()})

    def to_row(self) -> dict[str, float]:
        """The metrics with the epoch, the time and the number of optimizer steps, as a tracker takes them."""
        row = {"epoch": self.epoch, "timestamp_ms": self.timestamp_ms, **self.metrics}
        return {**row, "global_step": float(self.global_step)}

    @property
    def position(self) -> Position:
        """How far the run is at the end of this epoch."""
        seconds = self.metrics.get("perf/elapsed_seconds", 0.0)
        return Position(self.epoch, self.global_step, seconds, self.metrics.get("optim/progress"), self.ended)


def _present_name(name: str) -> str:
    if name == "perf/rows":
        return "perf/samples"
    prefix, _, rest = name.partition("/")
    field, slash, group = rest.partition("/")
    if prefix == "pace" and field in OLDER_FIELDS:
        return f"{UPDATE_PREFIX}{OLDER_FIELDS[field]}{slash}{group}"
    return f"optim/{OLDER_FIELDS[rest]}" if prefix == "optim" and rest in OLDER_FIELDS else name


def gain_edges() -> list[float]:
    """Edges of the gain histogram, evenly spaced in log10."""
    low, high = GAIN_DECADES
    count = (high - low) * BINS_PER_DECADE
    return [10 ** (low + index / BINS_PER_DECADE) for index in range(count + 1)]


def finite_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Without the values that are not finite, which JSON and MLflow's plots cannot hold."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def update_groups(history: list[Record]) -> list[str]:
    """The groups of tensors whose updates were recorded, from the input of the model to its output."""
    start = f"{UPDATE_PREFIX}update_ratio/"
    return [name.removeprefix(start) for name in (history[-1].metrics if history else {}) if name.startswith(start)]


def update_series(history: list[Record], field: str, group: str) -> list[tuple[int, float]]:
    """(epoch, value) of a field of a group, where it was measured."""
    name = f"{UPDATE_PREFIX}{field}/{group}"
    return [(record.epoch, record.metrics[name]) for record in history if name in record.metrics]


def best_epoch(history: list[Record], score: str, higher_is_better: bool) -> int:
    """The epoch with the best ``val/{score}``; of equal ones that with the lowest ``val/loss``, and of these the first. The
    last epoch if none has a score."""
    sign = 1 if higher_is_better else -1
    name = f"val/{score}"
    scored = [
        (sign * record.metrics[name], -record.metrics.get("val/loss", math.inf), -record.epoch)
        for record in history
        if name in record.metrics
    ]
    return -max(scored)[2] if scored else history[-1].epoch


def elapsed(history: list[Record]) -> float:
    """Seconds in the training loop up to the last record, over all attempts. Older records have only those of each epoch."""
    total = sum(record.metrics["perf/epoch_seconds"] for record in history)
    return history[-1].metrics.get("perf/elapsed_seconds", total)


def describe_early_stop(last: Record, job: TrainJob, score: str) -> str | None:
    """Why and when a run has ended before its length was used up, from its last record; None if it has not.

    ``score``: the name of the metric, such as ``val/accuracy``.
    """
    if last.ended is None or job.early_stop is None:
        return None
    patience = "1 epoch" if job.early_stop.patience == 1 else f"{job.early_stop.patience} epochs"
    return f"early stop with epoch {last.epoch}, before {last.ended}: {score} had not improved for {patience}"


def seconds_left(history: list[Record], job: TrainJob) -> float:
    """What is left of a budget of time; else what the remaining epochs or steps will take, from the mean of the last five
    epochs. Once early stopping has set in, its steps are those that remain."""
    last, budget = history[-1], job.duration.seconds
    steps_left = last.metrics.get("optim/steps_left")
    if budget is not None and steps_left is None:
        return max(0.0, (1 - job.duration.share_used(last.position)) * budget)
    recent = history[-5:]
    before = history[-6].global_step if len(history) > 5 else 0
    seconds_per_step = sum(record.metrics["perf/epoch_seconds"] for record in recent) / (last.global_step - before)
    if steps_left is not None:
        return seconds_per_step * steps_left
    share = job.duration.share_used(last.position)
    return seconds_per_step * last.global_step * (1 - share) / share
