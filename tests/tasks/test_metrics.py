"""What is known of a task without torch is what the task computes."""

import pytest

from activelr_service.config.task import TASK_METRICS
from activelr_service.tasks import TASKS


def test_every_task_of_a_job_is_described_and_can_be_trained():
    assert set(TASK_METRICS) == set(TASKS)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.evaluator is None])
def test_a_task_measures_the_metrics_it_is_described_with(name):
    task, described = TASKS[name], TASK_METRICS[name]
    assert tuple(task.compute_metrics(dict.fromkeys(task.sum_names, 1.0))) == described.names
    assert described.score in described.names
