"""What is kept of a run when its training ends, and handing all of it to MLflow.

Each step can be cut off and done again: what an earlier attempt has done is found and used. The status of the run is written
last, by the caller.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from activelr_service.config import ResolvedJob
from activelr_service.config.data import TextDataConfig
from activelr_service.config.task import metrics_of_task
from activelr_service.data.info import DataInfo
from activelr_service.data.text_encoding import TOKENIZER
from activelr_service.export.model import RECIPE, WEIGHTS, is_export_of, sha256_of, write_recipe
from activelr_service.runs.files import sync
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import Record, best_epoch
from activelr_service.runs.run import Run
from activelr_service.service.batch_size import log_batch_size
from activelr_service.tracking.tracker import Tracker

ARTIFACTS = ("job.yaml", "resolved.yaml", "data.json", "run.log", "failure.json", "journal.jsonl", "batch_size.json")
Say = Callable[[str], None]


def keep_results(run: Run, job: ResolvedJob, info: DataInfo, say: Say) -> None:
    """Export the model of the best epoch and draw the figures; note the score in the run's state.

    Raises :class:`~activelr_service.training.checkpoint.CheckpointError` if no checkpoint can be exported.
    """
    from activelr_service.runs.figures import draw_figures

    metrics = metrics_of_task(job.task)
    history = read_journal(run.journal)
    best = _find_best(run, history, metrics.score, metrics.higher_is_better, say)
    _export(run, job, info, best.epoch)
    draw_figures(run.figures, history, run.label)
    name = metrics.val_score
    run.update(best_epoch=best.epoch, score_name=name, score=best.metrics.get(name))


def _find_best(run: Run, history: list[Record], score: str, higher_is_better: bool, say: Say) -> Record:
    """The record of the best epoch whose checkpoint verifies. If that is not the best of all, it is said."""
    from activelr_service.errors import CheckpointError
    from activelr_service.training.checkpoint import CheckpointStore, verify

    store = CheckpointStore(run.checkpoints, run.journal, say)
    there = set(store.epochs())
    kept = [record for record in history if record.epoch in there]
    best = best_epoch(history, score, higher_is_better)
    while kept:
        epoch = best_epoch(kept, score, higher_is_better)
        problem = verify(store.path(epoch))
        if problem is None:
            if epoch != best:
                say(
                    f"warning: the checkpoint of epoch {best}, the best, cannot be used; epoch {epoch} is exported instead"
                )
            return next(record for record in kept if record.epoch == epoch)
        say(f"checkpoint {store.path(epoch)} is not exported: {problem}")
        kept = [record for record in kept if record.epoch != epoch]
    raise CheckpointError(f"run {run.label} has no checkpoint that can be exported: see {run.checkpoints}")


def _export(run: Run, job: ResolvedJob, info: DataInfo, epoch: int) -> None:
    """Copy the weights of a verified checkpoint to the run's ``model`` folder, which appears whole or not at all."""
    from activelr_service.errors import CheckpointError
    from activelr_service.training.checkpoint import CheckpointStore, read_sha256

    checkpoint = CheckpointStore(run.checkpoints, run.journal, print).path(epoch)
    sha256 = read_sha256(checkpoint, WEIGHTS)
    temporary, replaced = run.folder / ".model.new", run.folder / ".model.old"
    for leftover in (temporary, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    if is_export_of(run.model, sha256):
        return
    temporary.mkdir()
    shutil.copyfile(checkpoint / WEIGHTS, temporary / WEIGHTS)
    if isinstance(job.data, TextDataConfig):
        shutil.copyfile(Path(job.data.tokens or "") / TOKENIZER, temporary / TOKENIZER)
    write_recipe(temporary, job.model, info, job.task, sha256)
    if sha256_of(temporary / WEIGHTS) != sha256:
        raise CheckpointError(f"the copy of {checkpoint / WEIGHTS} differs from it; is the disk sound?")
    for path in temporary.iterdir():
        sync(path)
    if run.model.exists():
        os.rename(run.model, replaced)
    os.rename(temporary, run.model)
    sync(run.folder)
    shutil.rmtree(replaced, ignore_errors=True)


def deliver(run: Run, tracker: Tracker, status: str, reason: str | None = None) -> None:
    """Give MLflow everything the run has, and its ``status``. What is there already is not doubled.

    Raises :class:`~activelr_service.tracking.tracker.TrackingError` and can then be called again.
    """
    log_batch_size(run, tracker)
    if status == "interrupted":
        tracker.finish(status)  # first: who stops a process does not wait long for the rest
    tracker.log_records(read_journal(run.journal))
    tracker.set_tags({"activelr.attempts": run.state()["attempts"], "activelr.reason": reason or ""})
    if submission_id := os.environ.get("ACTIVELR_SUBMISSION_ID"):
        tracker.set_tags({"activelr.submission_id": submission_id})
    tracker.log_artifacts(run.folder, _artifacts(run))
    if status == "finished" and run.state().get("model_uri") is None:
        run.update(model_uri=tracker.log_model(run.model, run.job().name, sha256_of(run.model / WEIGHTS)))
    tracker.finish(status)
    run.update(tracked=True)


def has_model(run: Run) -> bool:
    """Whether the run's model is there, complete."""
    return (run.model / RECIPE).exists() and is_export_of(run.model, None)


def _artifacts(run: Run) -> list[Path]:
    files = [run.folder / name for name in ARTIFACTS if (run.folder / name).exists()]
    return files + sorted(run.figures.glob("*.*")) + sorted(run.model.glob("*"))
