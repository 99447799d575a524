"""What is kept of a run when its training ends, and handing all of it to MLflow."""

import os
import shutil
from pathlib import Path

from activelr_service.config import TrainJob
from activelr_service.config.data import TextDataConfig
from activelr_service.data.info import DataInfo
from activelr_service.data.text_encoding import TOKENIZER
from activelr_service.driver.batch_size import log_batch_size
from activelr_service.export import WEIGHTS, write_recipe
from activelr_service.record import best_epoch, read_journal
from activelr_service.runs import Run
from activelr_service.tracking.tracker import Tracker


def embedded_store(root: Path) -> str:
    """The URI of the MLflow store in the folder that the runs are in, for when there is no server."""
    return f"sqlite:///{root / 'mlflow.db'}"


def new_tracker(uri: str, experiment: str, name: str, root: Path) -> Tracker:
    """A new MLflow run. An embedded store keeps the files of its runs in ``root``; a server decides by itself."""
    artifacts = None
    if uri.startswith("sqlite:"):
        root.mkdir(parents=True, exist_ok=True)
        artifacts = root / "mlartifacts"
    return Tracker.create(uri, experiment, name, artifacts)


def keep_results(run: Run, job: TrainJob, info: DataInfo) -> None:
    """Export the model of the best epoch and draw the figures; note the score in the run's state."""
    from activelr_service.tasks import TASKS
    from activelr_service.tracking.figures import draw_figures

    assert job.task is not None
    task = TASKS[job.task]
    history = read_journal(run.journal)
    best = best_epoch(history, task.score, task.higher_is_better)
    run.model.mkdir(exist_ok=True)
    shutil.copy(run.checkpoints / f"epoch-{best:06d}" / WEIGHTS, run.model / WEIGHTS)
    write_recipe(run.model, job.model, info, job.task)
    if isinstance(job.data, TextDataConfig):
        shutil.copy(Path(job.data.tokens or "") / TOKENIZER, run.model / TOKENIZER)
    draw_figures(run.figures, history, run.label)
    name = f"val/{task.score}"
    run.update(best_epoch=best, score_name=name, score=history[best - 1].metrics.get(name))


def deliver(run: Run, tracker: Tracker) -> None:
    """Give MLflow everything the run has and its status. What is there already is not doubled.

    Raises :class:`~activelr_service.tracking.tracker.TrackingError` and can then be called again.
    """
    state = run.state()
    log_batch_size(run, tracker)
    if state["status"] == "interrupted":
        tracker.finish(state["status"])  # first: who stops a process does not wait long for the rest
    tracker.log_records(read_journal(run.journal))
    tracker.set_tags({"activelr.attempts": state["attempts"], "activelr.reason": state["reason"] or ""})
    if submission_id := os.environ.get("ACTIVELR_SUBMISSION_ID"):
        tracker.set_tags({"activelr.submission_id": submission_id})
    tracker.log_artifacts(run.folder, _artifacts(run))
    if state["status"] == "finished" and state.get("model_uri") is None:
        run.update(model_uri=tracker.log_model(run.model, run.job().name))
    tracker.finish(state["status"])
    run.update(tracked=True)


def _artifacts(run: Run) -> list[Path]:
    candidates = ["job.yaml", "resolved.yaml", "run.log", "failure.json", "journal.jsonl"]
    files = [run.folder / name for name in candidates if (run.folder / name).exists()]
    return files + sorted(run.figures.glob("*")) + sorted(run.model.glob("*"))
