"""Ctrl-C and SIGTERM."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_received: list[int] = []


def exit_on_signals() -> None:
    """So that what is stopped is noted as interrupted before the process ends, with the shell's 130 or 143."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)


@contextmanager
def keeping_exit_code() -> Iterator[None]:
    """Where a signal arrives inside Ray, Ray leaves with a code of its own: leave with the shell's."""
    try:
        yield
    except SystemExit as error:
        raise SystemExit(128 + _received[-1] if _received else error.code) from None


def _exit(number: int, _: FrameType | None) -> None:
    _received.append(number)
    sys.exit(128 + number)
