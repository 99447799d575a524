"""Runs on disk: ``OUTPUT_DIR/NAME/NUMBER``, who may write there, and what a job submitted again continues."""

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from filelock import FileLock, Timeout

from activelr_service.config import (
    JobSource,
    ResolvedJob,
    TrainJob,
    diff_jobs,
    dump_job,
    is_same_job,
    read_job,
    read_resolved_job,
)
from activelr_service.errors import CommandError, JobError, RunDamagedError
from activelr_service.redact import redact
from activelr_service.runs.fence import begin_attempt
from activelr_service.runs.files import append_line, sync, write_text

Job = TypeVar("Job", bound=TrainJob)

ENDED = ("finished", "failed")
LOCK_TIMEOUT_S = 1.0  # another process may look whether a run is active: that takes the lock for a moment


@dataclass(frozen=True)
class Run:
    """One training on disk. ``folder`` holds its jobs, state, checkpoints, journal, log, figures and model."""

    folder: Path

    @property
    def label(self) -> str:
        """``NAME/NUMBER``."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def failure(self) -> Path:
        """Written by a worker: an error that would only happen again, as JSON."""
        return self.folder / "failure.json"

    @property
    def untrained(self) -> Path:
        """The held-out metrics of the untrained model, as JSON; trials of studies have them."""
        return self.folder / "untrained.json"

    @property
    def batch_size(self) -> Path:
        """The batch size that the workers chose, why and what they measured, as JSON; a job that gives one has none."""
        return self.folder / "batch_size.json"

    @property
    def log(self) -> Path:
        return self.folder / "run.log"

    @property
    def notes(self) -> Path:
        """Lines for the log from processes other than the driver."""
        return self.folder / "notes.txt"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @property
    def data(self) -> Path:
        """What the data were when the run began: their fingerprint, and what was read and left out, as JSON."""
        return self.folder / "data.json"

    def state(self) -> dict[str, Any]:
        """``id``, ``status`` (running, interrupted, finished, failed), ``mlflow_run_id``, ``tracked`` and more.

        Raises :class:`RunDamagedError` if the file cannot be read.
        """
        path = self.folder / "run.json"
        try:
            state = json.loads(path.read_text())
            return {**state, "status": state["status"]}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise self._damaged(path, error) from error

    def update(self, **changes: Any) -> None:
        """Change some keys of :meth:`state`, at once or not at all."""
        write_text(self.folder / "run.json", json.dumps({**self.state(), **changes}, indent=1))

    def note(self, line: str) -> None:
        """Have the driver say a line."""
        append_line(self.notes, redact(" ".join(line.split())))

    def read_notes(self) -> list[tuple[int, str]]:
        """The notes so far, numbered from 1."""
        lines = self.notes.read_text(errors="replace").split("\n")[:-1] if self.notes.exists() else []
        return list(enumerate(lines, start=1))

    def read_data(self) -> dict[str, Any] | None:
        """What :attr:`data` holds; None for a run of version 0.1.0, which kept nothing of its data.

        Raises :class:`RunDamagedError` if it cannot be read.
        """
        if not self.data.exists():
            return None
        try:
            data = json.loads(self.data.read_text())
            return {"fingerprint": data["fingerprint"], "info": data["info"]}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise self._damaged(self.data, error) from error

    def job(self) -> ResolvedJob:
        """The resolved job, read from disk. It is a :class:`CompleteJob` once it has a batch size."""
        return self._load("resolved.yaml", read_resolved_job)

    def written_job(self) -> TrainJob:
        """The job as it was submitted."""
        return self._load("job.yaml", read_job)

    def write_jobs(self, written: TrainJob, resolved: ResolvedJob) -> None:
        """The job as it was submitted, and as it is run: each file at once or not at all."""
        write_text(self.folder / "job.yaml", dump_job(written))
        write_text(self.folder / "resolved.yaml", dump_job(resolved))

    def is_active(self) -> bool:
        """Whether a process is training it now: on this machine its own process is looked for, on another its lock."""
        state = self.state()
        if state["status"] != "running":
            return False
        if state.get("host") == socket.gethostname() and "pid_started" in state:
            return is_process(state["pid"], state["pid_started"])
        if newest_run(self.folder.parent) != self:
            return False  # all runs of a name have one lock
        try:
            with FileLock(_lock_path(self.folder.parent), timeout=0):
                return False
        except (Timeout, OSError):  # held, or of another user, who alone can tell
            return True

    def status(self) -> str:
        """As in :meth:`state`, but a run whose process is gone without a word is ``interrupted``."""
        status = self.state()["status"]
        return "interrupted" if status == "running" and not self.is_active() else status

    def _load(self, name: str, read: Callable[[Path], tuple[Job, JobSource]]) -> Job:
        try:
            return read(self.folder / name)[0]
        except JobError as error:
            raise self._damaged(self.folder / name, error) from error

    def _damaged(self, path: Path, error: Exception) -> RunDamagedError:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:200]
        remedy = f"restore the file, or move {self.folder} away"
        return RunDamagedError(f"run {self.label} is damaged: {path.name}: {reason or 'it is not complete'}; {remedy}")


def is_process(pid: int, started: float) -> bool:
    """Whether the process that had this id and start time (seconds since 1970) is alive."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def output_root(output_dir: str) -> Path:
    """The output directory as an absolute path.

    Relative to ``$ACTIVELR_HOME``; without it, to the current folder, or to ``~/activelr`` inside a Ray job, whose
    current folder is a temporary copy.
    """
    home = os.environ.get("ACTIVELR_HOME")
    if home is None:
        home = "~/activelr" if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else "."
    return (Path(home).expanduser() / Path(output_dir).expanduser()).resolve()


