"""What is known of each task without torch: its metrics, and the metric that ranks epochs and trials.

The functions of the tasks are in :mod:`activelr_service.tasks`.
"""

from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from activelr_service.config.entry_points import TASKS, load_entry_point, names_offered


class TaskMetrics(NamedTuple):
    """``names``: the validation metrics of the task. ``score``: the metric whose best value marks the best epoch."""

    names: tuple[str, ...]
    score: str
    higher_is_better: bool

    @property
    def val_score(self) -> str:
        """The name under which the score of an epoch is logged, such as ``val/accuracy``."""
        return f"val/{self.score}"


TASK_METRICS: dict[str, TaskMetrics] = {
    "classification": TaskMetrics(("loss", "accuracy", "top5_accuracy"), "accuracy", higher_is_better=True),
    "regression": TaskMetrics(("loss",), "loss", higher_is_better=False),
    "language_modeling": TaskMetrics(("loss", "perplexity"), "perplexity", higher_is_better=False),
    "detection": TaskMetrics(("map", "map_50"), "map_50", higher_is_better=True),
}


def check_task(name: str) -> str:
    """A task of this package, or one that an installed package offers. Raises ``ValueError`` for any other name."""
    if name not in TASK_METRICS and name not in names_offered(TASKS):
        known = ", ".join(map(repr, TASK_METRICS))
        raise ValueError(f"must be {known} or an installed entry point of {TASKS!r}, got {name!r}")
    return name


TaskName = Annotated[str, AfterValidator(check_task)]


def metrics_of_task(name: str) -> TaskMetrics:
    """The metrics of a task, also of one that an installed package offers."""
    if name in TASK_METRICS:
        return TASK_METRICS[name]
    metrics: TaskMetrics = load_entry_point(TASKS, name, "task").metrics
    return metrics
