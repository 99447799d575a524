"""From a job to a finished run: check it, find or make its run, train it, keep what came out."""

import json
import time
from collections.abc import Callable

from activelr_service.batch_size import BatchSizeChoice, read_choice
from activelr_service.config import TrainJob
from activelr_service.data.info import DataInfo
from activelr_service.driver.batch_size import Event, adopt, derived_sizes, log_batch_size, read_events
from activelr_service.driver.check import check_before_start, prepare_job
from activelr_service.driver.extend import change_length, check_length
from activelr_service.driver.finish import deliver, keep_results
from activelr_service.driver.ray_run import WorkersLostError, find_resources, train_on_ray
from activelr_service.driver.resolve import Choice, resolve_job
from activelr_service.record import place_in_run, progress_line, read_journal, seconds_left
from activelr_service.runs import Run, create_run, hold, output_root, start_attempt, unfinished_run
from activelr_service.tracking.follower import Follower
from activelr_service.tracking.store import is_embedded, new_tracker
from activelr_service.tracking.tracker import Tracker, TrackingError

EXIT_CODES = {"job": 2, "training": 3, "checkpoint": 4, "workers": 5, "tracking": 6}

Say = Callable[[str], None]


class RunFailedError(RuntimeError):
    """A run that was started and did not end well; ``exit_code`` is one of :data:`EXIT_CODES`."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.exit_code = EXIT_CODES[kind]


def train(job: TrainJob) -> Run:
    """Train a job to its end: continue its unfinished run if there is one, else begin a new run. Other epochs or another
    budget make the unfinished run longer or shorter.

    Raises :class:`JobError` or :class:`TrackingError` before anything starts, :class:`RunFailedError` after.
    """
    check_before_start(job)
    with hold(output_root(job.output_dir), job.name) as folder:
        run = unfinished_run(folder, job)
        if run is not None:
            return _continue(run, job)
        prepared, info = prepare_job(job)
        resolved, choices = resolve_job(prepared, info, find_resources())
        from activelr_service.training.build import check_forward

        check_forward(resolved, info)
        tracker = new_tracker(_uri(resolved), resolved.tracking.experiment, resolved.name, folder.parent)
        run = create_run(folder, job, resolved)
        run.update(mlflow_run_id=tracker.run_id, tracked=False, choices=[str(choice) for choice in choices])
        say = _log_to(run)
        say(f"run {run.label}: {info.describe()}")
        for line in (*info.notes, *(f"warning: {warning}" for warning in info.warnings), *choices):
            say(f"  {line}")
        _log_start(tracker, run, resolved, info, choices)
        return _see_through(run, resolved, info, tracker, say)


def resume(run: Run, job: TrainJob | None = None) -> Run:
    """Bring a run to its end: its training, or what of it MLflow has not got yet. A finished one is left alone, unless
    ``job``, its resolved job with other epochs or another budget, has more for it to do; :class:`JobError` if it has not."""
    with hold(run.folder.parent.parent, run.folder.parent.name):
        state = run.state()
        if job is not None:
            check_length(run, job, read_journal(run.journal))
            return _continue(run, job)
        if state["status"] == "finished":
            if not state["tracked"]:
                deliver(run, Tracker.reopen(_uri(run.job()), state["mlflow_run_id"]))
                _log_to(run)(f"run {run.label}: MLflow now has all of it")
            return run
        return _continue(run, run.job())


def _continue(run: Run, job: TrainJob) -> Run:
    """With the epochs or the budget of ``job``."""
    from activelr_service.training.checkpoint import CheckpointStore

    _, info = prepare_job(run.job())
    say = _log_to(run)
    epoch = CheckpointStore(run.checkpoints, run.journal, say).find_valid()
    if epoch < 0:
        text = f"run {run.label} has no valid checkpoint left: see {run.checkpoints}/*.corrupt; delete {run.folder} to begin"
        raise RunFailedError(text, "checkpoint")
    history = [record for record in read_journal(run.journal) if record.epoch <= epoch]
    resolved = run.job().with_length_of(job)
    is_changed = resolved != run.job()
    if is_changed:
        check_length(run, resolved, history)
    tracker = Tracker.reopen(_uri(run.job()), run.state()["mlflow_run_id"])
    if is_changed:
        line = change_length(run, resolved, history)
        say(f"run {run.label}: {line}")
        tracker.set_tags({"activelr.length": resolved.length(), "activelr.length_change": line})
    after = place_in_run(history[-1], resolved) if history else "epoch 0"
    say(f"run {run.label}: continued after {after}")
    choice = read_choice(run.batch_size)
    if choice is not None and run.job().global_batch_size is None:  # the driver ended just after the workers chose
        resolved = adopt(run, choice, say)
    return _see_through(run, resolved, info, tracker, say)


def _see_through(run: Run, job: TrainJob, info: DataInfo, tracker: Tracker, say: Say) -> Run:
    """Train, with the journal followed for the log and for MLflow; then keep the results, whatever the end was."""
    start_attempt(run)
    said = -1 if job.global_batch_size is None else len(read_journal(run.journal))
    followers: list[Follower] = [
        Follower(lambda: read_events(run), _progress(run, job, say), last=said),
        Follower(lambda: read_events(run), _track(run, tracker), last=-1),
        Follower(run.read_notes, say, last=len(run.read_notes())),
    ]
    for follower in followers:
        follower.start()
    status, failure = "interrupted", None
    try:
        train_on_ray(run, job, info)
        failure = _failure(run)
        status = "finished" if failure is None else "failed"
    except WorkersLostError as error:
        failure = RunFailedError(
            f"run {run.label} lost its workers more than {job.workers.max_failures} times: {error}", "workers"
        )
    except SystemExit:  # Ctrl-C or SIGTERM
        say(
            f"run {run.label} is interrupted; `activelr resume {run.folder}` continues it from its last committed epoch"
        )
        raise
    finally:
        run.update(status=status, reason=str(failure) if failure else None)
        for follower in followers:
            follower.finish()
        if status == "finished":
            keep_results(run, job, info)
        _deliver(run, tracker, say)
    if failure is not None:
        raise failure
    _say_where(run, say)
    return run


def _failure(run: Run) -> RunFailedError | None:
    if not run.failure.exists():
        return None
    failure = json.loads(run.failure.read_text())
    kind = {"JobError": "job", "CheckpointError": "checkpoint"}.get(failure["type"], "training")
    shown = failure["message"] if kind != "training" else f"{failure['type']}: {failure['message']}"
    return RunFailedError(f"run {run.label} failed on rank {failure['rank']}: {shown} (details: {run.failure})", kind)


def _deliver(run: Run, tracker: Tracker, say: Say) -> None:
    try:
        deliver(run, tracker)
    except TrackingError as error:
        say(f"{error}; what it has not got is kept, and `activelr resume {run.folder}` delivers it")


def _log_start(tracker: Tracker, run: Run, job: TrainJob, info: DataInfo, choices: list[Choice]) -> None:
    assert info.num_train is not None
    derived = {"num_train": info.num_train, "num_val": info.num_val, **derived_sizes(job, info.num_train)}
    params = job.model_dump(mode="json", exclude={"kind", "tracking", "output_dir"})
    tracker.log_params({**params, "derived": derived})
    tracker.set_tags(
        {"activelr.run": run.folder, **{f"activelr.why.{choice.path}": choice.reason for choice in choices}}
    )


def _progress(run: Run, job: TrainJob, say: Say) -> Callable[[Event], None]:
    history = read_journal(run.journal)

    def show(event: Event) -> None:
        if isinstance(event, BatchSizeChoice):
            adopt(run, event, say)
            return
        history.append(event)
        say(progress_line(event, job, seconds_left(history, job)))

    return show


def _track(run: Run, tracker: Tracker) -> Callable[[Event], None]:
    def log(event: Event) -> None:
        if isinstance(event, BatchSizeChoice):
            log_batch_size(run, tracker)
        else:
            tracker.log_record(event)

    return log


def _say_where(run: Run, say: Say) -> None:
    state = run.state()
    say(f"run {run.label} finished: best {state['score_name']} {state['score']:.4f}, at epoch {state['best_epoch']}")
    say(f"  model    {run.model}" + (f"  ({state['model_uri']} in MLflow)" if state.get("model_uri") else ""))
    say(f"  figures  {run.figures}")
    say(f"  MLflow   {_where_to_look(run)}")


def _where_to_look(run: Run) -> str:
    uri, run_id = _uri(run.job()), run.state()["mlflow_run_id"]
    if is_embedded(uri):
        return f"activelr ui --output-dir {run.folder.parent.parent}  (run {run_id})"
    return f"{uri}  (run {run_id})"


def _uri(job: TrainJob) -> str:
    assert job.tracking.uri is not None
    return job.tracking.uri


def _log_to(run: Run) -> Say:
    """Says a line on stdout and writes it, with the time, to the run's log."""

    def say(line: str) -> None:
        print(line, flush=True)
        with run.log.open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    return say
