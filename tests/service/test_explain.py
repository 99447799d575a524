"""What a run says of its choices and of its steps, and the functions that Python programs call."""

import pytest
import torch

import activelr_service
from activelr_service.config import dump_job
from activelr_service.errors import CommandError, JobError
from activelr_service.service.explain import describe_lr, explain_run
from activelr_service.service.launch import train
from tests.conftest import ROOT, small_job

pytestmark = [pytest.mark.xdist_group("explain"), pytest.mark.ray]

ONE = {"num_workers": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trained as a Python program does it: from a file, with one value changed."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "job.yaml").write_text(dump_job(small_job(folder, workers=ONE, epochs=5)))
    return activelr_service.train(folder / "job.yaml", ["seed=3"])


def test_the_python_functions_read_train_and_load(run):
    job = activelr_service.load_job(run.folder / "resolved.yaml")
    assert job.seed == 3
    assert run.state()["status"] == "finished"
    model = activelr_service.load_model(run.model)
    assert model.task == "classification"
    assert len(model(torch.zeros(2, 3, 8, 8))[0]) == 10
    with pytest.raises(TypeError, match="give them to load_job instead"):
        activelr_service.train(job, ["epochs=6"])


def test_a_job_that_python_cannot_train_is_refused_with_its_line(tmp_path):
    (tmp_path / "job.yaml").write_text(dump_job(small_job(tmp_path, task="detection")))
    with pytest.raises(JobError, match=r"job\.yaml:\d+: task: these data are for classification"):
        activelr_service.train(tmp_path / "job.yaml")


def test_the_python_functions_write_a_report(tmp_path):
    results = ROOT / "tests" / "reports" / "reference" / "cifar10_resnet18.csv"
    table = activelr_service.report(results, tmp_path / "report")
    assert (tmp_path / "report" / "report.html").exists()
    assert {"optimizer", "score"} <= set(table.columns)
    with pytest.raises(CommandError, match="cannot be written"):
        activelr_service.report(results, results / "report")


def test_a_run_explains_what_it_chose_and_how_its_steps_moved(run):
    text = "\n".join(explain_run(run))
    assert "run small/001: active_adamw, robust rule; finished, epochs trained: 5" in text
    assert "task = classification  (inferred from the data)" in text
    assert "global_batch_size = " in text
    for column in ("step 1", "step 3", "step 5", "lr 5", "signs agree", "clipped"):
        assert column in text
    assert len([line for line in text.splitlines() if line.startswith(("  1 ", "  3 "))]) == 2


@pytest.mark.parametrize(
    ("optimizer", "line"),
    [
        ({"type": "adamw"}, "keeps the learning rate it was given"),
        ({"type": "adamw", "schedule": "cosine"}, "follows the schedule cosine"),
        ({"type": "prodigy"}, "finds the lengths of its steps by itself"),
    ],
)
def test_what_an_optimizer_without_gains_does_about_its_learning_rate(tmp_path, optimizer, line):
    assert line in describe_lr(small_job(tmp_path, optimizer=optimizer).optimizer)


@pytest.mark.parametrize(
    ("optimizer", "line"),
    [({"rule": "paper"}, "gains on the learning rate"), ({"type": "sgd"}, "keeps the learning rate it was given")],
)
def test_other_optimizers_explain_what_they_have(tmp_path, optimizer, line):
    run = train(small_job(tmp_path, workers=ONE, epochs=2, optimizer=optimizer))
    assert line in "\n".join(explain_run(run))
