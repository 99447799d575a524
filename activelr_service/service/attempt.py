"""One attempt at a run: its training, followed for the log and for MLflow, then its end, whatever that is.

The status of the run is written last. So an attempt that is cut off anywhere leaves a run that is continued.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from activelr_service.config import TrainJob
from activelr_service.data.info import DataInfo
from activelr_service.errors import (
    ClusterError,
    RunFailedError,
    SupersededError,
    TrackingError,
    WorkersLostError,
    kind_of,
)
from activelr_service.redact import redact
from activelr_service.runs.begin import start_attempt
from activelr_service.runs.fence import check_attempt
from activelr_service.runs.follower import Follower
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import progress_line, seconds_left
from activelr_service.runs.run import Run
from activelr_service.service.batch_size import Event, EventReader, adopt, log_batch_size
from activelr_service.service.finish import deliver, keep_results
from activelr_service.service.ray_run import train_on_ray
from activelr_service.tracking.store import is_embedded
from activelr_service.tracking.tracker import Tracker
from activelr_service.training.batch_size.choice import BatchSizeChoice

Say = Callable[[str], None]


@contextmanager
def naming_the_system() -> Iterator[None]:
    """What the system refuses inside, such as a full disk, is one line and no error of the program."""
    try:
        yield
    except OSError as error:
        raise RunFailedError(f"{error}; put it right, then start it again: nothing is lost", "environment") from error


@dataclass(frozen=True)
class Attempt:
    """What an attempt at ``run`` works with: its resolved ``job``, what its data are, its MLflow run and its log."""

    run: Run
    job: TrainJob
    info: DataInfo
    tracker: Tracker
    say: Say


def run_attempt(attempt: Attempt, is_trained: bool = False) -> Run:
    """Train the run and keep its results; ``is_trained``: only the latter are missing. Raises :class:`RunFailedError`."""
    run = attempt.run
    number = start_attempt(run)
    followers = _follow(attempt)
    try:
        if not is_trained:
            _train(attempt)
        _catch_up(followers)
        check_attempt(run.folder, number)
        keep_results(run, attempt.job, attempt.info, attempt.say)
    except (SystemExit, KeyboardInterrupt):  # SIGTERM or Ctrl-C
        remedy = f"`activelr resume {run.folder}` continues it from its last committed epoch"
        attempt.say(f"run {run.label} is interrupted; {remedy}")
        _close(attempt, number, followers, "interrupted", None)
        raise
    except SupersededError:
        raise
    except Exception as error:
        failure = _failure_of(run, error)
        _close(attempt, number, followers, failure.status, str(failure))
        raise failure from error
    _close(attempt, number, followers, "finished", None)
    say_where(attempt)
    return run


def _train(attempt: Attempt) -> None:
    """Raises :class:`RunFailedError` with what a worker noted, or if the workers or their cluster were lost."""
    run = attempt.run
    try:
        train_on_ray(run, attempt.job, attempt.info)
    except WorkersLostError as error:
        limit = attempt.job.workers.max_failures
        raise RunFailedError(f"run {run.label} lost its workers more than {limit} times: {error}", "workers") from error
    except ClusterError as error:
        remedy = f"`activelr resume {run.folder}` continues it from its last committed epoch"
        raise RunFailedError(f"run {run.label}: {error}; {remedy}", "workers") from error
    if failure := run.read_failure():
        shown = f"{failure.type}: {failure.message}" if failure.kind in ("training", "diverged") else failure.message
        text = f"run {run.label} failed on rank {failure.rank}: {shown} (details: {run.failure})"
        raise RunFailedError(f"{text}{_remedy(run, failure.kind)}", failure.kind)


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
    """Deliver what there is, then write the status: last, so that a run with a status has all that belongs to it.

    Raises :class:`SupersededError` if another process trains the run now: the status is for that one to write.
    """
    run = attempt.run
    _catch_up(followers)
    check_attempt(run.folder, number)
    try:
        deliver(run, attempt.tracker, status, reason)
    except TrackingError as error:
        attempt.say(f"{error}; what it has not got is kept, and `activelr resume {run.folder}` delivers it")
    except OSError as error:
        attempt.say(f"run {run.label}: {error}; `activelr resume {run.folder}` delivers the rest to MLflow")
    try:
        run.update(status=status, reason=redact(reason) if reason else None)
    except OSError as error:  # without a status it counts as interrupted
        attempt.say(f"run {run.label}: its status could not be written: {error}")


def _follow(attempt: Attempt) -> list[Follower]:
    run = attempt.run
    said = -1 if attempt.job.global_batch_size is None else len(read_journal(run.journal))
    followers: list[Follower] = [
        Follower(EventReader(run).read, _progress(attempt), last=said),
        Follower(EventReader(run).read, _track(attempt), last=-1),
        Follower(run.read_notes, attempt.say, last=len(run.read_notes())),
    ]
    for follower in followers:
        follower.start()
    return followers


def _catch_up(followers: list[Follower]) -> None:
    for follower in followers:
        follower.finish()


def _progress(attempt: Attempt) -> Callable[[Event], None]:
    history = list(read_journal(attempt.run.journal))

    def show(event: Event) -> None:
        if isinstance(event, BatchSizeChoice):
            adopt(attempt.run, event, attempt.say)
            return
        history.append(event)
        attempt.say(progress_line(event, attempt.job, seconds_left(history, attempt.job)))

    return show


def _track(attempt: Attempt) -> Callable[[Event], None]:
    def log(event: Event) -> None:
        if isinstance(event, BatchSizeChoice):
            log_batch_size(attempt.run, attempt.tracker)
        else:
            attempt.tracker.log_record(event)

    return log


def say_where(attempt: Attempt) -> None:
    """The score of a finished run, and where its model, figures and metrics are."""
    run, state = attempt.run, attempt.run.state()
    score = "was never finite" if state["score"] is None else f"{state['score']:.4f}"
    attempt.say(f"run {run.label} finished: best {state['score_name']} {score}, at epoch {state['best_epoch']}")
    attempt.say(f"  model    {run.model}" + (f"  ({state['model_uri']} in MLflow)" if state.get("model_uri") else ""))
    attempt.say(f"  figures  {run.figures}")
    attempt.say(f"  MLflow   {_where_to_look(attempt)}")


def _where_to_look(attempt: Attempt) -> str:
    uri, run_id = attempt.tracker.uri, attempt.tracker.run_id
    if is_embedded(uri):
        return f"activelr ui --output-dir {attempt.run.folder.parent.parent}  (run {run_id})"
    return f"{uri}  (run {run_id})"


def log_to(run: Run) -> Say:
    """Says a line on stdout and writes it, with the time, to the run's log. Neither ends a training: not a log on a full
    disk, nor a terminal or a pipe that is gone."""

    def say(line: object) -> None:
        text = redact(str(line))
        try:
            print(text, flush=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        try:
            with run.log.open("a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        except OSError as error:
            with suppress(OSError):
                print(f"{run.log}: {error}", file=sys.stderr)

    return say
