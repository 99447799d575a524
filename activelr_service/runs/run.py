"""A run on disk, ``OUTPUT_DIR/NAME/NUMBER``: its files, its state, and how runs are found."""

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from activelr_service.config import JobSource, ResolvedJob, TrainJob, dump_job, read_job, read_resolved_job
from activelr_service.errors import CommandError, JobError, RunDamagedError
from activelr_service.redact import redact, redact_values
from activelr_service.runs.files import append_line, take_lock, write_text
from activelr_service.runs.record import Failure

Job = TypeVar("Job", bound=TrainJob)

ENDED = ("finished", "failed")


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
    def readings(self) -> Path:
        """What was measured within epochs, as a journal of its own: the loss, and evaluations."""
        return self.folder / "readings.jsonl"

    @property
    def live(self) -> Path:
        """Where the run is at this second, as JSON. Only the terminal looks at it."""
        return self.folder / "live.json"

    @property
    def failure(self) -> Path:
        """Written by a worker, as JSON: an error that another worker group would meet again."""
        return self.folder / "failure.json"

    @property
    def untrained(self) -> Path:
        """The validation metrics of the untrained model, as JSON. Only trials of studies have them."""
        return self.folder / "untrained.json"

    @property
    def batch_size(self) -> Path:
        """The batch size that the workers chose, why, and what they measured, as JSON. Absent if the job gives one."""
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
        """The data when the run began, as JSON: their fingerprint, and what was read and left out."""
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

    def end(self, status: str, reason: str | None = None) -> None:
        """Write how the run ended: its status, and the reason without secrets."""
        self.update(status=status, reason=redact(reason) if reason else None)

    def write_failure(self, failure: Failure) -> None:
        """Write :attr:`failure`, without secrets."""
        write_text(self.failure, json.dumps(redact_values(failure._asdict())))

    def read_failure(self) -> Failure | None:
        """What :attr:`failure` holds; None if no worker has failed for good."""
        return Failure.from_json(json.loads(self.failure.read_text())) if self.failure.exists() else None

    def notify(self, line: str) -> None:
        """Have the driver write a line to the log."""
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
        """Whether a process is training the run now.

        On this machine the process is looked up. On another machine the lock of the run's name is tried.
        """
        state = self.state()
        if state["status"] != "running":
            return False
        if state.get("host") == socket.gethostname() and "pid_started" in state:
            return is_process(state["pid"], state["pid_started"])
        if newest_run(self.folder.parent) != self:
            return False  # all runs of a name have one lock
        try:
            with take_lock(lock_path(self.folder.parent), 0):
                return False
        except OSError:  # another process has the lock, or another user owns the file
            return True

    def status(self) -> str:
        """The status in :meth:`state`; ``interrupted`` for a running one whose process does not exist."""
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
    numbered = [path for path in numbered_folders(folder) if _is_run(path)]
    return [Run(path) for path in sorted(numbered, key=lambda path: int(path.name))]


def newest_run(folder: Path) -> Run | None:
    runs = runs_of(folder)
    return runs[-1] if runs else None


def find_run(root: Path, target: str) -> Run:
    """A run by folder, ``NAME/NUMBER``, or ``NAME`` or its folder for its newest run; raises :class:`CommandError` if there
    is none."""
    for folder in (Path(target), root / target):
        if _is_run(folder):
            return Run(folder.resolve())
    run = newest_run(root / target) or newest_run(Path(target).resolve())
    if run is None:
        known = ", ".join(sorted({run.folder.parent.name for run in list_runs(root)})) or "none"
        raise CommandError(f"no run {target!r} under {root}; names there: {known}")
    return run


def target_of(run: Run) -> str:
    """How a command names a run: by its label if commands look there by default, else by its folder."""
    return run.label if output_root("outputs") / run.label == run.folder else str(run.folder)


def numbered_folders(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/") if path.name.isascii() and path.name.isdigit()]


def _is_run(folder: Path) -> bool:
    """Whether the folder is a run. A run that lost its ``run.json`` counts too."""
    return (folder / "run.json").exists() or (folder / "resolved.yaml").exists()


def lock_path(folder: Path) -> Path:
    """The lock of all runs of one name, whose folder is given."""
    return folder / ".lock"
