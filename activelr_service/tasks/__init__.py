"""The tasks that a job can have: what each minimizes and what it measures.

To add one, describe it in :mod:`activelr_service.config.task`, write its functions here and add an entry to ``TASKS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.data import default_collate

from activelr_service.config import entry_points
from activelr_service.config.task import TaskMetrics
from activelr_service.errors import JobError
from activelr_service.tasks import detection, losses
from activelr_service.tasks.losses import Sums


@dataclass(frozen=True)
class Task:
    """The functions of a task.

    ``compute_loss(model, batch)`` returns the mean loss of a batch, a 0-dim tensor with a gradient, and the sums of the
    batch, 0-dim tensors without one. ``sum_names`` names the sums; ``count``, the number of samples, is among them. The
    sums of all batches and all ranks are added, so that metrics do not depend on how many samples each rank has.
    ``compute_metrics(sums)`` turns the added sums into the metrics of an epoch. ``collate`` makes a batch of a list of
    samples, or None if none of them can be read. ``evaluator`` is for metrics that are not made of sums: it makes an
    :class:`activelr_service.training.evaluate.Evaluator`. ``metrics`` says what a task of your own
    measures; the others are described in :mod:`activelr_service.config.task`.
    """

    compute_loss: Callable[[nn.Module, Any], tuple[Tensor, Sums]]
    compute_metrics: Callable[[dict[str, float]], dict[str, float]]
    sum_names: tuple[str, ...]
    collate: Callable[[list[Any]], Any] = default_collate
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
