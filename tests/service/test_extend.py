"""A run made longer or shorter, with one worker in this process: what it says, what is made again, what is refused."""

import pytest

from activelr_service.config import read_resolved_job
from activelr_service.errors import JobError
from activelr_service.runs.console import progress_line
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import seconds_left
from activelr_service.runs.run import find_run
from activelr_service.service.extend import check_duration
from activelr_service.service.launch import resume, train
from tests.conftest import activelr, mlflow_run, small_job

pytestmark = [pytest.mark.xdist_group("extend"), pytest.mark.ray]

ROBUST = {"type": "active_adamw", "rule": "robust"}


def job_of(folder, **changes):
    fixed = {"epochs": 2, "global_batch_size": 64, "workers": {"num_workers": 1}, "optimizer": ROBUST}
    return small_job(folder, **{**fixed, **changes})


def longer(run, *overrides):
    return read_resolved_job(run.folder / "resolved.yaml", overrides)[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(job_of(tmp_path_factory.mktemp("finished"), name="digits"))


def test_a_finished_run_is_extended_in_its_mlflow_run_and_its_results_are_made_again(finished):
    before, (_, tracked) = finished.state(), mlflow_run(finished)
    figure = (finished.figures / "learning_curves.png").read_bytes()
    root = finished.folder.parent.parent
    result = activelr("resume", "digits", "--output-dir", root, "--set", "epochs=4")
    assert result.returncode == 0, result.stderr
    said = "run digits/001: extended from 2 to 4 epochs; progress goes back from 100 % to 50 %"
    assert said in result.stdout.splitlines()
    assert said in finished.log.read_text()
    state, (client, again) = finished.state(), mlflow_run(finished)
    history = read_journal(finished.journal)
    assert [record.global_step for record in history] == [22, 44, 66, 88]
    assert [record.metrics["optim/progress"] for record in history] == [0.5, 1.0, 0.75, 1.0]
    assert again.info.run_id == tracked.info.run_id
    assert again.info.status == "FINISHED"
    assert again.data.tags["activelr.length"] == "4 epochs"
    assert "extended from 2 to 4 epochs" in again.data.tags["activelr.length_change"]
    assert len(client.get_metric_history(again.info.run_id, "train/loss")) == 4
    assert (before["model_uri"], state["model_uri"]) == ("models:/digits/1", "models:/digits/2")
    assert state["score"] == max(record.metrics["val/accuracy"] for record in history)
    assert (finished.figures / "learning_curves.png").read_bytes() != figure
    assert (finished.job().epochs, finished.written_job().epochs) == (4, 4)
    assert resume(finished) == finished
    assert len(read_journal(finished.journal)) == 4


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["epochs=5", "seed=1"],
            r"seed: only epochs, budget and tracking of run digits/001 can change, got seed: 0 -> 1; leave the",
        ),
        (
            ["epochs=1"],
            r"epochs: run digits/001 has done \d epochs, \d\d steps, \d+ s; give more than that, got 1 epoch",
        ),
        (["budget.steps=44"], r"budget.steps: run digits/001 has done .* got 44 steps"),
        (["output_dir=elsewhere", "epochs=9"], r"output_dir: a run is resumed where it is, in .*, got elsewhere"),
    ],
    ids=["more than the length", "fewer epochs", "fewer steps", "another output directory"],
)
def test_what_cannot_be_is_refused_and_changes_nothing(finished, overrides, expected):
    before = (finished.folder / "run.json").read_text(), (finished.folder / "resolved.yaml").read_text()
    with pytest.raises(JobError, match=expected):
        resume(finished, longer(finished, *overrides))
    assert before == ((finished.folder / "run.json").read_text(), (finished.folder / "resolved.yaml").read_text())


def test_less_time_than_was_used_is_refused(finished):
    history = read_journal(finished.journal)
    history[-1].metrics["perf/elapsed_seconds"] = 3700.0
    check_duration(finished, finished.job(), longer(finished, "budget.time=2h"), history)
    with pytest.raises(JobError, match=r"budget.time: run digits/001 has done .* 3,700 s; give more than that, got 1h"):
        check_duration(finished, finished.job(), longer(finished, "budget.time=1h"), history)


def test_an_unfinished_run_takes_the_length_of_the_job_that_is_submitted_and_no_other_change(tmp_path, capsys):
    run = train(job_of(tmp_path, epochs=None, budget={"steps": 30}))
    run.update(status="interrupted")
    with pytest.raises(JobError, match=r"is unfinished and its job differs \(.*seed: 0 -> 1"):
        train(job_of(tmp_path, epochs=3, seed=1))
    with pytest.raises(JobError, match=r"epochs: run small/001 has done 2 epochs, 30 steps"):
        train(job_of(tmp_path, epochs=2))
    capsys.readouterr()
    assert train(job_of(tmp_path, epochs=3)) == run
    output = capsys.readouterr().out
    assert "run small/001: extended from 30 steps to 3 epochs; progress goes back from 100 % to 67 %" in output
    assert "run small/001: continued after epoch 2/3" in output
    assert [record.global_step for record in read_journal(run.journal)] == [22, 30, 52]
    assert read_journal(run.journal)[-1].metrics["optim/progress"] == 1
    assert find_run(tmp_path, "small").status() == "finished"


def test_a_budget_of_time_is_trained_to_its_end_and_shown_in_percent(tmp_path, capsys):
    run = train(job_of(tmp_path, epochs=None, budget={"time": "2s"}))
    output = capsys.readouterr().out
    history, job = read_journal(run.journal), run.job()
    assert "epoch 1  " in output
    assert " % of 2s  loss " in output
    assert output.count("  done\n") == 1
    assert job.duration.is_over(history[-1].position)
    assert not any(job.duration.is_over(record.position) for record in history[:-1])
    assert 0 <= seconds_left(history, job) <= 2
    assert " % of 2s" in activelr("list", "--output-dir", tmp_path).stdout


def test_the_line_of_an_epoch_says_how_much_of_its_budget_is_used(finished):
    record = read_journal(finished.journal)[0]
    timed, steps = (small_job("x", epochs=None, budget=budget) for budget in ({"time": "2h"}, {"steps": 55}))
    record.metrics.update({"perf/elapsed_seconds": 2952.0, "perf/epoch_seconds": 9.0})
    assert progress_line(record, timed, 0).startswith("epoch 1  41 % of 2h  loss ")
    assert progress_line(record, steps, 60).startswith("epoch 1  40 % of 55 steps  loss ")
    assert seconds_left([record], timed) == pytest.approx(4248)
    assert seconds_left([record], steps) == pytest.approx(13.5)


def test_a_run_made_shorter_goes_on(finished):
    history = read_journal(finished.journal)[:1]
    history[0].metrics["optim/progress"] = 0.25
    four, two = (job_of("x", epochs=epochs).duration for epochs in (4, 2))
    said = "shortened from 4 to 2 epochs; progress goes on from 25 % to 50 %"
    assert four.describe_change(two, history[0].position) == said
    assert four.describe_change(two, None) == "changed from 4 to 2 epochs; nothing was done yet"
