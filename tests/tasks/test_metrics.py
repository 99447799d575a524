"""What is known of a task without torch is what the task computes; and a job chooses among its metrics."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from activelr_service.config.task import TASK_METRICS, TaskMetrics
from activelr_service.tasks import TASKS, fit_task
from activelr_service.training.evaluate import evaluate

CPU = torch.device("cpu")


def test_every_task_of_a_job_is_described_and_can_be_trained():
    assert set(TASK_METRICS) == set(TASKS)


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_a_task_measures_the_metrics_it_is_described_with(name):
    targets = torch.tensor([0, 1, 2, 2, 1]) if name == "classification" else torch.arange(5.0)[:, None]
    inputs = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Linear(3, 3 if name == "classification" else 1)
    measured = evaluate(fit_task(name), model, DataLoader(TensorDataset(inputs, targets), 2), CPU, "float32")
    assert set(measured) == {*TASK_METRICS[name].names, "count"}


def test_a_language_model_measures_the_metrics_it_is_described_with():
    task = TASKS["language_modeling"]
    measured = task.compute_metrics(dict.fromkeys(task.sum_names, 1.0))
    assert tuple(measured) == TASK_METRICS["language_modeling"].names


@pytest.mark.parametrize("name", list(TASK_METRICS))
def test_the_score_of_a_job_is_the_task_s_or_one_whose_direction_is_known(name):
    metrics = TASK_METRICS[name]
    assert metrics.scored_by(None) is metrics
    for other, higher in {metrics.score: metrics.higher_is_better, **metrics.directions}.items():
        assert other in metrics.names
        assert metrics.scored_by(other)[1:3] == (other, higher)
    with pytest.raises(ValueError, match=r"the metrics that can choose the best epoch are .*; got 'acuracy'"):
        metrics.scored_by("acuracy")


def test_a_metric_without_a_direction_is_no_score():
    with pytest.raises(ValueError, match=r"best epoch are loss, accuracy, .*got 'temperature'"):
        TASK_METRICS["classification"].scored_by("temperature")
    own = TaskMetrics(("loss", "error"), "error", higher_is_better=False)
    assert own.scored_by("error").val_score == "val/error"
    with pytest.raises(ValueError, match="best epoch are error; got 'loss'"):
        own.scored_by("loss")
