"""Stopping a run on this machine: its own process, and no other."""

import os
import signal
import socket
import sys
from types import FrameType

import psutil

from activelr_service.errors import CommandError
from activelr_service.runs.run import Run
from activelr_service.tracking.deadline import hurry

OWN_COMMAND = ("activelr", "activelr_service", "jobs.train", "jobs/train")


def stop_run(run: Run) -> None:
    """Send SIGTERM to the process that trains a run.

    Raises :class:`CommandError` unless the process that the run has noted is here, alive, started when the run says so, and
    the user's own.
    """
    state = run.state()
    if state["status"] != "running":
        raise CommandError(f"{run.label} is not running; its status is {state['status']}")
    host = state.get("host")
    if host != socket.gethostname():
        raise CommandError(f"{run.label} runs on {host}, and this is {socket.gethostname()}; run `activelr stop` there")
    process = _its_process(run, state.get("pid"), state.get("pid_started"))
    try:
        if process.uids().real != os.getuid():
            raise CommandError(f"{run.label} is trained by the user {process.username()}, who can stop it")
        process.send_signal(signal.SIGTERM)  # psutil compares the start time once more
    except psutil.NoSuchProcess:
        raise _gone(run, process.pid) from None
    except psutil.AccessDenied:
        raise CommandError(f"process {process.pid} of {run.label} may not be stopped by this user") from None


def _its_process(run: Run, pid: int | None, started: float | None) -> psutil.Process:
    try:
        process = psutil.Process(pid or 0)
        if process.status() == psutil.STATUS_ZOMBIE:
            raise _gone(run, pid)
        if started is not None and abs(process.create_time() - started) >= 1:
            raise CommandError(f"{run.label} is not running: process {pid} is another one by now; {_remedy(run)}")
        if started is None and not any(name in word for word in process.cmdline() for name in OWN_COMMAND):
            raise CommandError(f"process {pid} does not look like that of {run.label}; end it yourself if it is")
        return process
    except (psutil.NoSuchProcess, TypeError, ValueError):  # none has such an id
        raise _gone(run, pid) from None


def _gone(run: Run, pid: int | None) -> CommandError:
    return CommandError(f"{run.label} is not running: its process {pid} has ended; {_remedy(run)}")


def _remedy(run: Run) -> str:
    return f"`activelr resume {run.label}` continues it"


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
