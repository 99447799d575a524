"""How long a run is, where that is not a number of epochs."""

import re
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from activelr_service.config.base import StrictConfig

SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
DURATION = "".join(rf"(?:(\d{{1,9}}){unit})?" for unit in SECONDS)


def parse_duration(text: str) -> int:
    """Seconds of a text such as ``90s``, ``45m``, ``2h``, ``1h30m`` or ``1d``. Raises ``ValueError`` for any other."""
    found = re.fullmatch(DURATION, text, re.ASCII)
    seconds = sum(int(n) * unit for n, unit in zip(found.groups(), SECONDS.values(), strict=True) if n) if found else 0
    if seconds == 0:
        raise ValueError(f"must be a time such as 90s, 45m, 2h, 1h30m or 1d, got {text!r}")
    return seconds


def _check_duration(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError(f"needs a unit: 90s, 45m, 2h, 1h30m or 1d, got {value!r}")
    if isinstance(value, str):
        parse_duration(value)
    return value


Duration = Annotated[str, Field(json_schema_extra={"pattern": f"^{DURATION}$", "examples": ["90s", "2h", "1h30m"]})]


class BudgetConfig(StrictConfig):
    """Exactly one of ``time`` and ``steps``."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["time"]}, {"required": ["steps"]}]})

    time: Annotated[Duration | None, BeforeValidator(_check_duration)] = Field(
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

    def seconds(self) -> int | None:
        """The budget of time, if it is one."""
        return None if self.time is None else parse_duration(self.time)

    def describe(self) -> str:
        """``2h`` or ``10,000 steps``."""
        return self.time or f"{self.steps:,} steps"
