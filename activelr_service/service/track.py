"""A run on disk and its tracker: opened when an attempt begins, brought up to date when it ends."""

import os
from collections.abc import Callable
from pathlib import Path

from activelr_service.config import ResolvedJob
from activelr_service.data.info import DataInfo
from activelr_service.export.model import WEIGHTS, sha256_of
from activelr_service.runs.journal import read_journal
from activelr_service.runs.live import reading_rows
from activelr_service.runs.run import Run
from activelr_service.service.batch_size import derived_sizes, log_batch_size
from activelr_service.service.model_card import model_facts
from activelr_service.service.prepare import describe_data
from activelr_service.tracking.store import open_tracker, tracking_uri
from activelr_service.tracking.tracker import Tracker

Log = Callable[[str], None]

ARTIFACTS = (
    "job.yaml",
    "resolved.yaml",
    "data.json",
    "run.log",
    "failure.json",
    "journal.jsonl",
    "readings.jsonl",
    "batch_size.json",
)
DESCRIPTION = "mlflow.note.content"  # what MLflow's UI shows as the description of a run


def open_run_tracker(run: Run, job: ResolvedJob, info: DataInfo | None, log: Log) -> Tracker:
    """The tracker of ``run``. If its MLflow run was deleted, or is in another store, a new one is begun and a line is
    logged; the new one gets all epochs when the run ends.

    Raises :class:`~activelr_service.errors.TrackingError` if MLflow does not answer.
    """
    state, root = run.state(), run.folder.parent.parent
    uri = tracking_uri(job.tracking.uri, root, job.tracking.backend)
    run_id = state.get("mlflow_run_id")
    tracker = open_tracker(uri, job.tracking.experiment, job.name, root, run_id=run_id, identity=state["id"], log=log)
    if tracker.run_id not in (run_id, None):
        run.update(mlflow_run_id=tracker.run_id, model_uri=None, tracked=False)
    if info is not None:
        _log_start(tracker, run, job, info)
    return tracker


def _log_start(tracker: Tracker, run: Run, job: ResolvedJob, info: DataInfo) -> None:
    """Log what the run began with: its job, what was derived, and why."""
    num_train, num_val = info.counted()
    derived = {"num_train": num_train, "num_val": num_val, **derived_sizes(job, num_train)}
    params = job.model_dump(mode="json", exclude={"kind", "tracking", "output_dir"})
    why = {f"activelr.why.{path}": reason for path, reason in run.state().get("why", {}).items()}
    description = "\n".join(f"- {line}" for line in (info.describe(), *describe_data(info)))
    tags = {"activelr.run": run.folder, DESCRIPTION: description, **why}
    tracker.log_params({**params, "derived": derived}, tags)


def sync_to_tracking(run: Run, tracker: Tracker, status: str, reason: str | None = None) -> None:
    """Log everything that the run has, and its ``status``. It can be called again, and then adds what is missing.

    Raises :class:`~activelr_service.errors.TrackingError` if MLflow fails.
    """
    log_batch_size(run, tracker)
    if status == "interrupted":
        tracker.end(status)  # first: a user who stops a process does not wait long for the rest
    tracker.log_metrics([record.to_row() for record in read_journal(run.journal)])
    tracker.log_metrics(reading_rows(run))
    state = run.state()
    tags = {"activelr.attempts": state["attempts"], "activelr.reason": reason or ""}
    if state.get("early_stop"):
        tags["activelr.early_stop"] = state["early_stop"]
    if submission_id := os.environ.get("ACTIVELR_SUBMISSION_ID"):
        tags["activelr.submission_id"] = submission_id
    tracker.log_params({}, tags)
    tracker.log_artifacts(run.folder, _artifacts(run))
    if status == "finished" and run.state().get("model_uri") is None:
        job, sha256 = run.job(), sha256_of(run.model / WEIGHTS)
        run.update(model_uri=tracker.log_model(run.model, job.name, sha256, model_facts(run, job)))
    tracker.end(status)
    run.update(tracked=True)


def _artifacts(run: Run) -> list[Path]:
    files = [run.folder / name for name in ARTIFACTS if (run.folder / name).exists()]
    return files + sorted(run.figures.glob("*.*")) + sorted(run.model.glob("*"))
