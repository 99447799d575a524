"""Whole studies on a real local Ray, as a user runs them: killed, continued, with trials that end badly."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from activelr_service.runs.run import Run
from activelr_service.studies.trial import ending
from tests.conftest import ACTIVELR, PATIENCE_S, activelr

pytestmark = [pytest.mark.xdist_group("studies"), pytest.mark.ray]

STUDY = """\
kind: study
name: trouble
workloads:
  digits: {model: {type: mlp, hidden: [16]}, data: {type: digits, image_size: 8}, epochs: 3, global_batch_size: 64}
  gone: {model: {type: mlp}, data: {type: npz, path: gone.npz}, epochs: 1}
  huge: {model: {type: mlp, hidden: [1000000, 1000000]}, data: {type: digits, image_size: 8}, epochs: 1}
optimizers: [active_adamw, adamw, sgd]
baselines: [prodigy]
sweeps:
  - {only: [active_adamw, adamw], optimizer.lr: [1e-3, 1e-2]}
  - {only: [sgd], optimizer.lr: [1e28, 1e29, 1e30]}
seeds: [0, 1]
"""
NUM_DIGITS = (4 + 3 + 1) * 2


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A study that is killed as soon as its first trials have ended, and then brought to its end."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY)
    driver = subprocess.Popen([*ACTIVELR, "study", "study.yaml"], cwd=folder, start_new_session=True)
    outcomes = folder / "outputs" / "studies" / "trouble" / "trials"
    deadline = time.monotonic() + PATIENCE_S
    while len(list(outcomes.glob("*.json"))) < 3:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(2)  # what was being written when it was killed
    before = {path.name: path.stat().st_mtime_ns for path in outcomes.glob("*.json")}
    result = activelr("study", "study.yaml", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, before, result


def results_of(folder):
    return pd.read_parquet(folder / "outputs" / "studies" / "trouble" / "report" / "results.parquet")


def test_what_had_ended_before_the_driver_was_killed_is_not_run_again(ended):
    folder, before, result = ended
    outcomes = folder / "outputs" / "studies" / "trouble" / "trials"
    kept = [name for name, changed in before.items() if (outcomes / name).stat().st_mtime_ns == changed]
    assert len(before) >= 3
    assert len(kept) == len(before)
    assert f"{len(before)} of them done before" in result.stdout


def test_trials_that_end_badly_do_not_stop_a_study_and_are_shown_for_what_they_are(ended):
    folder, _, result = ended
    last = results_of(folder).drop_duplicates("trial", keep="last")
    counts = last.groupby(["workload", "status"]).size().to_dict()
    assert counts[("digits", "finished")] == 10
    assert counts[("digits", "diverged")] == 6
    assert counts[("huge", "out_of_memory")] == NUM_DIGITS
    assert counts[("gone", "failed")] == NUM_DIGITS
    assert set(last.loc[last["workload"] == "gone", "reason"]) == {f"data.path: no such file: {folder / 'gone.npz'}"}
    assert (last.loc[last["status"] == "diverged", "epoch"] == 1).all()
    assert "diverged in epoch 1 (NonFiniteLossError" in result.stdout
    page = (folder / "outputs" / "studies" / "trouble" / "report" / "report.html").read_text()
    assert "gone.npz" in page


def test_the_numbers_of_the_report_follow_from_its_parquet_file(ended):
    folder, _, _ = ended
    report = folder / "outputs" / "studies" / "trouble" / "report"
    table = results_of(folder)
    summary = pd.read_csv(report / "summary.csv").set_index(["axis", "workload", "optimizer"])
    rows = table[(table["workload"] == "digits") & (table["optimizer"] == "adamw") & (table["epoch"] > 0)]
    best = rows.groupby(["initial_lr", "trial"])["val_accuracy"].max().groupby("initial_lr").mean()
    row = summary.loc[("initial_lr", "digits", "adamw")]
    assert row["mean"] == pytest.approx(best.mean())
    assert row["range"] == pytest.approx(best.max() - best.min())
    assert row["sensitivity"] == pytest.approx(best.max() - best.mean())


def test_a_study_is_a_run_in_mlflow_and_every_trial_one_under_it_found_by_its_axes(ended):
    folder, _, _ = ended
    study = folder / "outputs" / "studies" / "trouble"
    client = MlflowClient(f"sqlite:///{folder / 'outputs' / 'mlflow.db'}")
    parent = client.get_run(json.loads((study / "study.json").read_text())["mlflow_run_id"])
    assert parent.info.status == "FINISHED"
    artifacts = {file.path for file in client.list_artifacts(parent.info.run_id, "report")}
    assert {"report/report.html", "report/results.parquet", "report/results.csv"} <= artifacts
    where = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    children = client.search_runs([parent.info.experiment_id], where, max_results=1000)
    assert len(children) == 2 * NUM_DIGITS  # once each, though the driver was killed
    found = client.search_runs(
        [parent.info.experiment_id], f"{where} and params.`optimizer.lr` = '0.01' and params.`optimizer.type` = 'adamw'"
    )
    assert len(found) == 2 * 2  # of two workloads
    (digits, *_) = [run for run in found if run.data.tags["activelr.workload"] == "digits"]
    history = client.get_metric_history(digits.info.run_id, "val/accuracy")
    assert sorted(point.step for point in history) == [0, 1, 2, 3]


def test_the_report_of_the_mlflow_experiment_has_the_numbers_of_the_study_s(ended):
    folder, _, _ = ended
    result = activelr("report", "activelr", "--output", "from-mlflow", cwd=folder)
    assert result.returncode == 0, result.stderr
    keys = ["axis", "workload", "optimizer"]
    found = pd.read_csv(folder / "from-mlflow" / "summary.csv").set_index(keys).sort_index()
    own = (
        pd.read_csv(folder / "outputs" / "studies" / "trouble" / "report" / "summary.csv").set_index(keys).sort_index()
    )
    for column in ("mean", "best", "range", "sensitivity", "regret", "divergence"):
        pd.testing.assert_series_equal(found.loc[own.index, column], own[column])


def test_the_same_command_again_runs_nothing_and_writes_the_same_report(ended):
    folder, _, _ = ended
    before = results_of(folder)
    result = activelr("study", "study.yaml", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "trials a minute" not in result.stdout
    pd.testing.assert_frame_equal(results_of(folder), before)


def test_a_dry_run_says_what_would_run_and_cost_and_starts_nothing(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    result = activelr("study", "study.yaml", "--dry-run", "--set", "seeds=[0]", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "study trouble: 24 trials, 0 of them done before" in result.stdout
    assert "8 trials cannot run: data.path: no such file: /" in result.stdout
    assert "of training on this machine's CPU" in result.stdout
    assert not list((tmp_path / "outputs" / "studies" / "trouble" / "trials").iterdir())


def test_a_trial_of_two_workers_is_a_ray_train_run_of_its_own(tmp_path):
    text = "\n".join(line for line in STUDY.splitlines() if not line.startswith(("  gone", "  huge")))
    (tmp_path / "study.yaml").write_text(text)
    options = ["trials.num_workers=2", "seeds=[0]", "baselines=[]", "workloads.digits.epochs=2", "optimizers=[adamw]"]
    options.append("sweeps=[{optimizer.lr: [1e-3]}]")
    chosen = [argument for option in options for argument in ("--set", option)]
    result = activelr("study", "study.yaml", *chosen, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    table = results_of(tmp_path)
    assert list(table["epoch"]) == [0, 1, 2]
    assert set(table["status"]) == {"finished"}
    assert np.isfinite(table["score"]).all()
    assert not list((tmp_path / "outputs" / "studies" / "trouble" / "trials").glob("*/checkpoints"))


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        ({"type": "NonFiniteLossError", "message": "the loss was not finite"}, "diverged"),
        ({"type": "OutOfMemoryError", "message": "CUDA out of memory"}, "out_of_memory"),
        ({"type": "RuntimeError", "message": "DefaultCPUAllocator: can't allocate memory"}, "out_of_memory"),
        ({"type": "ValueError", "message": "shapes"}, "failed"),
    ],
)
def test_what_the_workers_of_such_a_trial_noted_is_its_status(tmp_path, failure, status):
    run = Run(tmp_path)
    run.failure.write_text(json.dumps({**failure, "rank": 0}))
    run.journal.write_text("")
    outcome = ending(run)
    assert (outcome.status, outcome.epoch) == (status, 1)
    assert failure["message"] in outcome.reason
