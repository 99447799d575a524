"""From a job to a finished run: begin its run, or continue the one that is there."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from activelr_service.config import CompleteJob, ResolvedJob, TrainJob, read_job
from activelr_service.config.duration import Duration
from activelr_service.data.info import DataInfo
from activelr_service.errors import CommandError, JobError, RunFailedError, TrackingError, naming_missing_packages
from activelr_service.runs.begin import create_run, discard_run, lock_run, unfinished_run
from activelr_service.runs.console import log_to
from activelr_service.runs.journal import is_journal_whole, salvage_journal, write_journal
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run, output_root
from activelr_service.service.attempt import Attempt, Log, reporting_system_errors, run_attempt
from activelr_service.service.batch_size import apply_batch_size, find_completed
from activelr_service.service.check import prepare_job
from activelr_service.service.extend import change_duration, check_duration, move_tracking
from activelr_service.service.finish import has_model
from activelr_service.service.prepare import (
    Prepared,
    check_data,
    describe_data,
    prepare,
    read_info,
    relocate,
    write_data,
)
from activelr_service.service.stopped import reason_of_end, saying_stop
from activelr_service.service.track import open_run_tracker, sync_to_tracking
from activelr_service.service.tracker_beside_ray import open_while_ray_starts
from activelr_service.tracking.store import tracking_uri


@naming_missing_packages("activelr_service.train")
def train(job: TrainJob | str | Path, overrides: Sequence[str] = ()) -> Run:
    """Train a job to its end, and return its run.

    If the job has an unfinished run, that run is continued from its last checkpoint, to the same bits as without the
    interruption. Else a new run begins. With other epochs or another budget, the unfinished run becomes longer or shorter.

    Args:
        job: A job that :func:`~activelr_service.load_job` has read, or the path of a YAML file.
        overrides: ``"a.b=value"`` texts, as after ``--set``. They change a job that is read from a file.

    Returns:
        The finished run: ``run.folder`` is its folder, ``run.model`` the folder of the exported model, ``run.state()`` its
        status and its best score.

    Raises:
        JobError: The job, its data or its model cannot be used. A job that is read from a file has the lines in the text.
        TypeError: ``overrides`` are given with a job that has been read already.
        TrackingError: The tracking server does not answer. Nothing was started.
        RunFailedError: The training was started and did not end well.
    """
    if not isinstance(job, TrainJob):
        read, source = read_job(job, overrides)
        with source.locating():
            return _train(read)
    if overrides:
        raise TypeError("overrides change a job that is read from a file; give them to load_job instead")
    return _train(job)


def _train(job: TrainJob) -> Run:
    root = output_root(job.output_dir)
    prepared = None if unfinished_run(root / job.name, job) else prepare(job)
    with lock_run(root, job.name) as folder, reporting_system_errors():
        run = unfinished_run(folder, job)
        if run is not None:
            return _continue(run, _find_moved(run, run.job(), log_to(run.log)), job.duration)
        prepared = prepared or prepare(job)
        run = create_run(folder, job, prepared.job, write_data(prepared.job, prepared.info), prepared.state())
        return _begin(run, prepared)


def _begin(run: Run, prepared: Prepared) -> Run:
    """Train a run that was just created."""
    log = log_to(run.log)
    try:
        with saying_stop(run, log):
            opening = partial(open_run_tracker, run, prepared.job, prepared.info, log)
            tracker = open_while_ray_starts(opening, prepared.job)
    except TrackingError:
        discard_run(run)  # nothing has started: nothing stays
        raise
    log(f"run {run.label}: {prepared.info.describe()}")
    for line in (*describe_data(prepared.info), *prepared.choices):
        log(f"  {line}")
    return run_attempt(Attempt(run, prepared.job, prepared.info, tracker, log))


def resume(run: Run, job: ResolvedJob | None = None) -> Run:
    """Bring a run to its end: its training, or what of it is not exported or not in MLflow yet.

    A finished run only gets what of it is missing, here or in MLflow, unless ``job`` has more for it to do: the resolved
    job with other epochs, another budget or another tracking server.

    Raises :class:`JobError` for any other change, :class:`RunFailedError` if the run does not end well.
    """
    with lock_run(run.folder.parent.parent, run.folder.parent.name), reporting_system_errors():
        log, before = log_to(run.log), run.job()
        now = _find_moved(run, before, log)
        wanted = now if job is None else _relocate_wanted(run, job, {before.output_dir, now.output_dir})
        is_again = job is not None and wanted == now and run.state()["status"] == "finished"
        rest = wanted.model_copy(update={"tracking": now.tracking})
        if job is not None and (rest != now or wanted == now):
            check_duration(run, now, rest, salvage_journal(run.journal))
        if wanted.tracking != now.tracking:
            now = now.model_copy(update={"tracking": wanted.tracking})
            log(move_tracking(run, now))
        if is_again:  # it was ended by hand, and is to do the rest of its length after all
            run.update(status="interrupted", model_uri=None)
        if run.state()["status"] == "finished" and wanted == now:
            return _complete(run, now, log)
        return _continue(run, now, wanted.duration)


def finish(run: Run) -> Run:
    """Make a run that was stopped a finished one: with the model of its best epoch, its figures, and all of it in MLflow.

    A finished run only gets what of it is missing. Raises :class:`CommandError` if a process trains the run, or if it has
    no committed epoch.
    """
    if run.is_active():
        state = run.state()
        text = f"run {run.label} is being trained by process {state['pid']} on {state['host']}"
        raise CommandError(f"{text}; stop it first: `activelr stop {run.label}`")
    with lock_run(run.folder.parent.parent, run.folder.parent.name), reporting_system_errors():
        log = log_to(run.log)
        now = _find_moved(run, run.job(), log)
        if run.state()["status"] == "finished":
            return _complete(run, now, log)
        return _continue(run, now, now.duration, is_ended=True)


def _complete(run: Run, now: ResolvedJob, log: Log) -> Run:
    """Give a finished run, whose job is ``now``, what of it is missing here or in MLflow."""
    if not has_model(run) or not is_journal_whole(run.journal):
        return _continue(run, now, now.duration, is_ended=bool(run.state().get("reason")))
    sync_to_tracking(run, open_run_tracker(run, now, read_info(run), log), "finished", run.state().get("reason"))
    reason = f" ({run.state()['reason']})" if run.state().get("reason") else ""
    is_tracked = now.tracking.backend != "none"
    log(
        f"run {run.label} is finished{reason}, and {'MLflow has all of it' if is_tracked else 'nothing of it is tracked'}"
    )
    return run


def _relocate_wanted(run: Run, job: ResolvedJob, places: set[str]) -> ResolvedJob:
    """The job that a resume gives, where the run is now. Raises :class:`JobError` if it names none of the ``places``."""
    root = run.folder.parent.parent
    if job.output_dir not in places:
        text = f"a run is resumed where it is, in {root}, got {job.output_dir}"
        raise JobError.at("output_dir", f"{text}; leave it out, or move the whole folder first")
    here = relocate(job, root)
    uri = tracking_uri(here.tracking.uri, root, here.tracking.backend)
    return here.model_copy(update={"tracking": here.tracking.model_copy(update={"uri": uri})})


def _continue(run: Run, now: ResolvedJob, duration: Duration, *, is_ended: bool = False) -> Run:
    """Bring a run, whose job is ``now``, to an end after ``duration``; with ``is_ended``, after the epochs that it has."""
    log, is_changed = log_to(run.log), duration != now.duration
    with saying_stop(run, log):
        history = _find_history(run, log)
        if is_ended and not history:
            text = f"run {run.label} has no committed epoch, so there is no model to finish it with"
            raise CommandError(f"{text}; `activelr resume {run.label}` trains it")
        if is_changed:
            check_duration(run, now, now.lasting(duration), history)
        reason = reason_of_end(run, duration, history[-1]) if is_ended else None
        is_trained = is_ended or (bool(history) and duration.is_over(history[-1].position))
        info = read_info(run)
        if info is None or not is_trained:
            now, info = _look_at_data(run, now, log)
        job = now.lasting(duration)
        opening = partial(open_run_tracker, run, job, info, log)
        tracker = opening() if is_trained else open_while_ray_starts(opening, job)
    with saying_stop(run, log, tracker):
        if is_changed:
            line = change_duration(run, now, duration, history)
            log(f"run {run.label}: {line}")
            tracker.log_params({}, {"activelr.length": duration.text, "activelr.length_change": line})
        place = duration.describe(history[-1].position) if history else "epoch 0"
        log(f"run {run.label}: {'ended' if is_ended else 'continued'} after {place}")
        completed = find_completed(run)
        if completed is not None and not isinstance(job, CompleteJob):  # the driver ended just after the workers chose
            apply_batch_size(run, completed, log)
            job = completed.job
    return run_attempt(Attempt(run, job, info, tracker, log), is_trained, reason)


def _look_at_data(run: Run, now: ResolvedJob, log: Log) -> tuple[ResolvedJob, DataInfo]:
    """The job with its data prepared, and what they are; :class:`JobError` if they are not what they were."""
    doubt = check_data(run, "restore them, or train a new run under another name")
    if doubt:
        log(f"run {run.label}: {doubt}")
    prepared, info = prepare_job(now)
    if prepared.data != now.data:  # what is made of them is in another place now
        run.write_jobs(run.written_job(), prepared)
    return prepared, info


def _find_history(run: Run, log: Log) -> list[Record]:
    """The records of the committed epochs; the last one has the latest valid checkpoint."""
    from activelr_service.training.checkpoint import CheckpointStore

    store = CheckpointStore(run.checkpoints, run.journal, log)
    place = store.find_valid()
    if place is None:
        text = f"run {run.label} has epochs behind it and no valid checkpoint left in {run.checkpoints}"
        raise RunFailedError(f"{text}: restore it, or move {run.folder} away to begin anew", "checkpoint")
    history = store.history(place)
    write_journal(run.journal, history)
    return history


def _find_moved(run: Run, job: ResolvedJob, log: Log) -> ResolvedJob:
    """The resolved ``job`` of a run, with the place where its output directory is now. If it was moved, that is logged."""
    here = relocate(job, run.folder.parent.parent)
    if here != job:
        run.write_jobs(run.written_job(), here)
        log(f"run {run.label}: its output directory was moved from {job.output_dir} to {here.output_dir}")
    return here
