"""What is minimised and what is measured. A new task is a file here and a line in the table."""

from activelr_service.tasks import classification, detection, language_modeling, regression
from activelr_service.tasks.task import Task

__all__ = ["TASKS", "Task"]

TASKS: dict[str, Task] = {
    "classification": classification.TASK,
    "regression": regression.TASK,
    "language_modeling": language_modeling.TASK,
    "detection": detection.TASK,
}
