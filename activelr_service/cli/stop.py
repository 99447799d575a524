"""How a run is stopped: by Ctrl-C, by SIGTERM, and by ``activelr stop`` from another process."""

import os
import signal
import socket
import sys
import threading
from types import FrameType

import psutil

from activelr_service.errors import CommandError
from activelr_service.runs.run import Run
from activelr_service.tracking.deadline import hurry

OWN_COMMAND = ("activelr", "activelr_service", "jobs.train", "jobs/train")
MLFLOW_S = 5  # how long a call to MLflow may still take that a signal meets
AGAIN_S = 0.1  # after this time a signal whose exit was lost is sent again

_received = 0
_is_lost = False


def exit_on_signals() -> None:
    """Let Ctrl-C and SIGTERM raise ``SystemExit``, so that the best model so far is exported, and the run is marked as
    interrupted, before the process ends.

    The exit code is that of a shell, 130 or 143. The upload to MLflow then gets :data:`MLFLOW_S` seconds. A second
    Ctrl-C ends the process at once. A second SIGTERM changes nothing, because some tools always send two. The first
    signal is answered with a line on standard error, because the rest takes seconds.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)
    sys.unraisablehook = _send_again


def _exit(number: int, frame: FrameType | None) -> None:
    global _received, _is_lost  # noqa: PLW0603 - a signal is for the whole process
    if _received and not _is_lost:
        if number == signal.SIGINT:
            os.write(2, b"ended at once; `activelr resume` continues from the last checkpoint\n")
            os._exit(128 + number)
        return
    if not _received:
        _received = number
        os.write(2, b"\nstopping; a second Ctrl-C ends it at once\n")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises where a loader process ends: all end now
        hurry(MLFLOW_S)
    _is_lost = False
    sys.exit(128 + _received)


def _send_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send the signal again if its exit was raised where Python drops exceptions: while an object is cleared away."""
    global _is_lost  # noqa: PLW0603 - a signal is for the whole process
    if not (_received and isinstance(unraisable.exc_value, SystemExit | KeyboardInterrupt)):
        return sys.__unraisablehook__(unraisable)
    _is_lost = True
    timer = threading.Timer(AGAIN_S, os.kill, (os.getpid(), _received))
    timer.daemon = True
    return timer.start()


def stop_run(run: Run) -> None:
    """Send SIGTERM to the process that trains a run.

    A process id is used again after its process has ended. So the process must be alive on this machine, must have
    started when the run says so, and must belong to this user. Raises :class:`CommandError` otherwise.
    """
    state = run.state()
    if state["status"] != "running":
        raise CommandError(f"{run.label} is not running; its status is {state['status']}")
    host = state.get("host")
    if host != socket.gethostname():
        raise CommandError(f"{run.label} runs on {host}, and this is {socket.gethostname()}; run `activelr stop` there")
    process = _find_process(run, state.get("pid"), state.get("pid_started"))
    try:
        if process.uids().real != os.getuid():
            raise CommandError(f"{run.label} is trained by the user {process.username()}, who can stop it")
        process.send_signal(signal.SIGTERM)  # psutil compares the start time once more
    except psutil.NoSuchProcess:
        raise _has_ended(run, process.pid) from None
    except psutil.AccessDenied:
        raise CommandError(f"process {process.pid} of {run.label} may not be stopped by this user") from None


def _find_process(run: Run, pid: int | None, started: float | None) -> psutil.Process:
    try:
        process = psutil.Process(pid or 0)
        if process.status() == psutil.STATUS_ZOMBIE:
            raise _has_ended(run, pid)
        if started is not None and abs(process.create_time() - started) >= 1:
            raise CommandError(f"{run.label} is not running: process {pid} is another one by now; {_remedy(run)}")
        if started is None and not any(name in word for word in process.cmdline() for name in OWN_COMMAND):
            raise CommandError(f"process {pid} does not look like that of {run.label}; end it yourself if it is")
        return process
    except (psutil.NoSuchProcess, TypeError, ValueError):  # no process has this id, or it is not an id
        raise _has_ended(run, pid) from None


def _has_ended(run: Run, pid: int | None) -> CommandError:
    return CommandError(f"{run.label} is not running: its process {pid} has ended; {_remedy(run)}")


def _remedy(run: Run) -> str:
    return f"`activelr resume {run.label}` continues it"
