"""The gradient norms of layers: what a hand computation gives, in the record, the picture and the table."""

import csv

import pytest
import torch
from torch import nn

from activelr_service.runs.figures import draw_figures
from activelr_service.runs.record import GRAD_NORM_PREFIX
from activelr_service.training.monitors import GradNorms
from tests.conftest import small_job
from tests.training.test_loop import resolved, train

pytestmark = pytest.mark.slow


def test_the_norm_is_the_mean_over_steps_of_the_sum_of_absolute_values():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    norms = GradNorms(model, torch.device("cpu"))
    for value in (1.0, -3.0):
        model[0].weight.grad = torch.full((3, 2), value)
        norms.add()
    assert norms.flush() == {f"{GRAD_NORM_PREFIX}0.weight": 12.0, f"{GRAD_NORM_PREFIX}2.weight": 0.0}
    assert set(norms.flush().values()) == {0.0}, "an epoch begins anew"


def test_a_job_that_asks_for_them_gets_metrics_a_picture_and_a_table(tmp_path):
    _, history = train(resolved(small_job(tmp_path, epochs=2, log_grad_norms=True)), tmp_path)
    logged = {name for name in history[-1].metrics if name.startswith(GRAD_NORM_PREFIX)}
    assert logged == {"grad_l1/1.weight", "grad_l1/3.weight"}
    paths = {path.name for path in draw_figures(tmp_path / "figures", history, "small/001")}
    assert "gradient_norms.png" in paths
    with (tmp_path / "figures" / "gradient_norms.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["1.weight"]) for row in rows] == [record.metrics["grad_l1/1.weight"] for record in history]


def test_channels_last_trains_to_the_same_weights_up_to_rounding(tmp_path):
    model = {"type": "torchvision", "name": "squeezenet1_0"}
    optimizer = {"type": "active_sgd", "rule": "paper", "lr": 0.01}  # Adam divides by the size of what may be rounding
    job = small_job(tmp_path, epochs=1, model=model, data={"type": "digits"}, optimizer=optimizer)
    weights = []
    for channels_last in (False, True):
        folder = tmp_path / str(channels_last)
        small = job.model_copy(update={"channels_last": channels_last, "global_batch_size": 512})
        training, _ = train(resolved(small), folder)
        weights.append(torch.cat([param.detach().flatten() for param in training.model.parameters()]))
    assert training.model.features[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=0)
