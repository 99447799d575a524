"""The metric that a job names chooses the best epoch, and what was measured of it goes with the model."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from activelr_service.data import build_data
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.export.model import load_model
from activelr_service.runs.journal import read_journal, write_journal
from activelr_service.runs.record import Record
from activelr_service.service.check_metrics import check_metrics
from activelr_service.service.evaluate import evaluate_run
from activelr_service.service.finish import export_results
from activelr_service.service.launch import resume, train
from activelr_service.service.prepare import read_info
from tests.conftest import mlflow_run, small_job
from tests.service.conftest import QUICK, cut_off

pytestmark = pytest.mark.xdist_group("metrics")

WITH_METRIC = {**QUICK, "epochs": 4, "metric": "calibrated_loss", "class_weights": "balanced"}


def recipe(run):
    return json.loads((run.model / "recipe.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(small_job(tmp_path_factory.mktemp("scored"), **WITH_METRIC))


@pytest.mark.ray
def test_the_metric_chooses_the_epoch_and_its_temperature_and_its_confusion_matrix_go_with_the_model(run):
    history, state = read_journal(run.journal), run.state()
    losses = [record.metrics["val/calibrated_loss"] for record in history]
    best = history[int(np.argmin(losses))]
    assert (state["best_epoch"], state["score_name"], state["score"]) == (
        best.epoch,
        "val/calibrated_loss",
        min(losses),
    )
    assert recipe(run)["temperature"] == best.metrics["val/temperature"]
    images, labels = build_data(run.job().data)[1].tensors
    with torch.no_grad():
        logits = load_model(run.model)(images) / recipe(run)["temperature"]
    assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(min(losses), rel=1e-5)
    table = pd.read_csv(run.figures / "confusion.csv", index_col=0)
    assert np.trace(table.to_numpy()) / table.to_numpy().sum() == pytest.approx(best.metrics["val/accuracy"])
    client, tracked = mlflow_run(run)
    figures = {file.path for file in client.list_artifacts(tracked.info.run_id, "figures")}
    assert {"figures/confusion.png", "figures/confusion.csv"} <= figures
    assert "val calibrated_loss 0." in run.log.read_text()
    assert "class_weights = balanced  (as written; in the training loss, of mean 1 over its samples: 0 0.958" in (
        run.log.read_text()
    )


@pytest.mark.ray
def test_a_run_is_measured_again_with_the_temperature_of_its_model(run):
    measured = evaluate_run(run, run.job()).scores["validation"].metrics
    assert measured["calibrated_loss"] == pytest.approx(run.state()["score"], rel=1e-6)
    assert "temperature" not in measured


@pytest.mark.ray
def test_a_run_that_is_continued_keeps_its_metric_and_another_one_is_refused(run):
    before = run.state()
    cut_off(run, 3)
    assert resume(run).state()["score_name"] == "val/calibrated_loss"
    assert run.state()["best_epoch"] == before["best_epoch"]
    with pytest.raises(JobError, match="metric"):
        resume(run, run.job().model_copy(update={"metric": "accuracy"}))


@pytest.mark.ray
def test_an_epoch_of_an_older_version_is_exported_with_a_temperature_of_one_and_without_a_confusion_matrix(run):
    old = [Record(**{**record.to_json(), "metrics": older(record.metrics)}) for record in read_journal(run.journal)]
    write_journal(run.journal, old)
    for path in run.checkpoints.glob("epoch-*"):
        manifest = json.loads((path / "manifest.json").read_text())
        del manifest["files"]["tables.safetensors"]
        (path / "tables.safetensors").unlink()
        (path / "manifest.json").write_text(json.dumps(manifest))
    for path in (*run.model.iterdir(), *run.figures.iterdir()):
        path.unlink()
    job = run.job().model_copy(update={"metric": None})
    export_results(run, job, read_info(run), print)
    assert recipe(run)["temperature"] == 1.0
    assert run.state()["score_name"] == "val/accuracy"
    assert {path.name for path in run.figures.iterdir()} == {"learning_curves.png", "updates.png"}


def older(metrics):
    """The metrics that a run of the version before had."""
    return {
        name: value
        for name, value in metrics.items()
        if not name.startswith("val/") or name in ("val/loss", "val/accuracy", "val/top5_accuracy", "val/count")
    }


@pytest.mark.ray
def test_the_errors_of_a_regression_are_in_the_unit_of_its_table(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"size": rng.normal(size=200)})
    table["price"] = 5000 + 700 * table["size"] + 50 * rng.normal(size=200)
    table.to_csv(tmp_path / "prices.csv", index=False)
    data = {"type": "table", "path": str(tmp_path / "prices.csv"), "target": "price"}
    changes = {"metric": "rmse", "data": data, "tracking": {"backend": "none"}, "global_batch_size": 16}
    run = train(small_job(tmp_path / "out", **{**QUICK, **changes, "epochs": 3}))
    score, job = run.state()["score"], run.job()
    _, val = build_data(job.data)
    inputs, targets = val.tensors
    with torch.no_grad():
        answers = load_model(run.model)(inputs).flatten()
    errors = job.data.target_column.std * (answers - targets.flatten()).double()
    assert score == pytest.approx(errors.square().mean().sqrt().item(), rel=1e-5)
    assert evaluate_run(run, job).scores["validation"].metrics["rmse"] == pytest.approx(score, rel=1e-6)
    assert recipe(run)["data"]["target_scale"] == job.data.target_column.std
    assert recipe(run)["temperature"] == 1.0


def test_metrics_that_a_large_validation_split_has_no_room_for_are_named_once_and_cannot_be_the_score(tmp_path):
    info = DataInfo(("classification",), 10, 700_000, (3,), num_classes=100, class_counts=(1,) * 100)
    job = small_job(tmp_path)
    noted = check_metrics(job, info, "classification")
    assert "not computed: auroc, ece, temperature, calibrated_loss, calibrated_ece" in noted.notes[-1]
    assert check_metrics(job, noted, "classification") == noted
    assert check_metrics(job, info._replace(num_val=50_000), "classification").notes == ()
    with pytest.raises(JobError, match="auroc is not computed"):
        check_metrics(job.model_copy(update={"metric": "auroc"}), info, "classification")
    macro = job.model_copy(update={"metric": "macro_f1"})
    assert check_metrics(macro, info, "classification") == noted


def test_data_that_count_no_classes_take_no_weights(tmp_path):
    info = DataInfo(("classification",), 10, 10, (3,), num_classes=2)
    with pytest.raises(JobError, match="do not say how many samples each class has"):
        check_metrics(small_job(tmp_path, class_weights="balanced"), info, "classification")
