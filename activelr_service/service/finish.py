"""The results of a run whose training has ended: the exported model of the best epoch, the figures, the score, and the
metrics on the test split.

A process may be killed in each step; the next attempt then uses what is complete and does the rest. The caller writes the
status of the run last.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from activelr_service.config import ResolvedJob
from activelr_service.config.data import TextDataConfig
from activelr_service.config.task import metrics_of_task
from activelr_service.data.example import write_example
from activelr_service.data.info import DataInfo
from activelr_service.data.raw_inputs import describe_inputs
from activelr_service.data.text_encoding import TOKENIZER
from activelr_service.export.model import RECIPE, WEIGHTS, is_export_of, sha256_of, write_recipe
from activelr_service.runs.files import sync
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import Record, best_epoch
from activelr_service.runs.run import Run
from activelr_service.service.model_card import write_card
from activelr_service.service.test_split import measure_test

Log = Callable[[str], None]


def export_results(run: Run, job: ResolvedJob, info: DataInfo, log: Log) -> None:
    """Export the model of the best epoch, draw the figures, write the score to the state of the run, and measure the test
    split.

    Raises :class:`~activelr_service.training.checkpoint.CheckpointError` if no checkpoint can be exported.
    """
    from activelr_service.runs.figures import draw_figures

    export_best(run, job, info, log)
    draw_figures(run.figures, read_journal(run.journal), run.label)


def export_best(run: Run, job: ResolvedJob, info: DataInfo, log: Log, *, is_final: bool = True) -> Record:
    """Export the model of the best epoch so far and write its score to the state of the run; returns its record.

    A model that is not final has only what needs no look at the data, since a process that was asked to end has no time for
    it. The final export makes it anew. Raises :class:`~activelr_service.training.checkpoint.CheckpointError` if no
    checkpoint can be exported.
    """
    metrics = metrics_of_task(job.task)
    history = read_journal(run.journal)
    best = _find_best(run, history, metrics.score, metrics.higher_is_better, log)
    is_kept = not (is_final and run.state().get("is_model_interim"))
    _export(run, job, info, best.epoch, log if is_final else None, is_kept=is_kept)
    name = metrics.val_score
    interim = {"is_model_interim": False} if is_final else {}
    run.update(best_epoch=best.epoch, score_name=name, score=best.metrics.get(name), **interim)
    if is_final:
        measure_test(run, job, info, best, log)
        write_card(run, info)
    return best


def _find_best(run: Run, history: list[Record], score: str, higher_is_better: bool, log: Log) -> Record:
    """The record of the best epoch whose checkpoint verifies. A warning is logged if another epoch was better."""
    from activelr_service.errors import CheckpointError
    from activelr_service.training.checkpoint import CheckpointStore
    from activelr_service.training.checkpoint_files import verify

    store = CheckpointStore(run.checkpoints, run.journal, log)
    there = set(store.epochs())
    kept = [record for record in history if record.epoch in there]
    best = best_epoch(history, score, higher_is_better)
    while kept:
        epoch = best_epoch(kept, score, higher_is_better)
        problem = verify(store.path(epoch))
        if problem is None:
            if epoch != best:
                log(
                    f"warning: the checkpoint of epoch {best}, the best, cannot be used; epoch {epoch} is exported instead"
                )
            return next(record for record in kept if record.epoch == epoch)
        log(f"checkpoint {store.path(epoch)} is not exported: {problem}")
        kept = [record for record in kept if record.epoch != epoch]
    raise CheckpointError(f"run {run.label} has no checkpoint that can be exported: see {run.checkpoints}")


def _export(run: Run, job: ResolvedJob, info: DataInfo, epoch: int, log: Log | None, *, is_kept: bool) -> None:
    """Copy the weights of a verified checkpoint to the run's ``model`` folder, which appears whole or not at all.

    With ``is_kept`` a complete model that has these weights stays. Without a ``log`` there are no example rows.
    """
    from activelr_service.errors import CheckpointError
    from activelr_service.training.checkpoint import CheckpointStore
    from activelr_service.training.checkpoint_files import read_sha256

    checkpoint = CheckpointStore(run.checkpoints, run.journal, print).path(epoch)
    sha256 = read_sha256(checkpoint, WEIGHTS)
    temporary, replaced = run.folder / ".model.new", run.folder / ".model.old"
    for leftover in (temporary, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    if is_kept and is_export_of(run.model, sha256):
        return
    if log is None:
        run.update(is_model_interim=True)
    temporary.mkdir()
    shutil.copyfile(checkpoint / WEIGHTS, temporary / WEIGHTS)
    if isinstance(job.data, TextDataConfig):
        shutil.copyfile(Path(job.data.tokens or "") / TOKENIZER, temporary / TOKENIZER)
    write_recipe(temporary, job.model, info, job.task, sha256, describe_inputs(job.data))
    if log is not None:
        write_example(temporary, job.data, log)
    if sha256_of(temporary / WEIGHTS) != sha256:
        raise CheckpointError(f"the copy of {checkpoint / WEIGHTS} differs from it; is the disk sound?")
    for path in temporary.iterdir():
        sync(path)
    if run.model.exists():
        os.rename(run.model, replaced)
    os.rename(temporary, run.model)
    sync(run.folder)
    shutil.rmtree(replaced, ignore_errors=True)


def has_model(run: Run) -> bool:
    """Whether the run's model is there, complete."""
    return (run.model / RECIPE).exists() and is_export_of(run.model, None)
