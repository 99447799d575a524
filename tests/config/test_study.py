"""The study document: what it means, and what it says to mistakes."""

import itertools
import math

import pytest

from activelr_service.config import read_study
from activelr_service.errors import JobError
from activelr_service.studies.space import make_trials

STUDY = """\
kind: study
name: tiny
workloads:
  digits: {model: {type: mlp, hidden: [16]}, data: {type: digits, image_size: 8}, epochs: 2, global_batch_size: 64}
optimizers: [active_adamw, adamw]
baselines: [prodigy, cocob, rprop, {type: adamw, schedule: cosine}]
sweeps:
  - optimizer.lr: {from: 1e-4, to: 1e-2}
  - global_batch_size: [32, 64]
seeds: [0, 1]
"""


def trials_of(folder, text=STUDY, overrides=()):
    path = folder / "study.yaml"
    path.write_text(text)
    study, source = read_study(path, overrides)
    with source.locating():
        return make_trials(study)


def where(trials, optimizer):
    """(learning rate, batch size) of every trial of an optimizer with seed 0."""
    found = [trial.job for trial in trials if trial.optimizer == optimizer and trial.job.seed == 0]
    return sorted((job.optimizer.lr, job.global_batch_size) for job in found)


def test_a_trial_that_two_sweeps_ask_for_is_there_once(tmp_path):
    trials = trials_of(tmp_path)
    assert where(trials, "active_adamw") == [(1e-4, 64), (1e-3, 32), (1e-3, 64), (1e-2, 64)]
    assert len({trial.id for trial in trials}) == len(trials)


def test_a_baseline_keeps_its_own_settings_and_is_swept_over_the_rest(tmp_path):
    trials = trials_of(tmp_path)
    assert where(trials, "prodigy") == [(1.0, 32), (1.0, 64)]
    assert where(trials, "cocob") == [(None, 32), (None, 64)]
    assert where(trials, "adamw (schedule=cosine)") == [(1e-3, 32), (1e-3, 64)]
    assert where(trials, "rprop") == [(1e-2, None)]  # full batch


def test_several_axes_in_one_sweep_are_a_grid(tmp_path):
    text = STUDY.replace("  - global_batch_size", "    global_batch_size")
    assert len(where(trials_of(tmp_path, text), "adamw")) == 3 * 2


def test_a_sweep_may_be_for_some_optimizers_only_and_the_others_run_as_they_stand(tmp_path):
    text = STUDY.replace("- optimizer.lr: {", "- only: [adamw]\n    optimizer.lr: {")
    text = text.replace("  - global_batch_size: [32, 64]\n", "")
    trials = trials_of(tmp_path, text)
    assert where(trials, "adamw") == [(1e-4, 64), (1e-3, 64), (1e-2, 64)]
    assert where(trials, "active_adamw") == [(1e-3, 64)]
    assert where(trials, "prodigy") == [(1.0, 64)]


def test_a_setting_that_only_some_optimizers_have_sweeps_only_those_and_names_them(tmp_path):
    text = STUDY.replace("global_batch_size: [32, 64]\n", "optimizer.gain_increment: [0.1, 0.5]\n")
    text = text.replace("[active_adamw, ", "[{type: active_adamw, rule: paper}, ")
    labels = {trial.optimizer for trial in trials_of(tmp_path, text)}
    assert "active_adamw (rule=paper, gain_increment=0.5)" in labels
    assert "active_adamw (rule=paper, gain_increment=0.1)" not in labels  # its default
    assert not any(label.startswith("adamw (gain") for label in labels)


def test_a_label_stands_for_settings(tmp_path):
    text = STUDY.replace("{type: adamw, schedule: cosine}", "{type: adamw, schedule: cosine, label: adamw-cosine}")
    assert "adamw-cosine" in {trial.optimizer for trial in trials_of(tmp_path, text)}


def test_the_same_trial_keeps_its_id_in_a_larger_study(tmp_path):
    before = {trial.id for trial in trials_of(tmp_path)}
    after = {trial.id for trial in trials_of(tmp_path, STUDY.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))}
    assert before < after


def test_a_workload_may_be_a_job_s_file_with_its_preset_and_changes(tmp_path):
    (tmp_path / "job.yaml").write_text(
        "kind: train\nname: x\nmodel: {type: mlp, hidden: [8]}\ndata: {type: digits, image_size: 16}\nepochs: 9\n"
        "optimizer: {type: active_sgd, lr: 1e-4}\npresets: {smoke: {epochs: 1}}\n"
    )
    workload = "  own: {job: job.yaml, preset: smoke, data: {image_size: 8}, global_batch_size: 64}"
    text = "\n".join(workload if line.startswith("  digits:") else line for line in STUDY.splitlines())
    job = trials_of(tmp_path, text)[0].job
    assert (job.epochs, job.data.image_size, job.model.hidden, job.optimizer.type) == (1, 8, [8], "active_adamw")


def test_a_range_has_its_points_per_decade_and_both_ends(tmp_path):
    text = STUDY.replace("{from: 1e-4, to: 1e-2}", "{from: 1e-6, to: 1e-1, points_per_decade: 2}")
    rates = sorted({trial.job.optimizer.lr for trial in trials_of(tmp_path, text) if trial.optimizer == "adamw"})
    assert rates[0] == 1e-6
    assert rates[-1] == 1e-1
    assert [math.log10(b / a) for a, b in itertools.pairwise(rates)] == pytest.approx([0.5] * 10, abs=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("kind: study", "kind: train", "study.yaml:1: kind: is 'train': this file is for `activelr train`"),
        (
            "{from: 1e-4, to: 1e-2}",
            "[1e-3, -2]",
            "study.yaml:8: sweeps[0].optimizer.lr: must be greater than 0, got -2",
        ),
        ("{from: 1e-4, to: 1e-2}", "[]", "study.yaml:8: sweeps[0].optimizer.lr: List should have at least 1 item"),
        ("{from: 1e-4, to: 1e-2}", "{from: 0, to: 1}", "a range needs 0 < from <= to"),
        ("{from: 1e-4, to: 1e-2}", "{low: 1, to: 1}", "a range is {from, to, points_per_decade}"),
        ("optimizer.lr", "optimizer.lrr", "study.yaml:8: sweeps[0].optimizer.lrr: no optimizer of this study has this"),
        ("global_batch_size: [32", "global_bach_size: [32", 'unknown key; did you mean "global_batch_size"?'),
        ("[prodigy", "[prodigyy", "baselines[0].type: unknown type 'prodigyy'; did you mean \"prodigy\"?"),
        ("schedule: cosine", "schedule: cosin", "baselines[3].schedule: must be 'constant', 'cosine' or 'wsd'"),
        ("epochs: 2", "epoch: 2", 'workloads.digits.epoch: unknown key; did you mean "epochs"?'),
        ("seeds: [0, 1]", "seeds: [1, 1]", "study.yaml:10: seeds: a seed is there twice"),
        ("{model: {type: mlp", "{job: no.yaml, model: {type: mlp", "workloads.digits.job: no such file"),
        ("seeds", "trials: {num_workers: 2, packed: true}\nseeds", "packed: true needs num_workers: 1, got 2"),
    ],
)
def test_a_mistake_is_named_where_it_was_written(tmp_path, old, new, expected):
    with pytest.raises(JobError) as caught:
        trials_of(tmp_path, STUDY.replace(old, new))
    assert expected in str(caught.value)
