"""What is to be said about raw input: categories that no training row had, columns that are not used."""

import logging
from collections import Counter

from activelr_service.data.info import shorten

LOG = logging.getLogger("activelr_service.inference")


class Notes:
    """Collects what was found in raw input, row by row, so that each thing is said once.

    ``unknown`` counts the rows of each unknown category, by column and by category. ``lines`` are sentences; equal ones
    count once.
    """

    def __init__(self) -> None:
        self.unknown: dict[str, Counter[str]] = {}
        self.lines: dict[str, None] = {}
        self._said: set[str] = set()

    def say(self, line: str) -> None:
        self.lines[line] = None

    def count_unknown(self, column: str, names: Counter[str]) -> None:
        self.unknown.setdefault(column, Counter()).update(names)

    def log(self) -> None:
        """Log what was collected since the last call. A line or a category that was logged before is left out."""
        lines = [*self.lines]
        for column, names in self.unknown.items():
            if fresh := {name: count for name, count in names.items() if f"{column}={name}" not in self._said}:
                self._said |= {f"{column}={name}" for name in fresh}
                shown = shorten(map(repr, fresh), 5)
                text = f"the column {column!r} has categories that no training row has, counted as none of them"
                number = sum(fresh.values())
                lines.append(f"{text}: {shown} (in {number:,} row{'s' * (number != 1)})")
        self.unknown.clear()
        self.lines.clear()
        for line in lines:
            if line not in self._said:
                self._said.add(line)
                LOG.warning("%s", line)