def list_runs(root: Path) -> list[Run]:
    """All runs under an output directory, by name and number."""
    return [run for folder in sorted(root.glob("*/")) for run in runs_of(folder)]


def runs_of(folder: Path) -> list[Run]:
    """The runs of one name, oldest first."""
    numbered = [path for path in _numbered(folder) if _is_run(path)]
    return [Run(path) for path in sorted(numbered, key=lambda path: int(path.name))]


def newest_run(folder: Path) -> Run | None:
    runs = runs_of(folder)
    return runs[-1] if runs else None


def find_run(root: Path, target: str) -> Run:
    """A run by folder, ``NAME/NUMBER``, or ``NAME`` for its newest; raises :class:`JobError` if there is none."""
    for folder in (Path(target), root / target):
        if _is_run(folder):
            return Run(folder.resolve())
    run = newest_run(root / target)
    if run is None:
        known = ", ".join(sorted({run.folder.parent.name for run in list_runs(root)})) or "none"
        raise CommandError(f"no run {target!r} under {root}; names there: {known}")
    return run


@contextmanager
def hold(root: Path, name: str) -> Iterator[Path]:
    """The folder of the runs of ``name``, held against other processes; the system lets go of it if this one dies."""
    folder = root / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(_lock_path(folder))
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        raise JobError.at(
            "name", f"{name!r} is being trained{_by_whom(folder)}; wait for it, stop it, or use another name"
        ) from None
    except OSError as error:
        raise JobError.at("output_dir", f"{folder} cannot be written: {error.strerror}") from error
    try:
        yield folder
    finally:
        lock.release()


def unfinished_run(folder: Path, job: TrainJob) -> Run | None:
    """The newest run in ``folder`` if it was not finished; raises :class:`JobError` with the difference if ``job`` is not
    the job of that run, with any epochs or budget. A run that failed for a reason that would only repeat counts as
    ended."""
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
    """A new run with the next number, what its ``data`` are and this ``state``; its folder appears with all of its files or
    not at all."""
    for leftover in folder.glob(".new-*"):
        shutil.rmtree(leftover)
    run = Run(folder / f".new-{os.getpid()}")
    run.checkpoints.mkdir(parents=True)
    run.write_jobs(job, resolved)
    write_text(run.data, data)
    begun = {"id": uuid.uuid4().hex, "status": "running", "created": round(time.time()), "attempts": 0}
    write_text(run.folder / "run.json", json.dumps({**begun, **state}, indent=1))
    number = max((int(path.name) for path in _numbered(folder)), default=0) + 1
    os.rename(run.folder, folder / f"{number:03d}")
    sync(folder)
    return Run(folder / f"{number:03d}")


def discard_run(run: Run) -> None:
    """Remove a run that has not started; one that is cut off in the middle is no run any more."""
    hidden = run.folder.with_name(f".new-{run.folder.name}")
    os.rename(run.folder, hidden)
    shutil.rmtree(hidden)


def start_attempt(run: Run) -> int:
    """Note that this process now trains the run, and return the number of its attempt: processes of earlier ones cannot
    write to the run any more."""
    attempt = begin_attempt(run.folder, after=run.state()["attempts"])
    run.failure.unlink(missing_ok=True)
    for leftover in run.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    process = psutil.Process()
    who = {"pid": process.pid, "pid_started": process.create_time(), "host": socket.gethostname()}
    run.update(status="running", reason=None, attempts=attempt, tracked=False, **who)
    return attempt


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/") if path.name.isascii() and path.name.isdigit()]


def _is_run(folder: Path) -> bool:
    """Whether it is a run, be it one that lost its state."""
    return (folder / "run.json").exists() or (folder / "resolved.yaml").exists()


def _by_whom(folder: Path) -> str:
    """The process that trains the newest run in ``folder``; empty if it has no run yet that says so."""
    try:
        run = newest_run(folder)
        state = run.state() if run else {}
    except RunDamagedError:
        return ""
    return f" by process {state['pid']} on {state['host']}" if "pid" in state else ""


def _lock_path(folder: Path) -> str:
    return str(folder / ".lock")
