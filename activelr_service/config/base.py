"""The strict base of every config class and the one error that bad input raises."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Location = tuple[str | int, ...]
PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class StrictConfig(BaseModel):
    """Unknown keys, wrong types, NaN and infinity are errors at every level; instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class Problem(NamedTuple):
    """One thing wrong with a job: where (``()`` is the whole document) and what to do about it."""

    location: Location
    message: str


class JobError(ValueError):
    """A job that cannot be run. ``problems`` has them all; the text has one line for each."""

    def __init__(self, problems: Sequence[Problem], places: Sequence[str] | None = None) -> None:
        self.problems = list(problems)
        self.places = list(places) if places is not None else [""] * len(self.problems)
        super().__init__("\n".join(map(_line, self.places, self.problems)))

    @classmethod
    def at(cls, location: str, message: str) -> "JobError":
        """The error of one problem, at a dotted path such as ``data.root``."""
        return cls([Problem(tuple(location.split(".")) if location else (), message)])


class CommandError(RuntimeError):
    """What was asked for cannot be done, for a reason outside the job's text."""

    exit_code = 2


def dotted(location: Location) -> str:
    """``('model', 'hidden', 0)`` as ``model.hidden[0]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _line(place: str, problem: Problem) -> str:
    return ": ".join(part for part in (place, dotted(problem.location), problem.message) if part)
