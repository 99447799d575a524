"""The metrics of a regression are those of scikit-learn, in the unit of the data."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sklearn
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from activelr_service.data import build_data, inspect_data
from activelr_service.service.check import prepare_job
from activelr_service.tasks import fit_task
from activelr_service.training.evaluate import evaluate
from tests.conftest import small_job

CPU = torch.device("cpu")


def evaluate_outputs(outputs, targets, **options):
    batches = DataLoader(TensorDataset(outputs, targets), 7)
    return evaluate(fit_task("regression", **options), nn.Identity(), batches, CPU, "float32")


def draw(shape, offset=0.0):
    rng = np.random.default_rng(0)
    targets = offset + rng.normal(size=shape)
    return (torch.tensor(values, dtype=torch.float32) for values in (targets + 0.5 * rng.normal(size=shape), targets))


@pytest.mark.parametrize("shape", [(50, 1), (50,), (50, 4), (50, 2, 3)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_metrics_are_those_of_scikit_learn(shape, offset):
    outputs, targets = draw(shape, offset)
    measured = evaluate_outputs(outputs, targets, target_scale=3.0)
    wide, truth = (values.double().reshape(50, -1).numpy() for values in (outputs, targets))
    assert measured["mae"] == pytest.approx(3 * sklearn.mean_absolute_error(truth, wide), rel=1e-6)
    assert measured["rmse"] == pytest.approx(3 * sklearn.root_mean_squared_error(truth, wide), rel=1e-6)
    assert measured["r2"] == pytest.approx(sklearn.r2_score(truth, wide), rel=1e-6)
    assert measured["loss"] == pytest.approx(sklearn.mean_squared_error(truth, wide), rel=1e-5)


def test_r2_is_that_of_the_outputs_whose_targets_differ_and_left_out_if_none_does():
    outputs, targets = draw((20, 2))
    targets[:, 0] = 1.0
    assert evaluate_outputs(outputs, targets)["r2"] == pytest.approx(sklearn.r2_score(targets[:, 1], outputs[:, 1]))
    assert "r2" not in evaluate_outputs(outputs[:1], targets[:1])


def test_outputs_that_are_not_finite_have_a_loss_only():
    outputs, targets = draw((20, 2))
    outputs[3, 1] = torch.inf
    assert set(evaluate_outputs(outputs, targets)) == {"loss", "count"}


def test_the_scale_of_a_table_s_target_turns_its_errors_into_the_unit_of_the_file(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=60), "price": 5000 + 700 * rng.normal(size=60)})
    table.to_csv(tmp_path / "prices.csv", index=False)
    data = {"type": "table", "path": str(tmp_path / "prices.csv"), "target": "price"}
    job, info = prepare_job(small_job(tmp_path, data=data))
    assert info == inspect_data(job.data)
    _, val = build_data(job.data)
    targets = torch.stack([target for _, target in val])
    measured = evaluate_outputs(torch.zeros_like(targets), targets, target_scale=info.target_scale)
    column = job.data.target_column
    truth = column.mean + column.std * targets.double().numpy()
    assert np.isin(truth.round(3), table["price"].to_numpy().round(3)).mean() > 0.9
    assert measured["mae"] == pytest.approx(
        sklearn.mean_absolute_error(truth, np.full(len(truth), column.mean)), rel=1e-6
    )
