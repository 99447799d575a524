"""How long a job is: epochs, or a budget of steps or time."""

import pytest

from activelr_service.config import dump_job, load_job, read_study
from activelr_service.config.duration import parse_time
from activelr_service.errors import JobError

EPOCHS = "epochs: 20\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), ("1d", 86_400), ("1d2h3m4s", 93_784)],
)
def test_a_duration_is_numbers_with_units(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "h", "2 h", "1.5h", "-2h", "30m1h", "2H", "2h30", "9" * 5000 + "s"])
def test_anything_else_is_no_duration(text):
    with pytest.raises(ValueError, match="must be a time such as 90s, 45m, 2h, 1h30m or 1d, got"):
        parse_time(text)


@pytest.mark.parametrize(
    ("budget", "length"), [("{time: 1h30m}", "1h30m"), ("{steps: 10000}", "10,000 steps"), ("{time: 90s}", "90s")]
)
def test_a_budget_stands_in_the_place_of_epochs(job_file, tmp_path, budget, length):
    job = load_job(job_file(replace=(EPOCHS, f"budget: {budget}\n")))
    assert (job.epochs, job.duration.text) == (None, length)
    (tmp_path / "again.yaml").write_text(dump_job(job))
    assert load_job(tmp_path / "again.yaml") == job


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "job.yaml:1: epochs: is required, or budget: {time: 2h} or {steps: 10000} in its place"),
        (EPOCHS + "budget: {steps: 5}\n", "job.yaml:6: budget: give epochs or budget, not both, got epochs: 20"),
        ("budget: {time: 2h, steps: 5}\n", "job.yaml:5: budget: give time or steps, not both"),
        ("budget: {}\n", "job.yaml:5: budget: give time, such as 2h, or steps, such as 10000"),
        ("budget: {time: 90}\n", "job.yaml:5: budget.time: needs a unit: 90s, 45m, 2h, 1h30m or 1d, got 90"),
        (
            "budget: {time: 2 hours}\n",
            "job.yaml:5: budget.time: must be a time such as 90s, 45m, 2h, 1h30m or 1d, got '2",
        ),
        ("budget: {steps: 0}\n", "job.yaml:5: budget.steps: must be greater than or equal to 1, got 0"),
        ("budget: {step: 5}\n", 'job.yaml:5: budget.step: unknown key; did you mean "steps"?'),
        ("budget: 2h\n", "job.yaml:5: budget: must be a mapping of keys to values, got '2h'"),
    ],
    ids=lambda text: text[:30],
)
def test_a_length_that_is_none_or_two_gets_one_line(job_file, text, expected):
    with pytest.raises(JobError) as caught:
        load_job(job_file(replace=(EPOCHS, text)))
    (line,) = str(caught.value).splitlines()
    assert expected in line


def test_an_override_or_a_preset_takes_the_place_of_the_length_that_was_written(job_file):
    assert load_job(job_file(), ["budget.steps=5"]).duration.text == "5 steps"
    timed = job_file("presets: {smoke: {epochs: 1}, short: {budget: {steps: 9}}}\n", (EPOCHS, "budget: {time: 2h}\n"))
    assert load_job(timed, ["epochs=3"]).duration.text == "3 epochs"
    assert load_job(timed, ["budget.steps=5"]).duration.text == "5 steps"
    assert load_job(timed, ["preset=smoke"]).duration.text == "1 epoch"
    assert load_job(timed, ["preset=short"]).duration.text == "9 steps"
    with pytest.raises(JobError, match="budget: give epochs or budget, not both"):
        load_job(job_file(), ["epochs=3", "budget.steps=5"])


@pytest.mark.parametrize(
    ("text", "steps", "seconds"),
    [("30s", None, 30), ("10m", None, 600), ("{minutes: 0.5}", None, 30), ("{steps: 500}", 500, None)],
)
def test_an_interval_is_steps_or_a_time_and_is_read_as_it_was_written(job_file, tmp_path, text, steps, seconds):
    job = load_job(job_file(f"evaluate_every: {text}\n"))
    assert (job.evaluate_every.steps, job.evaluate_every.seconds) == (steps, seconds)
    (tmp_path / "again.yaml").write_text(dump_job(job))
    assert load_job(tmp_path / "again.yaml") == job
    assert (str(job.log_every), str(job.checkpoint_every)) == ("0.5 minutes", "10 minutes")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log_every: 30", "log_every: needs a unit: 30s, 10m or {steps: 500}, got 30"),
        ("log_every: 30 s", "log_every: must be a time such as 90s, 45m, 2h, 1h30m or 1d, got '30 s'"),
        ("log_every: {}", "log_every: give steps or minutes: {steps: 500}, {minutes: 10}, or a time such as 10m"),
        (
            "evaluate_every: {steps: 5, minutes: 1}",
            "evaluate_every: give steps or minutes: {steps: 500}, {minutes: 10}",
        ),
        ("checkpoint_every: {minutes: 0}", "checkpoint_every.minutes: must be greater than 0, got 0"),
        ("checkpoint_every: {hours: 1}", "checkpoint_every.hours: unknown key"),
        ("early_stop: {patience: 0}", "early_stop.patience: must be greater than or equal to 1, got 0"),
        ("early_stop: {}", "early_stop.patience: is required"),
        ("early_stop: 5", "early_stop: must be a mapping of keys to values, got 5"),
    ],
)
def test_an_interval_or_a_patience_that_is_none_gets_one_line(job_file, text, expected):
    with pytest.raises(JobError) as caught:
        load_job(job_file(f"{text}\n"))
    (line,) = str(caught.value).splitlines()
    assert expected in line


STUDY = """
kind: study
name: s
workloads: {digits: {model: {type: mlp}, data: {type: digits}, budget: {time: 2h}}}
optimizers: [adamw]
sweeps: [{optimizer.lr: [1e-3]}]
"""


def test_a_study_takes_a_budget_of_steps_and_refuses_one_of_time(tmp_path):
    from activelr_service.studies.space import make_trials

    (tmp_path / "study.yaml").write_text(STUDY)
    study, source = read_study(tmp_path / "study.yaml")
    with pytest.raises(JobError) as caught, source.locating():
        make_trials(study)
    assert "study.yaml:4: workloads.digits.budget.time: a trial must not depend on how busy" in str(caught.value)
    study, _ = read_study(tmp_path / "study.yaml", ["workloads.digits.budget={steps: 30}"])
    assert make_trials(study)[0].job.duration.text == "30 steps"


def test_the_trials_of_a_study_do_not_stop_early(tmp_path):
    from activelr_service.studies.space import make_trials

    (tmp_path / "study.yaml").write_text(STUDY)
    changes = ["workloads.digits.budget={steps: 30}", "workloads.digits.early_stop={patience: 2}"]
    study, source = read_study(tmp_path / "study.yaml", changes)
    with pytest.raises(JobError, match="early_stop: leave it out: the trials of a study") as caught, source.locating():
        make_trials(study)
    assert len(str(caught.value).splitlines()) == 1
