"""Ctrl-C and SIGTERM."""

import os
import signal
import sys
from types import FrameType

from activelr_service.tracking.deadline import hurry

MLFLOW_S = 5  # of the 30 seconds that a Ray job has to end

_received = 0


def exit_on_signals() -> None:
    """So that what is stopped is noted as interrupted before the process ends, with the shell's 130 or 143.

    MLflow then gets what it takes in seconds. A second Ctrl-C ends the process at once; another SIGTERM, which tools like to
    send twice, changes nothing.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    global _received  # noqa: PLW0603 - a signal is for the process
    if _received and number == signal.SIGINT:
        os.write(2, b"ended at once; `activelr resume` continues from the last committed epoch\n")
        os._exit(128 + number)
    if not _received:
        _received = number
        hurry(MLFLOW_S)
        sys.exit(128 + number)
