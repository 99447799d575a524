"""What is known of each task without torch: its metrics, and the metric that ranks epochs and trials.

The functions of the tasks are in :mod:`activelr_service.tasks`.
"""

from typing import Literal, NamedTuple

TaskName = Literal["classification", "regression", "language_modeling", "detection"]


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
