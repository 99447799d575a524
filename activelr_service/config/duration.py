"""The length of a run: a number of epochs, of optimizer steps, or a time. All that is known about lengths is here, and the
intervals at which something is done within a run."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from activelr_service.config.base import StrictConfig

SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
TIME = "".join(rf"(?:(\d{{1,9}}){unit})?" for unit in SECONDS)


def parse_time(text: str) -> int:
    """Seconds of a text such as ``90s``, ``45m``, ``2h``, ``1h30m`` or ``1d``. Raises ``ValueError`` for any other."""
    found = re.fullmatch(TIME, text, re.ASCII)
    seconds = sum(int(n) * unit for n, unit in zip(found.groups(), SECONDS.values(), strict=True) if n) if found else 0
    if seconds == 0:
        raise ValueError(f"must be a time such as 90s, 45m, 2h, 1h30m or 1d, got {text!r}")
    return seconds


def _check_time(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError(f"needs a unit: 90s, 45m, 2h, 1h30m or 1d, got {value!r}")
    if isinstance(value, str):
        parse_time(value)
    return value


Time = Annotated[str, Field(json_schema_extra={"pattern": f"^{TIME}$", "examples": ["90s", "2h", "1h30m"]})]


class BudgetConfig(StrictConfig):
    """Exactly one of ``time`` and ``steps``."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["time"]}, {"required": ["steps"]}]})

    time: Annotated[Time | None, BeforeValidator(_check_time)] = Field(
        None,
        description="Time in the training loop, with evaluation and checkpoints, over all attempts: 90s, 45m, 2h, 1h30m, "
        "1d. Starting up, and the time between attempts, do not count.",
    )
    steps: int | None = Field(None, ge=1, le=10**12, description="Optimizer steps.")

    @model_validator(mode="after")
    def one_of_the_two(self) -> Self:
        if self.time is not None and self.steps is not None:
            raise ValueError("give time or steps, not both")
        if self.time is None and self.steps is None:
            raise ValueError("give time, such as 2h, or steps, such as 10000")
        return self


class IntervalConfig(StrictConfig):
    """Exactly one of ``steps`` and ``minutes``. A text such as 30s or 10m stands for the minutes."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["steps"]}, {"required": ["minutes"]}]})

    steps: int | None = Field(None, ge=1, le=10**12, description="Optimizer steps, counted from the start of the run.")
    minutes: float | None = Field(None, gt=0, le=10**6, description="Minutes by the clock of the first worker.")

    @model_validator(mode="after")
    def one_of_the_two(self) -> Self:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give steps or minutes: {steps: 500}, {minutes: 10}, or a time such as 10m")
        return self

    @property
    def seconds(self) -> float | None:
        """None where steps decide."""
        return None if self.minutes is None else 60 * self.minutes

    def __str__(self) -> str:
        return f"{self.steps:,} steps" if self.minutes is None else f"{self.minutes:g} minutes"


def _read_interval(value: Any) -> Any:
    """A time such as 30s becomes minutes."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"needs a unit: 30s, 10m or {{steps: 500}}, got {value!r}")
    return {"minutes": parse_time(value) / 60} if isinstance(value, str) else value


Interval = Annotated[IntervalConfig, BeforeValidator(_read_interval, json_schema_input_type=IntervalConfig | Time)]


class EarlyStopConfig(StrictConfig):
    """When a run ends before its length is used up."""

    patience: int = Field(
        ge=1, le=10_000, description="Epochs in a row without a better score, after which the run decays and ends."
    )


class Position(NamedTuple):
    """How far a run is: epochs and optimizer steps done, seconds in the training loop, and the progress from 0 to 1.

    ``progress`` is None in the records of versions that did not write it. ``ended`` is the text of the duration that early
    stopping has cut short here, or None.
    """

    epoch: int
    step: int
    seconds: float
    progress: float | None
    ended: str | None = None


