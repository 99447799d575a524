"""The test split is measured once, at the end of a run, and wherever the end is cut off it is made up for."""

import json

import numpy as np
import pytest

from activelr_service.cli.run_commands import run_lines
from activelr_service.runs.journal import read_journal
from activelr_service.service.evaluate import evaluate_run
from activelr_service.service.launch import train
from activelr_service.service.prepare import read_info
from activelr_service.service.test_split import describe_test, measure_test
from tests.conftest import activelr, mlflow_run, small_job
from tests.cut import kill_everywhere, killed_after

QUICK = {"workers": {"num_workers": 1}, "global_batch_size": 256, "epochs": 2}
DIGITS = {"type": "digits", "image_size": 8, "test_fraction": 0.2}

pytestmark = [pytest.mark.xdist_group("test_split"), pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(small_job(tmp_path_factory.mktemp("test_split"), **QUICK, data=DIGITS))


def test_the_best_model_is_measured_at_the_end_and_that_is_told_everywhere(run):
    state = run.state()
    test = state["test"]
    assert (test["samples"], test["epoch"], test["left_out"]) == (287, state["best_epoch"], {})
    measured = evaluate_run(run, run.job()).scores
    assert measured["test"].metrics == test["metrics"]
    assert measured["validation"].metrics["accuracy"] == pytest.approx(state["score"])
    line = f"accuracy {test['metrics']['accuracy']:.4f}, loss {test['metrics']['loss']:.4f} on 287 samples"
    assert run.log.read_text().count(line) == 2
    assert any(line in shown for shown in run_lines(run))
    client, tracked = mlflow_run(run)
    history = client.get_metric_history(tracked.info.run_id, "test/accuracy")
    assert [(one.value, one.step) for one in history] == [(test["metrics"]["accuracy"], state["best_epoch"])]
    assert tracked.data.params["derived.num_test"] == "287"


def test_an_end_that_is_cut_off_while_the_test_is_measured_is_made_up_for(run):
    whole = run.state()["test"]

    def end():
        measure_test(run, run.job(), read_info(run), read_journal(run.journal)[whole["epoch"] - 1], print)

    def check(operations):
        end()
        assert run.state()["test"] == whole
        run.update(test=None)

    run.update(test=None)
    assert kill_everywhere(run.folder, end, check)
    end()
    with killed_after(1000, run.folder) as done:
        end()
    assert not done, "a model is measured once"


def test_test_data_that_changed_or_cannot_be_read_leave_a_finished_run_without_the_number(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype(np.float32)
    arrays = {"x": x, "y": np.arange(60) % 3, "x_test": x[:9] + 1, "y_test": np.arange(9) % 3}
    np.savez(tmp_path / "rows.npz", **arrays)
    job = small_job(
        tmp_path / "out", **{**QUICK, "global_batch_size": 8}, data={"type": "npz", "path": str(tmp_path / "rows.npz")}
    )
    run = train(job)
    assert run.state()["test"]["samples"] == 9
    run.update(test=None)
    np.savez(tmp_path / "rows.npz", **{**arrays, "y_test": np.zeros(9, int)})
    lines = []
    measure_test(run, run.job(), read_info(run), read_journal(run.journal)[0], lines.append)
    assert "have changed since it began" in run.state()["test"]["error"]
    assert any("warning: the test split is not measured" in line for line in lines)
    assert describe_test(run.state()).startswith("not measured: data: the data of run small/001 have changed")


def test_the_command_prints_json_of_one_split(run):
    root = run.folder.parent.parent
    found = json.loads(activelr("evaluate", "small", "--output-dir", root, "--json", "--split", "test").stdout)
    assert list(found) == ["test"]
    assert found["test"]["accuracy"] == run.state()["test"]["metrics"]["accuracy"]
