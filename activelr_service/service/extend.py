"""A run made longer or shorter: its epochs or its budget changed, and nothing else."""

import time

from activelr_service.config import ResolvedJob, diff_jobs
from activelr_service.config.duration import Duration
from activelr_service.errors import JobError
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run


def check_duration(run: Run, now: ResolvedJob, job: ResolvedJob, history: list[Record]) -> None:
    """Raise :class:`JobError` unless ``job`` is ``now``, the job of ``run``, with more to do than ``history`` has done."""
    rest = {"tracking": now.tracking, "output_dir": now.output_dir}
    changes = diff_jobs(now, job.lasting(now.duration).model_copy(update=rest))
    if changes:
        remedy = "leave the rest as it is, or train a new run under another name"
        text = f"only epochs, budget and tracking of run {run.label} can change, got {'; '.join(changes)}; {remedy}"
        raise JobError.at(changes[0].partition(":")[0], text)
    if not history:
        return
    last = history[-1]
    is_done = job.duration == now.duration and now.duration.is_over(last.position)
    if is_done or job.duration.share_used(last.position) >= 1:
        done = f"{last.epoch} epochs, {last.global_step:,} steps"
        if "perf/elapsed_seconds" in last.metrics:
            done += f", {last.metrics['perf/elapsed_seconds']:,.0f} s"
        remedy = (
            "give more than that" if last.ended is None else "early stopping has ended it there: give another length"
        )
        raise JobError.at(job.duration.path, f"run {run.label} has done {done}; {remedy}, got {job.duration}")


def change_duration(run: Run, now: ResolvedJob, duration: Duration, history: list[Record]) -> str:
    """Give ``run``, whose job is ``now``, another ``duration`` after ``history``; returns the line that says so.

    The results of the run are to be made again, so it is not finished any more.
    """
    line = now.duration.describe_change(duration, history[-1].position if history else None)
    changes = [*run.state().get("length_changes", []), f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"]
    run.update(status="interrupted", tracked=False, model_uri=None, length_changes=changes, early_stop=None)
    run.write_jobs(run.written_job().lasting(duration), now.lasting(duration))
    return line


def move_tracking(run: Run, job: ResolvedJob) -> str:
    """Have MLflow track ``run`` where ``job``, its new job, says; returns the line that says so.

    All of the run is delivered there when it ends, or at once if it has ended.
    """
    run.update(tracked=False, model_uri=None)
    run.write_jobs(run.written_job(), job)
    place = f"tracked at {job.tracking.uri}" if job.tracking.uri else "not tracked"
    return f"run {run.label}: {place} from now on"
