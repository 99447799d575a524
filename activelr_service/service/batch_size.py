"""A batch size that the workers chose: followed like the epochs, into the log, the resolved job and MLflow."""

from collections.abc import Callable
from typing import Any

from activelr_service.config import TrainJob
from activelr_service.runs.journal import JournalReader
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run
from activelr_service.tracking.tracker import Tracker
from activelr_service.training.batch_size.choice import BatchSizeChoice, read_choice

Event = Record | BatchSizeChoice


class EventReader:
    """What the workers of a run have written so far: the choice is number 0, the epochs have their own numbers."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.journal = JournalReader(run.journal)

    def read(self) -> list[tuple[int, Event]]:
        """All of it, numbered."""
        records = self.journal.read()  # first: when there is a record, there is the choice that came before it
        choice = read_choice(self.run.batch_size)
        return [*([] if choice is None else [(0, choice)]), *((record.epoch, record) for record in records)]


def adopt(run: Run, choice: BatchSizeChoice, say: Callable[[str], None]) -> TrainJob:
    """Say what was chosen, why and from what, and make it part of the resolved job, which is returned."""
    job = choice.complete(run.job())
    for line in describe_choice(choice, job):
        say(f"  {line}")
    run.write_jobs(run.written_job(), job)
    return job


def describe_choice(choice: BatchSizeChoice, job: TrainJob) -> list[str]:
    """Lines for the user: the batch size of the completed ``job``, how workers share it, and what was measured."""
    rows = f"{job.micro_batch_size()} rows at a time on each of {job.workers.num_workers} workers"
    return [
        f"global_batch_size = {job.global_batch_size}  ({why(choice, job)})",
        f"grad_accum_steps = {job.grad_accum_steps}  ({rows})",
        *(f"  {tried}" for tried in choice.tried),
    ]


def log_batch_size(run: Run, tracker: Tracker) -> None:
    """Give MLflow what was chosen, if the workers chose it. What is there already is not doubled."""
    choice = read_choice(run.batch_size)
    if choice is None:
        return
    job = choice.complete(run.job())
    sizes = {"global_batch_size": job.global_batch_size, "grad_accum_steps": job.grad_accum_steps}
    tags = {"activelr.why.global_batch_size": why(choice, job)}
    tracker.log_params({**sizes, "derived": derived_sizes(job, choice.num_train)}, tags)
    tracker.log_artifacts(run.folder, [run.batch_size])


def derived_sizes(job: TrainJob, num_train: int) -> dict[str, Any]:
    """What follows from the batch size of a job, if it has one."""
    if job.global_batch_size is None:
        return {}
    return {"micro_batch_size": job.micro_batch_size(), "steps_per_epoch": num_train // job.global_batch_size}


def why(choice: BatchSizeChoice, job: TrainJob) -> str:
    return f"probed: {choice.explain(job)}"
