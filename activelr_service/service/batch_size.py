"""A batch size that the workers chose makes the job complete: into the log, the resolved job, MLflow and `explain`."""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

from activelr_service.config import CompleteJob, ResolvedJob
from activelr_service.runs.journal import JournalReader
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run
from activelr_service.tracking.tracker import Tracker
from activelr_service.training.batch_size.choice import BatchSizeChoice, read_choice


class JobCompleted(NamedTuple):
    """The workers have chosen the batch size: ``job`` has it, and ``choice`` is what they measured."""

    job: CompleteJob
    choice: BatchSizeChoice

    @property
    def reason(self) -> str:
        """Why the job has this batch size."""
        return f"probed: {self.choice.explain(self.job)}"

    @property
    def lines(self) -> list[str]:
        """Lines for the user: the batch size, how the workers share it, and what was measured."""
        job = self.job
        shares = f"{job.micro_batch_size()} samples at a time on each of {job.workers.num_workers} workers"
        return [
            f"global_batch_size = {job.global_batch_size}  ({self.reason})",
            f"grad_accum_steps = {job.grad_accum_steps}  ({shares})",
            *(f"  {sample}" for sample in self.choice.tried),
        ]


Event = Record | JobCompleted


def find_completed(run: Run) -> JobCompleted | None:
    """The job of a run with the batch size that its workers chose; None if they have not, or if the job gave one."""
    if not run.batch_size.exists():
        return None
    choice = read_choice(run.batch_size)
    return JobCompleted(choice.complete(run.job()), choice)


class EventReader:
    """What the workers of a run have written so far: the batch size is number 0, the epochs have their own numbers."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.journal = JournalReader(run.journal)
        self.completed: JobCompleted | None = None

    def read(self, after: int) -> list[tuple[int, Event]]:
        """What has a number larger than ``after``, with its number."""
        records = self.journal.read()  # first: when there is a record, there is the batch size that came before it
        if self.completed is None:
            self.completed = find_completed(self.run)
        first: list[tuple[int, Event]] = [] if self.completed is None or after >= 0 else [(0, self.completed)]
        new = records[bisect_right(records, after, key=lambda record: record.epoch) :]
        return [*first, *((record.epoch, record) for record in new)]


def apply_batch_size(run: Run, completed: JobCompleted, log: Callable[[str], None]) -> None:
    """Log what was chosen, why and from what, and make it part of the resolved job on disk."""
    for line in completed.lines:
        log(f"  {line}")
    run.write_jobs(run.written_job(), completed.job)


def log_batch_size(run: Run, tracker: Tracker) -> None:
    """Give MLflow what was chosen, if the workers chose it. What is there already is not doubled."""
    completed = find_completed(run)
    if completed is None:
        return
    job = completed.job
    sizes = {"global_batch_size": job.global_batch_size, "grad_accum_steps": job.grad_accum_steps}
    derived, tags = derived_sizes(job, completed.choice.num_train), {"activelr.why.global_batch_size": completed.reason}
    tracker.log_params({**sizes, "derived": derived}, tags)
    tracker.log_artifacts(run.folder, [run.batch_size])


def derived_sizes(job: ResolvedJob, num_train: int) -> dict[str, Any]:
    """What follows from the batch size of a job, if it has one."""
    if not isinstance(job, CompleteJob):
        return {}
    return {"micro_batch_size": job.micro_batch_size(), "steps_per_epoch": num_train // job.global_batch_size}
