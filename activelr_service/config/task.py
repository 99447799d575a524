"""What is known of each task without torch: its metrics, and the metric that ranks epochs and trials.

The functions of the tasks are in :mod:`activelr_service.tasks`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator

from activelr_service.config.base import did_you_mean
from activelr_service.config.entry_points import TASKS, load_entry_point, names_offered

MOST_OUTPUTS = 2**26  # numbers that are kept to measure them, 256 MiB; ImageNet's validation images have 50 million


class TaskMetrics(NamedTuple):
    """``names``: the validation metrics of the task. ``score``: the metric whose best value marks the best epoch.

    ``directions`` says for other metrics, by name, whether a higher value is better: a job can choose among these.
    """

    names: tuple[str, ...]
    score: str
    higher_is_better: bool
    directions: Mapping[str, bool] = MappingProxyType({})

    def scored_by(self, metric: str | None) -> Self:
        """These metrics with another score, or for None as they are. Raises ``ValueError`` for one that cannot be it."""
        known = {**self.directions, self.score: self.higher_is_better}
        if metric is None:
            return self
        if metric not in known:
            listed = ", ".join(name for name in self.names if name in known)
            hint = did_you_mean(metric, known, "choose one of these")
            raise ValueError(f"the metrics that can choose the best epoch are {listed}; got {metric!r}, {hint}")
        return self._replace(score=metric, higher_is_better=known[metric], directions=known)

    @property
    def val_score(self) -> str:
        """The name under which the score of an epoch is logged, such as ``val/accuracy``."""
        return f"val/{self.score}"


_SHARES = ("accuracy", "top5_accuracy", "balanced_accuracy", "macro_f1", "auroc")
_ERRORS = ("loss", "ece", "calibrated_loss", "calibrated_ece")

TASK_METRICS: dict[str, TaskMetrics] = {
    "classification": TaskMetrics(
        ("loss", *_SHARES, "ece", "temperature", "calibrated_loss", "calibrated_ece"),
        "accuracy",
        higher_is_better=True,
        directions={**dict.fromkeys(_SHARES, True), **dict.fromkeys(_ERRORS, False)},
    ),
    "regression": TaskMetrics(
        ("loss", "mae", "rmse", "r2"),
        "loss",
        higher_is_better=False,
        directions={"mae": False, "rmse": False, "r2": True},
    ),
    "language_modeling": TaskMetrics(
        ("loss", "perplexity"), "perplexity", higher_is_better=False, directions={"loss": False}
    ),
    "detection": TaskMetrics(("map", "map_50"), "map_50", higher_is_better=True, directions={"map": True}),
}


def check_task(name: str) -> str:
    """A task of this package, or one that an installed package offers. Raises ``ValueError`` for any other name."""
    if name not in TASK_METRICS and name not in names_offered(TASKS):
        known = ", ".join(map(repr, TASK_METRICS))
        raise ValueError(f"must be {known} or an installed entry point of {TASKS!r}, got {name!r}")
    return name


TaskName = Annotated[str, AfterValidator(check_task)]


def metrics_of_task(name: str, metric: str | None = None) -> TaskMetrics:
    """The metrics of a task, also of one that an installed package offers; ``metric`` is the score if the job gives one.

    Raises ``ValueError`` for a metric that cannot be the score.
    """
    metrics: TaskMetrics = TASK_METRICS.get(name) or load_entry_point(TASKS, name, "task").metrics
    return metrics.scored_by(metric)
