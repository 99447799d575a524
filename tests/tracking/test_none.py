"""``tracking: {backend: none}``: a run is trained, resumed, listed and measured, and nothing of MLflow is made."""

import json

import pytest

from activelr_service.errors import JobError
from activelr_service.runs.run import list_runs
from activelr_service.service.launch import resume, train
from tests.conftest import activelr, mlflow_run, small_job
from tests.service.conftest import bits, cut_off

pytestmark = pytest.mark.xdist_group("untracked")

QUICK = {"workers": {"num_workers": 1}, "global_batch_size": 64, "epochs": 2, "tracking": {"backend": "none"}}
STUDY = """
kind: study
name: untracked
output_dir: .
tracking: {backend: none}
workloads:
  digits: {model: {type: mlp}, data: {type: digits, image_size: 8}, epochs: 1, global_batch_size: 64}
optimizers: [adamw]
sweeps: [{optimizer.lr: [1e-3]}]
trials: {packed: true}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(small_job(tmp_path_factory.mktemp("untracked"), **QUICK))


def test_nothing_of_mlflow_is_made(run):
    root = run.folder.parent.parent
    assert run.status() == "finished"
    assert not {path.name for path in root.iterdir()} & {"mlflow.db", "mlartifacts"}
    assert run.state().get("mlflow_run_id") is None
    assert "MLflow" not in run.log.read_text()


def test_it_is_listed_and_measured_and_the_ui_says_how_to_track(run):
    root = run.folder.parent.parent
    assert "small/001" in activelr("list", "--output-dir", root).stdout
    assert "finished" in activelr("status", "small", "--output-dir", root).stdout
    measured = json.loads(activelr("evaluate", "small", "--json", "--output-dir", root).stdout)
    assert measured["validation"]["accuracy"] > 0.1
    said = activelr("ui", "--output-dir", root)
    assert said.returncode == 2
    assert "nothing was tracked" in said.stderr
    assert "--set tracking.backend=mlflow" in said.stderr


def test_it_is_resumed_to_the_same_bits_and_can_be_tracked_afterwards(run):
    whole = bits(run, 2)
    cut_off(run, 1)
    resume(run)
    assert bits(run, 2) == whole
    resume(run, run.job().model_copy(update={"tracking": run.job().tracking.model_copy(update={"backend": "mlflow"})}))
    client, tracked = mlflow_run(run)
    assert tracked.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(tracked.info.run_id, "val/loss")] == [1, 2]
    assert run.state()["model_uri"] == "models:/small/1"


def test_a_server_without_the_backend_is_refused(tmp_path):
    with pytest.raises(JobError, match="needs the backend mlflow"):
        small_job(tmp_path, tracking={"backend": "none", "uri": "http://127.0.0.1:5000"})
    assert list_runs(tmp_path) == []


def test_a_study_has_its_report_and_no_store(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    result = activelr("study", "study.yaml", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "studies" / "untracked" / "report" / "report.html").exists()
    assert not list(tmp_path.glob("ml*"))
