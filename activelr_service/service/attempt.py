"""One attempt at a run: its training, followed for the log and the tracker, then its end, good or bad.

The status of the run is written last. So a run whose attempt is killed at any moment can be continued.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from activelr_service.config import CompleteJob, ResolvedJob
from activelr_service.data.info import DataInfo
from activelr_service.errors import (
    ClusterError,
    RunFailedError,
    SupersededError,
    TrackingError,
    WorkersLostError,
    kind_of,
)
from activelr_service.runs.bar import Bar, terminal_bar
from activelr_service.runs.begin import start_attempt
from activelr_service.runs.console import Follower, progress_line, show_score
from activelr_service.runs.fence import check_attempt
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import seconds_left
from activelr_service.runs.run import Run
from activelr_service.service.batch_size import Event, EventReader, JobCompleted, apply_batch_size, log_batch_size
from activelr_service.service.finish import export_results
from activelr_service.service.ray_run import train_on_ray
from activelr_service.service.show_epoch import follow_epochs, note_early_stop
from activelr_service.service.stopped import describe_interruption, finish_hint, leave_best, saying_stop
from activelr_service.service.test_split import describe_test
from activelr_service.service.track import sync_to_tracking
from activelr_service.tracking.deadline import grant
from activelr_service.tracking.store import is_embedded
from activelr_service.tracking.tracker import Tracker

Log = Callable[[str], None]

MLFLOW_S = 5  # how long MLflow may take after a signal: Ray gives a stopped job 30 seconds in all


@contextmanager
def reporting_system_errors() -> Iterator[None]:
    """Turn an error of the system, such as a full disk, into a :class:`RunFailedError` of one line."""
    try:
        yield
    except OSError as error:
        raise RunFailedError(f"{error}; put it right, then start it again: nothing is lost", "environment") from error


@dataclass(frozen=True)
class Attempt:
    """What an attempt at ``run`` works with: its resolved ``job``, a description of its data, its tracker and its log."""

    run: Run
    job: ResolvedJob
    info: DataInfo
    tracker: Tracker
    log: Log


def run_attempt(attempt: Attempt, is_trained: bool = False, reason: str | None = None) -> Run:
    """Train the run and export its results. With ``is_trained`` only the results are missing.

    ``reason`` says why a run ends before its time; its state keeps it. Raises :class:`RunFailedError` if the run fails.
    """
    from activelr_service.training.threads import threads_kept

    with threads_kept():  # one worker trains in this process, with the threads of the job
        return _run_attempt(attempt, is_trained, reason)


def _run_attempt(attempt: Attempt, is_trained: bool, reason: str | None) -> Run:
    run, bar = attempt.run, terminal_bar()
    if bar is not None:
        attempt = replace(attempt, log=bar.above(attempt.log))
    with saying_stop(run, attempt.log, attempt.tracker):
        number = start_attempt(run)
        followers = _follow(attempt, bar)
    try:
        if not is_trained:
            _train(attempt)
        _flush(followers)
        note_early_stop(run, attempt.job, attempt.log)
        check_attempt(run.folder, number)
        export_results(run, attempt.job, attempt.info, attempt.log)
        _close(attempt, number, followers, "finished", reason)
    except (SystemExit, KeyboardInterrupt):  # SIGTERM or Ctrl-C
        if run.state()["status"] != "finished":
            _interrupt(attempt, number, followers)
        raise
    except SupersededError:
        raise
    except Exception as error:
        failure = _failure_of(run, error)
        _close(attempt, number, followers, failure.status, str(failure))
        raise failure from error
    log_places(attempt)
    return run


def _interrupt(attempt: Attempt, number: int, followers: list[Follower]) -> None:
    """Leave the best model, say what can be done with the run, and write that it is interrupted."""
    run = attempt.run
    followers[0].finish()  # the lines of the last epochs come first
    attempt.log(describe_interruption(run, attempt.job.duration))
    leave_best(run, attempt.job, attempt.info, number, attempt.log)
    grant(MLFLOW_S)
    _close(attempt, number, followers, "interrupted", None)


def _train(attempt: Attempt) -> None:
    """Train. Raises :class:`RunFailedError` with the error of a worker, or if the workers or their cluster were lost."""
    run = attempt.run
    try:
        train_on_ray(run, attempt.job, attempt.info)
    except WorkersLostError as error:
        limit = attempt.job.workers.max_failures
        raise RunFailedError(f"run {run.label} lost its workers more than {limit} times: {error}", "workers") from error
    except ClusterError as error:
        remedy = f"`activelr resume {run.folder}` continues it from its last checkpoint"
        raise RunFailedError(f"run {run.label}: {error}; {remedy}", "workers") from error
    if failure := run.read_failure():
        shown = f"{failure.type}: {failure.message}" if failure.kind in ("training", "diverged") else failure.message
        text = f"run {run.label} failed on rank {failure.rank}: {shown} (details: {run.failure})"
        raise RunFailedError(f"{text}{_remedy(run, failure.kind)}{finish_hint(run, failure.kind)}", failure.kind)


def _failure_of(run: Run, error: Exception) -> RunFailedError:
    """The failure of the run that ``error`` means. Raises ``error`` itself if it is a mistake of the program."""
    if isinstance(error, RunFailedError):
        return error
    kind = kind_of(error)
    if kind not in ("checkpoint", "environment", "memory"):
        raise error
    return RunFailedError(f"run {run.label}: {error}{_remedy(run, kind)}", kind)


def _remedy(run: Run, kind: str) -> str:
    if kind not in ("environment", "memory"):
        return ""
    return f"; what was committed is kept: put it right, then `activelr resume {run.folder}`"


def _close(attempt: Attempt, number: int, followers: list[Follower], status: str, reason: str | None) -> None:
    """Send what there is to the tracker, then write the status. It is last, so that a run with a status is complete.

    Raises :class:`SupersededError` if another process trains the run now: that one writes the status.
    """
    run = attempt.run
    _flush(followers)
    check_attempt(run.folder, number)
    try:
        sync_to_tracking(run, attempt.tracker, status, reason)
    except TrackingError as error:
        attempt.log(f"{error}; what it has not got is kept, and `activelr resume {run.folder}` delivers it")
    except OSError as error:
        attempt.log(f"run {run.label}: {error}; `activelr resume {run.folder}` delivers the rest to MLflow")
    try:
        run.end(status, reason)
    except OSError as error:  # without a status it counts as interrupted
        attempt.log(f"run {run.label}: its status could not be written: {error}")


def _follow(attempt: Attempt, bar: Bar | None) -> list[Follower]:
    """Followers, which run already. The first one logs the lines of whole epochs."""
    run = attempt.run
    logged = len(read_journal(run.journal)) if isinstance(attempt.job, CompleteJob) else -1
    followers: list[Follower] = [
        Follower(EventReader(run).read, _show(attempt), last=logged),
        Follower(EventReader(run).read, _track(attempt), last=-1),
        Follower(lambda after: run.read_notes()[after:], attempt.log, last=len(run.read_notes())),
    ]
    for follower in followers:
        follower.start()
    return followers + follow_epochs(run, attempt.job, attempt.tracker, attempt.log, bar, epochs=followers[0])


def _flush(followers: list[Follower]) -> None:
    for follower in followers:
        follower.finish()


def _show(attempt: Attempt) -> Callable[[Event], None]:
    history = list(read_journal(attempt.run.journal))

    def show(event: Event) -> None:
        if isinstance(event, JobCompleted):
            apply_batch_size(attempt.run, event, attempt.log)
            return
        history.append(event)
        attempt.log(progress_line(event, attempt.job, seconds_left(history, attempt.job)))

    return show


def _track(attempt: Attempt) -> Callable[[Event], None]:
    def log(event: Event) -> None:
        if isinstance(event, JobCompleted):
            log_batch_size(attempt.run, attempt.tracker)
        else:
            attempt.tracker.log_metrics([event.to_row()])

    return log


def log_places(attempt: Attempt) -> None:
    """Log the score of a finished run, and where its model, figures and metrics are."""
    run, state = attempt.run, attempt.run.state()
    score = "was never finite" if state["score"] is None else show_score(state["score"])
    how = f"finished ({state['reason']})" if state.get("reason") else "finished"
    attempt.log(f"run {run.label} {how}: best {state['score_name']} {score}, at epoch {state['best_epoch']}")
    if test := describe_test(state):
        attempt.log(f"  test     {test}")
    attempt.log(f"  model    {run.model}" + (f"  ({state['model_uri']} in MLflow)" if state.get("model_uri") else ""))
    attempt.log(f"  figures  {run.figures}")
    if attempt.tracker.uri is not None:
        attempt.log(f"  MLflow   {_where_to_look(attempt)}")


def _where_to_look(attempt: Attempt) -> str:
    uri, run_id = attempt.tracker.uri, attempt.tracker.run_id
    if is_embedded(uri):
        return f"activelr ui --output-dir {attempt.run.folder.parent.parent}  (run {run_id})"
    return f"{uri}  (run {run_id})"
