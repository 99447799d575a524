"""Checks of what a job measures: the metric that chooses the best epoch, and the weights of its classes."""

from activelr_service.config import TrainJob
from activelr_service.config.class_weights import weigh_classes
from activelr_service.config.task import MOST_OUTPUTS, metrics_of_task
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError

OF_OUTPUTS = {
    "classification": ("auroc", "ece", "temperature", "calibrated_loss", "calibrated_ece"),
    "regression": ("mae", "rmse", "r2"),
}


def check_metrics(job: TrainJob, info: DataInfo, task: str) -> DataInfo:
    """The description of the data, with a note on metrics that are not computed because the validation split is too large.

    Raises :class:`JobError` for a metric that the task does not have or that is not computed, and for weights of classes
    that the data do not have.
    """
    try:
        metrics_of_task(task, job.metric)
    except ValueError as error:
        raise JobError.at("metric", f"of the task {task}, {error}") from None
    _check_class_weights(job, info, task)
    width = (info.num_classes if task == "classification" else info.num_outputs) or 0
    size = (info.num_val or 0) * width
    if task not in OF_OUTPUTS or size <= MOST_OUTPUTS:
        return info
    names = ", ".join(OF_OUTPUTS[task])
    note = f"not computed: {names}; the validation split has {size:,} outputs, and at most {MOST_OUTPUTS:,} are kept"
    if job.metric in OF_OUTPUTS[task]:
        raise JobError.at("metric", f"{job.metric} is {note}; choose another metric, or validate on fewer samples")
    return info if note in info.notes else info._replace(notes=(*info.notes, note))


def _check_class_weights(job: TrainJob, info: DataInfo, task: str) -> None:
    if job.class_weights is None:
        return
    place = "class_weights"
    if task != "classification":
        raise JobError.at(place, f"only a classification has them, and the task is {task}; leave them out")
    if not info.class_counts:
        text = f"data of the type {job.data.type} do not say how many samples each class has; leave them out"
        raise JobError.at(place, text)
    try:
        weigh_classes(job.class_weights, info.class_counts, info.classes)
    except ValueError as error:
        raise JobError.at(place, str(error)) from None