@dataclass(frozen=True)
class Duration:
    """How long a run is: ``value`` counts ``unit``, and ``text`` says it: ``20 epochs``, ``10,000 steps``, ``2h``."""

    value: int
    unit: Literal["epochs", "steps", "seconds"]
    text: str

    @classmethod
    def of(cls, epochs: int | None, budget: BudgetConfig | None) -> "Duration":
        """The duration that these two keys of a job say; exactly one of them is given."""
        if epochs is not None:
            return cls(epochs, "epochs", "1 epoch" if epochs == 1 else f"{epochs} epochs")
        if budget is not None and budget.time is not None:
            return cls(parse_time(budget.time), "seconds", budget.time)
        if budget is not None and budget.steps is not None:
            return cls(budget.steps, "steps", f"{budget.steps:,} steps")
        raise ValueError("a job has epochs or a budget")

    def __str__(self) -> str:
        return self.text

    def keys(self) -> dict[str, Any]:
        """The two keys of a job that say this duration."""
        if self.unit == "epochs":
            return {"epochs": self.value, "budget": None}
        budget = BudgetConfig(time=self.text) if self.unit == "seconds" else BudgetConfig(steps=self.value)
        return {"epochs": None, "budget": budget}

    @property
    def path(self) -> str:
        """The key of a job that holds the value."""
        return {"epochs": "epochs", "steps": "budget.steps", "seconds": "budget.time"}[self.unit]

    @property
    def seconds(self) -> int | None:
        """Seconds of the whole run; None where epochs or steps decide."""
        return self.value if self.unit == "seconds" else None

    def total_steps(self, steps_per_epoch: int) -> int | None:
        """Optimizer steps of the whole run; None where a time decides."""
        if self.unit == "seconds":
            return None
        return self.value if self.unit == "steps" else self.value * steps_per_epoch

    def steps_after(self, position: Position, steps_per_epoch: int) -> int | None:
        """The total of a run that goes on from ``position`` with ``steps_per_epoch``; None where a time decides.

        The epochs before ``position`` may have had another number of steps. The total is never less than the steps done.
        """
        if self.unit == "seconds":
            return None
        rest = self.value - position.step
        if self.unit == "epochs":
            rest = (self.value - position.epoch) * steps_per_epoch
        return position.step + max(0, rest)

    def total_samples(self, num_train: int) -> int | None:
        """Training samples that all epochs take together; None where steps or a time decide."""
        return self.value * num_train if self.unit == "epochs" else None

    def share_used(self, position: Position) -> float:
        """How much of the epochs, steps or time is used up: 1 is all of it."""
        used = {"epochs": position.epoch, "steps": position.step, "seconds": position.seconds}
        return used[self.unit] / self.value

    def is_over(self, position: Position) -> bool:
        """Whether the run ends at ``position``. A budget of time ends where no further step fits into it; early stopping
        ends the duration that it cut short, and no other."""
        if position.ended == self.text:
            return True
        if self.unit == "seconds":
            return position.progress is not None and position.progress >= 1
        return self.share_used(position) >= 1

    def describe(self, position: Position) -> str:
        """The place in the run, for a log line: ``epoch  3/20``, or ``epoch 3  41 % of 2h``."""
        if self.unit == "epochs":
            return f"epoch {position.epoch:>{len(str(self.value))}}/{self.value}"
        return f"epoch {position.epoch}  {min(100.0, 100 * self.share_used(position)):.0f} % of {self.text}"

    def describe_change(self, new: "Duration", position: Position | None) -> str:
        """``extended from 20 to 40 epochs; progress goes back from 100 % to 50 %``. ``position`` is None before the first
        epoch has ended."""
        before, unit = self.text, new.text.partition(" ")[2]
        if unit and before.endswith(unit):
            before = before.removesuffix(f" {unit}")
        if position is None:
            return f"changed from {before} to {new}; nothing was done yet"
        was = 1.0 if position.progress is None else position.progress
        becomes = new.share_used(position)
        verb, goes = ("extended", "goes back") if becomes < was else ("shortened", "goes on")
        return f"{verb} from {before} to {new}; progress {goes} from {was * 100:.0f} % to {becomes * 100:.0f} %"


def drop_other_duration(target: dict[str, Any], changes: dict[str, Any]) -> None:
    """Take out of ``target``, in place, the keys of a duration that ``changes`` replace by another one.

    ``epochs``, ``budget.time`` and ``budget.steps`` stand for each other.
    """
    if changes.get("epochs") is not None or changes.get("budget") is not None:
        target.pop("budget", None)
    if changes.get("budget") is not None:
        target.pop("epochs", None)
