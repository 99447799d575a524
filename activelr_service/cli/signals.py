"""Ctrl-C and SIGTERM."""

import signal
import sys


def exit_on_signals() -> None:
    """So that what is stopped is noted as interrupted before the process ends, with the shell's 130 or 143."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
