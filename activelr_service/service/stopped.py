"""A run that ends before its time: the best model so far is left, and a person is told what can be done with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from activelr_service.config import ResolvedJob
from activelr_service.config.duration import Duration
from activelr_service.data.info import DataInfo
from activelr_service.errors import CheckpointError, RunDamagedError, TrackingError
from activelr_service.runs.console import show_score
from activelr_service.runs.fence import begin_group
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run, target_of
from activelr_service.service.finish import export_best
from activelr_service.tracking.tracker import Tracker

Log = Callable[[str], None]


@contextmanager
def saying_stop(run: Run, log: Log, tracker: Tracker | None = None) -> Iterator[None]:
    """Inside, a signal that stops a run before its training begins or goes on is said in its log, with the remedy, and to
    its ``tracker``."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        log(f"run {run.label} is interrupted; `activelr resume {run.folder}` continues it")
        if tracker is not None:
            end_in_tracking(tracker)
        raise


def end_in_tracking(tracker: Tracker) -> None:
    """Mark a run as interrupted in its tracker, which would show it as running; one that does not answer is left."""
    with suppress(TrackingError):
        tracker.end("interrupted")


def describe_interruption(run: Run, duration: Duration) -> str:
    """The line about a run that a signal has stopped: what can be done with it."""
    history = read_journal(run.journal)
    if history and duration.is_over(history[-1].position):
        return (
            f"run {run.label} is interrupted after its last epoch; `activelr resume {run.folder}` completes its results"
        )
    return f"run {run.label} is interrupted; `activelr resume {run.folder}` continues it from its last checkpoint"


def leave_best(run: Run, job: ResolvedJob, info: DataInfo, attempt: int, log: Log) -> None:
    """Export the best model so far of a run that was stopped, and log where it is and what can be done with it.

    Workers of ``attempt`` that still live write nothing from now on. Raises
    :class:`~activelr_service.errors.SupersededError` if a newer attempt has begun.
    """
    begin_group(run.folder, attempt)
    try:
        if not read_journal(run.journal):
            log("  there is no model yet: no epoch is committed")
            return
        best = export_best(run, job, info, log, is_final=False)
    except (CheckpointError, RunDamagedError, OSError) as error:
        log(f"  the best model so far is not exported: {error}")
        return
    place = f"the best model so far, {describe_score(run, best)}, is in {run.model}"
    use = f"`activelr predict {target_of(run)} INPUT --output FILE` uses it"
    log(f"  {place}: {use}, `activelr finish {target_of(run)}` ends the run with it")


def describe_score(run: Run, best: Record) -> str:
    """``val/accuracy 0.9611, at epoch 7``."""
    state = run.state()
    score = "was never finite" if state["score"] is None else show_score(state["score"])
    return f"{state['score_name']} {score}, at epoch {best.epoch}"


def finish_hint(run: Run, kind: str) -> str:
    """What can be done with a run that failed for good, if it has epochs; empty for any other ``kind`` of failure."""
    if kind not in ("training", "diverged") or not read_journal(run.journal):
        return ""
    return f"; `activelr finish {target_of(run)}` exports the best of its epochs"


def reason_of_end(run: Run, duration: Duration, last: Record) -> str | None:
    """Why a run that is ended by hand after its ``last`` epoch is finished. None if its ``duration`` is over."""
    if duration.is_over(last.position):
        return None
    done = (
        f"{last.epoch} of {duration.value}" if duration.unit == "epochs" else f"{last.epoch}, {_share(duration, last)}"
    )
    state = run.state()
    failure = f"; before, it failed: {state['reason']}" if state["status"] == "failed" and state.get("reason") else ""
    return f"ended by hand after epoch {done}{failure}"


def _share(duration: Duration, last: Record) -> str:
    return f"{100 * duration.share_used(last.position):.0f} % of {duration}"
