"""Measuring a trained model on data."""

import json
import logging
from typing import Any

from activelr_service.config import CompleteJob, ResolvedJob
from activelr_service.config.data import TextDataConfig
from activelr_service.data import build_data
from activelr_service.data.info import DataInfo
from activelr_service.data.text import is_prepared
from activelr_service.errors import CommandError, JobError
from activelr_service.export.model import RECIPE, load_model
from activelr_service.runs.run import Run
from activelr_service.service.check import prepare_job
from activelr_service.service.finish import has_model
from activelr_service.service.prepare import check_data, relocate
from activelr_service.training.evaluate import evaluate_dataset

LOG = logging.getLogger("activelr_service.service")
CHANGED = "restore them, or name data to measure on, such as --set data.val_path=FILE or --set data.root=FOLDER"


def evaluate_run(run: Run, job: ResolvedJob) -> dict[str, float]:
    """The metrics of the run's best model on the validation split of the job's data.

    Raises :class:`JobError` if the data do not suit the model, because their classes or the shape of their samples differ;
    and if the run's own data have changed, because the new validation split could contain training samples.
    """
    if not run.model.exists():
        raise CommandError(f"{run.label} has no model yet: its status is {run.status()}")
    if not has_model(run):
        raise CommandError(f"the model of {run.label} is damaged; `activelr resume {run.folder}` makes it again")
    if job.data == run.job().data and (doubt := check_data(run, CHANGED)):
        LOG.warning("%s", doubt)
    if not isinstance(job, CompleteJob):
        raise CommandError(f"the job of {run.label} has no batch size; --set global_batch_size=NUMBER gives it one")
    job = relocate(job, run.folder.parent.parent)
    recipe = json.loads((run.model / RECIPE).read_text())
    trained = DataInfo.from_json(recipe["data"])
    measured_job, info = prepare_job(job.model_copy(update={"data": _as_trained(job.data, trained, run)}))
    _check_suits(info, trained)
    measured = f"measured on the validation samples: {info.num_val:,}; not on those to train on: {info.num_train:,}"
    for line in (measured, *info.warnings):
        LOG.warning("%s", line)
    _, val = build_data(measured_job.data)
    metrics = evaluate_dataset(
        measured_job.task,
        load_model(run.model),
        val,
        measured_job.micro_batch_size(),
        target_scale=info.target_scale,
        temperature=recipe.get("temperature", 1.0),
    )
    return {"rows": len(val), **metrics}


def _as_trained(data: Any, trained: DataInfo, run: Run) -> Any:
    """The data with the tokenizer of the model, and with its classes if the config of the data names none."""
    if isinstance(data, TextDataConfig) and not is_prepared(data):
        return data.model_copy(update={"tokens": None, "tokenizer": str(run.model)})
    if getattr(data, "classes", ()) is None and trained.classes:
        return data.model_copy(update={"classes": list(trained.classes)})
    return data


def _check_suits(info: DataInfo, trained: DataInfo) -> None:
    if info.classes and trained.classes and info.classes != trained.classes:
        text = f"the data have the classes {', '.join(info.classes[:5])} and the model {', '.join(trained.classes[:5])}"
        raise JobError.at("data", f"{text}; it can be measured on the same classes in the same order only")
    for size, ours, theirs in (
        ("classes", info.num_classes, trained.num_classes),
        ("different token ids", info.vocab_size, trained.vocab_size),
    ):
        if ours is not None and theirs is not None and ours > theirs:
            raise JobError.at("data", f"the data have {ours} {size}, and the model was trained on {theirs}")
    if _comparable(info) != _comparable(trained):
        text = f"the data have rows of shape {info.input_shape}, and the model was trained on {trained.input_shape}"
        raise JobError.at("data", text)


def _comparable(info: DataInfo) -> tuple[int, ...]:
    """The part of the shape of a sample that has to agree. Images and texts of other sizes can be measured too."""
    shape = info.input_shape
    if "language_modeling" in info.tasks:
        return ()
    return shape if len(shape) < 2 else (len(shape), shape[0])
