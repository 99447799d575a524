"""A run on disk and its tracker: opened when an attempt begins, brought up to date when it ends."""

import os
from collections.abc import Callable
from pathlib import Path

from activelr_service.config import ResolvedJob
from activelr_service.data.info import DataInfo
from activelr_service.export.model import RECIPE, WEIGHTS, sha256_of
from activelr_service.runs.journal import read_journal
from activelr_service.runs.live import ReadingsReader, reading_rows
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run
from activelr_service.service.batch_size import derived_sizes, log_batch_size
from activelr_service.service.datasets import datasets_of
from activelr_service.service.model_card import model_facts
from activelr_service.service.prepare import describe_data
from activelr_service.service.stopped import end_in_tracking
from activelr_service.service.test_split import row_of_test
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
    tracker = open_tracker(uri, job.tracking.experiment, run.label, root, run_id=run_id, identity=state["id"], log=log)
    if tracker.run_id not in (run_id, None):
        run.update(mlflow_run_id=tracker.run_id, model_uri=None, tracked=False)
    if info is not None:
        try:
            _log_start(tracker, run, job, info)
        except (SystemExit, KeyboardInterrupt):
            end_in_tracking(tracker)
            raise
    return tracker


def _log_start(tracker: Tracker, run: Run, job: ResolvedJob, info: DataInfo) -> None:
    """Log what the run began with: its job, what was derived, and why."""
    num_train, num_val = info.counted()
    sizes = {"num_train": num_train, "num_val": num_val, **({"num_test": info.num_test} if info.num_test else {})}
    derived = {**sizes, **derived_sizes(job, num_train)}
    params = job.model_dump(mode="json", exclude={"kind", "tracking", "output_dir"})
    why = {f"activelr.why.{path}": reason for path, reason in run.state().get("why", {}).items()}
    description = "\n".join(f"- {line}" for line in (info.describe(), *describe_data(info)))
    tags = {"activelr.run": run.folder, DESCRIPTION: description, **why}
    tracker.log_params({**params, "derived": derived}, tags)
    tracker.log_inputs(datasets_of(run, job, info))


def best_row(run: Run, history: list[Record]) -> dict[str, float] | None:
    """The validation metrics of the best epoch as those of the run; None as long as there is no model.

    The row has the time of the model, so that it replaces that of an older model. MLflow draws values of step 0 as bars.
    """
    state = run.state()
    if not (run.model / RECIPE).exists():
        return None
    best = next((record for record in history if record.epoch == state.get("best_epoch")), None)
    if best is None:
        return None
    shown = {name for name in best.metrics if name.startswith("val/")} - {"val/count", "val/skipped"}
    values = {f"best/{name[4:]}": value for name, value in best.metrics.items() if name in shown}
    row = {"epoch": 0, "timestamp_ms": round((run.model / RECIPE).stat().st_mtime * 1000), "best/epoch": best.epoch}
    return {**row, **values}


def sync_to_tracking(run: Run, tracker: Tracker, status: str, reason: str | None = None) -> None:
    """Log everything that the run has, and its ``status``. It can be called again, and then adds what is missing.

    Raises :class:`~activelr_service.errors.TrackingError` if MLflow fails.
    """
    log_batch_size(run, tracker)
    if status == "interrupted":
        tracker.end(status)  # first: a user who stops a process does not wait long for the rest
    history = read_journal(run.journal)
    best = best_row(run, history)
    tracker.log_metrics([*(record.to_row() for record in history), *([best] if best else [])])
    tracker.log_metrics(reading_rows(ReadingsReader(run.readings).read()))
    state = run.state()
    tracker.log_metrics(row_of_test(state))
    tags = {"activelr.attempts": state["attempts"], "activelr.reason": reason or ""}
    if state.get("early_stop"):
        tags["activelr.early_stop"] = state["early_stop"]
    if submission_id := os.environ.get("ACTIVELR_SUBMISSION_ID"):
        tags["activelr.submission_id"] = submission_id
    tracker.log_params({}, tags)
    tracker.log_artifacts(run.folder, _artifacts(run, is_final=status == "finished"))
    if status == "finished" and run.state().get("model_uri") is None:
        job, sha256 = run.job(), sha256_of(run.model / WEIGHTS)
        run.update(model_uri=tracker.log_model(run.model, job.name, sha256, model_facts(run, job)))
    tracker.end(status)
    run.update(tracked=True)


def _artifacts(run: Run, *, is_final: bool) -> list[Path]:
    """The files of a run. The model of one that has not ended stays here: it can be large, and a better one may come."""
    files = [run.folder / name for name in ARTIFACTS if (run.folder / name).exists()]
    return files + sorted(run.figures.glob("*.*")) + (sorted(run.model.glob("*")) if is_final else [])
