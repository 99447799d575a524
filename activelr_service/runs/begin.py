"""Beginning a run, or going on with one: the lock of its name, its folder, and the number of the attempt."""

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from activelr_service.config import ResolvedJob, TrainJob, diff_jobs, is_same_job
from activelr_service.errors import JobError, RunDamagedError
from activelr_service.runs.fence import begin_attempt
from activelr_service.runs.files import sync, take_lock, write_text
from activelr_service.runs.run import ENDED, Run, lock_path, newest_run, numbered_folders

LOCK_TIMEOUT_S = 1.0  # another process may look whether a run is active: that takes the lock for a moment


@contextmanager
def lock_run(root: Path, name: str) -> Iterator[Path]:
    """Lock the folder of the runs of ``name``, which is returned, against other processes.

    The system releases the lock when this process dies. Raises :class:`JobError` if another process has it, or if the
    folder cannot be written.
    """
    folder = root / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(lock_path(folder), LOCK_TIMEOUT_S)
    except TimeoutError:
        raise JobError.at(
            "name", f"{name!r} is being trained{_by_whom(folder)}; wait for it, stop it, or use another name"
        ) from None
    except OSError as error:
        raise JobError.at("output_dir", f"{folder} cannot be written: {error.strerror}") from error
    with lock:
        yield folder


def unfinished_run(folder: Path, job: TrainJob) -> Run | None:
    """The newest run in ``folder`` if it can be continued; None if there is none, or if it has finished or failed for good.

    Raises :class:`JobError` with the differences if ``job`` differs from the run's job in more than its length.
    """
    run = newest_run(folder)
    if run is None or run.state()["status"] in ENDED:
        return None
    written, resolved = run.written_job(), run.job()
    if not any(is_same_job(job.lasting(own.duration), own) for own in (written, resolved)):
        changes = "; ".join(diff_jobs(written, job))
        remedy = f"submit the same job to continue it, use another name, or delete {run.folder}"
        raise JobError.at("name", f"run {run.label} is unfinished and its job differs ({changes}); {remedy}")
    return run


def create_run(folder: Path, job: TrainJob, resolved: ResolvedJob, data: str, state: dict[str, Any]) -> Run:
    """Create a run with the next number. Its folder appears with all of its files or not at all.

    ``data`` is the text of its ``data.json``. ``state`` holds further keys of its ``run.json``.
    """
    for leftover in folder.glob(".new-*"):
        shutil.rmtree(leftover)
    run = Run(folder / f".new-{os.getpid()}")
    run.checkpoints.mkdir(parents=True)
    run.write_jobs(job, resolved)
    write_text(run.data, data)
    begun = {"id": uuid.uuid4().hex, "status": "running", "created": round(time.time()), "attempts": 0}
    write_text(run.folder / "run.json", json.dumps({**begun, **state}, indent=1))
    number = max((int(path.name) for path in numbered_folders(folder)), default=0) + 1
    os.rename(run.folder, folder / f"{number:03d}")
    sync(folder)
    return Run(folder / f"{number:03d}")


def discard_run(run: Run) -> None:
    """Remove a run that has not started. The folder is renamed first, so that half of a run is never listed."""
    hidden = run.folder.with_name(f".new-{run.folder.name}")
    os.rename(run.folder, hidden)
    shutil.rmtree(hidden)


def start_attempt(run: Run) -> int:
    """Record that this process now trains the run; returns the number of the attempt.

    Processes of earlier attempts cannot write to the run from now on.
    """
    attempt = begin_attempt(run.folder, after=run.state()["attempts"])
    run.failure.unlink(missing_ok=True)
    for leftover in run.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    process = psutil.Process()
    who = {"pid": process.pid, "pid_started": process.create_time(), "host": socket.gethostname()}
    run.update(status="running", reason=None, attempts=attempt, tracked=False, **who)
    return attempt


def _by_whom(folder: Path) -> str:
    """`` by process PID on HOST`` for the newest run in ``folder``; empty if no run says which process trains it."""
    try:
        run = newest_run(folder)
        state = run.state() if run else {}
    except RunDamagedError:
        return ""
    return f" by process {state['pid']} on {state['host']}" if "pid" in state else ""
