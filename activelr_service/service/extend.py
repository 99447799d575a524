"""A run made longer or shorter: its epochs or its budget changed, and nothing else."""

import time

from activelr_service.config import TrainJob, diff_jobs
from activelr_service.errors import JobError
from activelr_service.runs.record import Record, is_last, share_of_length
from activelr_service.runs.run import Run
from activelr_service.tracking.store import tracking_uri


def check_length(run: Run, job: TrainJob, history: list[Record]) -> None:
    """Raise :class:`JobError` unless ``job`` is the resolved job of ``run``, but longer than what ``history`` has done."""
    now = run.job()
    other = job.with_length_of(now).model_copy(update={"tracking": now.tracking, "output_dir": now.output_dir})
    if other != now:
        changes = diff_jobs(now, other)
        remedy = "leave the rest as it is, or train a new run under another name"
        text = f"only epochs, budget and tracking of run {run.label} can change, got {'; '.join(changes)}; {remedy}"
        raise JobError.at(changes[0].partition(":")[0], text)
    last = history[-1] if history else None
    if last and (share_of_length(last, job) >= 1 or (job.with_length_of(now) == job and is_last(last, now))):
        done = f"{last.epoch} epochs, {last.global_step:,} steps"
        if "perf/elapsed_seconds" in last.metrics:
            done += f", {last.metrics['perf/elapsed_seconds']:,.0f} s"
        raise JobError.at(_place(job), f"run {run.label} has done {done}; give more than that, got {job.length()}")


def change_length(run: Run, job: TrainJob, history: list[Record]) -> str:
    """Give ``run`` the epochs or the budget of ``job``, after ``history``; returns the line that says so. Its results are to
    be made again, so it is not finished any more."""
    old = run.job()
    line = describe_change(old, job, history)
    changes = [*run.state().get("length_changes", []), f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"]
    run.update(status="interrupted", tracked=False, model_uri=None, length_changes=changes)
    run.write_jobs(run.written_job().with_length_of(job), old.with_length_of(job))
    return line


def move_tracking(run: Run, job: TrainJob) -> str:
    """Have MLflow track ``run`` where ``job`` says from now on; returns the line that says so. All of it is delivered there
    when the run ends, or at once if it has ended."""
    tracking = job.tracking
    uri = tracking_uri(tracking.uri, run.folder.parent.parent, tracking.backend)
    resolved = run.job().model_copy(update={"tracking": tracking.model_copy(update={"uri": uri})})
    run.update(tracked=False, model_uri=None)
    run.write_jobs(run.written_job(), resolved)
    return f"run {run.label}: tracked at {uri or 'no place'} from now on"


def describe_change(old: TrainJob, new: TrainJob, history: list[Record]) -> str:
    """``extended from 20 to 40 epochs; progress goes back from 100 % to 50 %``."""
    before, unit = old.length(), new.length().partition(" ")[2]
    if unit and before.endswith(unit):
        before = before.removesuffix(f" {unit}")
    if not history:
        return f"changed from {before} to {new.length()}; nothing was done yet"
    was, becomes = history[-1].metrics.get("optim/progress", 1.0), share_of_length(history[-1], new)
    verb, goes = ("extended", "goes back") if becomes < was else ("shortened", "goes on")
    return f"{verb} from {before} to {new.length()}; progress {goes} from {was * 100:.0f} % to {becomes * 100:.0f} %"


def _place(job: TrainJob) -> str:
    if job.epochs:
        return "epochs"
    return "budget.steps" if job.time_budget() is None else "budget.time"
