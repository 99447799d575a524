"""Who may write to a run: only the processes of its newest attempt.

A worker can live longer than its driver, for example on a machine that lost its network. When the machine is back, another
attempt may be training the run. So every attempt has a number, and every worker group within an attempt has one. Before a
worker commits, deletes or appends anything, it takes a lock and compares its numbers with the newest.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from activelr_service.errors import SupersededError
from activelr_service.runs.files import take_lock, write_text

NUMBERS = "attempt.json"
LOCK_TIMEOUT_S = 60.0  # a writer holds the lock for a rename and a line


@dataclass(frozen=True)
class Fence:
    """The right of one worker group to write to the run in ``folder``.

    ``attempt`` counts drivers, ``group`` the worker groups of a driver.
    """

    folder: Path
    attempt: int
    group: int

    @contextmanager
    def held(self) -> Iterator[None]:
        """No other process writes to the run inside. Raises :class:`SupersededError` if a newer attempt has begun."""
        with _locked(self.folder):
            newest = _read(self.folder)
            if newest != (self.attempt, self.group):
                text = f"attempt {self.attempt}.{self.group} of {self.folder} was superseded by {newest[0]}.{newest[1]}"
                raise SupersededError(f"{text}; it writes nothing more")
            yield


def begin_attempt(folder: Path, after: int = 0) -> int:
    """Begin the next attempt of the run in ``folder``; returns its number, which is larger than ``after``.

    Earlier attempts cannot write from now on.
    """
    with _locked(folder):
        attempt = max(_read(folder)[0], after) + 1
        _write(folder, attempt, 0)
        return attempt


def begin_group(folder: Path, attempt: int) -> Fence:
    """The fence of a new worker group of ``attempt``; earlier groups cannot write any more.

    Raises :class:`SupersededError` if a newer attempt has begun.
    """
    with _locked(folder):
        newest, group = _read(folder)
        if newest != attempt:
            raise SupersededError(f"attempt {attempt} of {folder} was superseded by {newest}; it writes nothing")
        _write(folder, attempt, group + 1)
        return Fence(folder, attempt, group + 1)


def check_attempt(folder: Path, attempt: int) -> None:
    """Raise :class:`SupersededError` if a newer attempt than this one has begun."""
    newest = _read(folder)[0]
    if newest > attempt:
        raise SupersededError(f"attempt {attempt} of {folder} was superseded by {newest}; it writes nothing more")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        lock = take_lock(folder / ".attempt.lock", LOCK_TIMEOUT_S)
    except TimeoutError:
        text = f"{folder} is being written by a process that has not answered for {LOCK_TIMEOUT_S:.0f} s"
        raise OSError(f"{text}; end it, or wait for it") from None
    with lock:
        yield


def _read(folder: Path) -> tuple[int, int]:
    try:
        numbers = json.loads((folder / NUMBERS).read_text())
        return int(numbers["attempt"]), int(numbers["group"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # none yet, or damaged: the state has the attempt too
        return 0, 0


def _write(folder: Path, attempt: int, group: int) -> None:
    write_text(folder / NUMBERS, json.dumps({"attempt": attempt, "group": group}))
