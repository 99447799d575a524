"""The tasks that a job can have: what each minimizes and what it measures.

To add one, describe it in :mod:`activelr_service.config.task`, write its functions here and add an entry to ``TASKS``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.data import default_collate

from activelr_service.config import entry_points
from activelr_service.config.task import TaskMetrics
from activelr_service.errors import JobError
from activelr_service.tasks import classification, detection, losses, regression
from activelr_service.tasks.answers import Answers, Measured
from activelr_service.tasks.losses import Sums


@dataclass(frozen=True)
class Task:
    """The functions of a task.

    ``compute_loss(model, batch)`` returns the mean loss of a batch, a 0-dim tensor with a gradient, and the sums of the
    batch, 0-dim tensors without one. ``sum_names`` names the sums; ``count``, the number of samples, is among them. The
    sums of all batches and all ranks are added, so that metrics do not depend on how many samples each rank has.
    ``compute_metrics(sums)`` turns the added sums into the metrics of an epoch. ``collate`` makes a batch of a list of
    samples, or None if none of them can be read. ``measure`` adds what needs the answers to all validation samples; the
    batches of its task are (inputs, targets), and the model answers the inputs with one tensor. ``evaluator`` is for metrics
    that are made of neither: it makes an :class:`activelr_service.training.evaluate.Evaluator`. ``metrics`` says what a
    task of your own measures; the others are described in :mod:`activelr_service.config.task`.
    """

    compute_loss: Callable[[nn.Module, Any], tuple[Tensor, Sums]]
    compute_metrics: Callable[[dict[str, float]], dict[str, float]]
    sum_names: tuple[str, ...]
    collate: Callable[[list[Any]], Any] = default_collate
    measure: Callable[[Answers], Measured] | None = None
    evaluator: Callable[[], Any] | None = None
    metrics: TaskMetrics | None = None


TASKS = {
    "classification": Task(
        losses.classification_loss,
        losses.classification_metrics,
        ("loss", "count", "correct", "correct_top5"),
        collate=losses.collate_readable,
    ),
    "regression": Task(losses.regression_loss, losses.mean_loss, ("loss", "count")),
    "language_modeling": Task(losses.language_modeling_loss, losses.language_modeling_metrics, ("loss", "count")),
    "detection": Task(
        detection.compute_loss,
        losses.mean_loss,
        ("loss", "count"),
        collate=detection.collate,
        evaluator=detection.MeanAveragePrecision,
    ),
}


def find_task(name: str) -> Task:
    """The task of this name: one of :data:`TASKS`, or one that an installed package offers.

    Raises :class:`JobError` if there is none, or if what the package offers is no task with metrics.
    """
    if name in TASKS:
        return TASKS[name]
    task = entry_points.load_entry_point(entry_points.TASKS, name, "task")
    if not isinstance(task, Task) or task.metrics is None:
        raise JobError.at("task", f"the entry point {name!r} is no activelr_service.tasks.Task with metrics")
    return task


def fit_task(
    name: str,
    *,
    target_scale: float = 1.0,
    num_classes: int | None = None,
    class_weights: Tensor | None = None,
    temperature: float | None = None,
) -> Task:
    """:func:`find_task` with all that it measures of certain data and a certain model.

    ``target_scale``: what a difference of 1 in the targets means in the unit of the data, for regression. The others are for
    classification. ``num_classes``: for the confusion matrix. ``class_weights``: float32 (classes,), on the device of the
    model, for the training loss. ``temperature``: that of a trained model; for None each evaluation finds one.
    """
    task = find_task(name)
    if name == "classification":
        loss = partial(losses.classification_loss, weights=class_weights)
        measure = partial(classification.measure, num_classes=num_classes, temperature=temperature)
        return replace(task, compute_loss=loss, measure=measure)
    if name == "regression":
        return replace(task, measure=partial(regression.measure, target_scale=target_scale))
    return task
