"""Runs on disk: ``OUTPUT_DIR/NAME/NUMBER``, who may write there, and what a job submitted again continues."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from activelr_service.config import CommandError, JobError, TrainJob, diff_jobs, dump_job, load_job

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

    def state(self) -> dict[str, Any]:
        """``status`` (running, interrupted, finished, failed), ``mlflow_run_id``, ``tracking_uri``, ``tracked`` and more."""
        return json.loads((self.folder / "run.json").read_text())

    def update(self, **changes: Any) -> None:
        """Change some keys of :meth:`state`, at once or not at all."""
        path = self.folder / "run.json"
        state = self.state() if path.exists() else {}
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({**state, **changes}, indent=1))
        os.replace(temporary, path)

    def note(self, line: str) -> None:
        """Have the driver say a line."""
        with self.notes.open("a") as file:
            file.write(" ".join(line.split()) + "\n")

    def read_notes(self) -> list[tuple[int, str]]:
        """The notes so far, numbered from 1."""
        lines = self.notes.read_text().split("\n")[:-1] if self.notes.exists() else []
        return list(enumerate(lines, start=1))

    def job(self) -> TrainJob:
        """The resolved job. It has no batch size until the workers have chosen one."""
        return load_job(self.folder / "resolved.yaml")

    def written_job(self) -> TrainJob:
        """The job as it was submitted."""
        return load_job(self.folder / "job.yaml")

    def write_jobs(self, written: TrainJob, resolved: TrainJob) -> None:
        """The job as it was submitted, and as it is run: each file at once or not at all."""
        for name, job in (("job.yaml", written), ("resolved.yaml", resolved)):
            temporary = self.folder / f"{name}.tmp"
            temporary.write_text(dump_job(job))
            os.replace(temporary, self.folder / name)

    def is_active(self) -> bool:
        """Whether a process is training it now."""
        lock = FileLock(_lock_path(self.folder.parent))
        try:
            with lock.acquire(timeout=0):
                return False
        except Timeout:
            return newest_run(self.folder.parent) == self

    def status(self) -> str:
        """As in :meth:`state`, but a run whose process is gone without a word is ``interrupted``."""
        status = self.state()["status"]
        return "interrupted" if status == "running" and not self.is_active() else status


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
    numbered = [path for path in folder.glob("[0-9]*/") if (path / "run.json").exists()]
    return [Run(path) for path in sorted(numbered, key=lambda path: int(path.name))]


def newest_run(folder: Path) -> Run | None:
    runs = runs_of(folder)
    return runs[-1] if runs else None


def find_run(root: Path, target: str) -> Run:
    """A run by folder, ``NAME/NUMBER``, or ``NAME`` for its newest; raises :class:`JobError` if there is none."""
    for folder in (Path(target), root / target):
        if (folder / "run.json").exists():
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
        lock.acquire(timeout=0)
    except Timeout:
        run = newest_run(folder)
        who = f" by process {run.state().get('pid')} on {run.state().get('host')}" if run else ""
        raise JobError.at(
            "name", f"{name!r} is being trained{who}; wait for it, stop it, or use another name"
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
    written = run.written_job()
    if job not in (written, run.job()) and not any(is_longer_or_shorter(job, own) for own in (written, run.job())):
        changes = "; ".join(diff_jobs(written, job))
        remedy = f"submit the same job to continue it, use another name, or delete {run.folder}"
        raise JobError.at("name", f"run {run.label} is unfinished and its job differs ({changes}); {remedy}")
    return run


def is_longer_or_shorter(job: TrainJob, other: TrainJob) -> bool:
    """Whether two jobs differ in their epochs or budget and in nothing else."""
    return job != other and job.with_length_of(other) == other


def create_run(folder: Path, job: TrainJob, resolved: TrainJob) -> Run:
    """A new run with the next number."""
    numbers = [int(path.name) for path in folder.glob("[0-9]*/")]
    run = Run(folder / f"{max(numbers, default=0) + 1:03d}")
    run.checkpoints.mkdir(parents=True)
    run.write_jobs(job, resolved)
    run.update(status="running", created=round(time.time()), attempts=0)
    return run


def start_attempt(run: Run) -> None:
    """Note that this process now trains the run."""
    run.failure.unlink(missing_ok=True)
    attempts = run.state()["attempts"] + 1
    run.update(status="running", reason=None, pid=os.getpid(), host=socket.gethostname(), attempts=attempts)


def _lock_path(folder: Path) -> str:
    return str(folder / ".lock")
