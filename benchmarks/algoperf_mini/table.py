"""The raw table: one line for each run, with its evaluations."""

import csv
from dataclasses import astuple, dataclass, fields
from math import inf, isfinite
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        workload: the stand-in.
        optimizer: a competitor, or ``target_07`` for the seventh drawn point of NadamW.
        seed: of the weights and of the order of the data.
        settings: JSON of what was drawn; ``{}`` for a competitor.
        steps: that it was allowed.
        every: steps between two evaluations.
        seconds: of the whole run, evaluations included.
        validation: the metric at each evaluation, lower is better.
        test: the same on the test data.
    """

    workload: str
    optimizer: str
    seed: int
    settings: str
    steps: int
    every: int
    seconds: float
    validation: tuple[float, ...]
    test: tuple[float, ...]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.workload, self.optimizer, self.seed

    def as_row(self) -> list[str]:
        """The cells of the line in the file."""
        *rest, validation, test = astuple(self)
        return [*map(str, rest), *(" ".join(f"{value:.5g}" for value in curve) for curve in (validation, test))]


FIELDS = [field.name for field in fields(Run)]


def read(path: Path) -> list[Run]:
    """All runs of a file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [parse(row) for row in csv.DictReader(file)]


def parse(row: dict[str, str]) -> Run:
    validation, test = (tuple(map(float, row[name].split())) for name in ("validation", "test"))
    return Run(
        row["workload"],
        row["optimizer"],
        int(row["seed"]),
        row["settings"],
        int(row["steps"]),
        int(row["every"]),
        float(row["seconds"]),
        validation,
        test,
    )


def best(run: Run) -> float:
    """The best value on the validation data; infinite if there is no finite one."""
    return min((value for value in run.validation if isfinite(value)), default=inf)


def steps_to(run: Run, target: float) -> float:
    """Steps until the first evaluation at the target or below; infinite if there is none."""
    for number, value in enumerate(run.validation, start=1):
        if value <= target:
            return number * run.every
    return inf
