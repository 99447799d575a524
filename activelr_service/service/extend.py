"""A run made longer or shorter: its epochs or its budget changed, and nothing else."""

import time

from activelr_service.config import TrainJob, diff_jobs
from activelr_service.errors import JobError
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run


def check_duration(run: Run, job: TrainJob, history: list[Record]) -> None:
    """Raise :class:`JobError` unless ``job`` is the resolved job of ``run``, but longer than what ``history`` has done."""
    now = run.job()
    other = job.lasting(now.duration).model_copy(update={"tracking": now.tracking, "output_dir": now.output_dir})
    if other != now:
        changes = diff_jobs(now, other)
        remedy = "leave the rest as it is, or train a new run under another name"
        text = f"only epochs, budget and tracking of run {run.label} can change, got {'; '.join(changes)}; {remedy}"
        raise JobError.at(changes[0].partition(":")[0], text)
    last = history[-1] if history else None
    is_done = last is not None and now.duration.is_over(last.position) and job.duration == now.duration
    if last is not None and (is_done or job.duration.share_used(last.position) >= 1):
        done = f"{last.epoch} epochs, {last.global_step:,} steps"
        if "perf/elapsed_seconds" in last.metrics:
            done += f", {last.metrics['perf/elapsed_seconds']:,.0f} s"
        raise JobError.at(
            job.duration.path, f"run {run.label} has done {done}; give more than that, got {job.duration}"
        )


def change_duration(run: Run, job: TrainJob, history: list[Record]) -> str:
    """Give ``run`` the epochs or the budget of ``job``, after ``history``; returns the line that says so. Its results are to
    be made again, so it is not finished any more."""
    old = run.job()
    position = history[-1].position if history else None
    line = old.duration.describe_change(job.duration, position)
    changes = [*run.state().get("length_changes", []), f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"]
    run.update(status="interrupted", tracked=False, model_uri=None, length_changes=changes)
    run.write_jobs(run.written_job().lasting(job.duration), old.lasting(job.duration))
    return line


def move_tracking(run: Run, job: TrainJob) -> str:
    """Have MLflow track ``run`` where ``job`` says from now on; returns the line that says so. All of it is delivered there
    when the run ends, or at once if it has ended."""
    resolved = run.job().model_copy(update={"tracking": job.tracking})
    run.update(tracked=False, model_uri=None)
    run.write_jobs(run.written_job(), resolved)
    return f"run {run.label}: tracked at {resolved.tracking.uri} from now on"
