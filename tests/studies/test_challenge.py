"""A challenge: a job by default against a random search over AdamW."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from activelr_service.errors import CommandError, JobError
from activelr_service.studies.challenge import read_challenge, read_proof, read_result
from activelr_service.studies.verdict import (
    Result,
    Side,
    aggregate_lines,
    bootstrap_interval,
    holm,
    interquartile_mean,
    interval,
    on_one_scale,
    p_value,
    result_lines,
    table_lines,
    verdict,
    win_share,
)
from tests.conftest import activelr

JOB = """\
kind: train
name: digits
model: {type: mlp, hidden: [16]}
data: {type: digits, image_size: 8, test_fraction: 0.2}
epochs: 1
global_batch_size: 64
"""


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def result_of(ours, theirs, higher_is_better=True, is_test=True):
    default = Side("active_adamw", np.array(ours), 1, 2.0)
    searched = Side("adamw (best of 4)", np.array(theirs), 5, 9.0)
    return Result(
        "digits", "test accuracy", higher_is_better, is_test, default, searched, "lr: 0.01", 1, [(1, 0.5), (4, 0.9)]
    )


def test_a_side_wins_where_the_interval_of_the_difference_leaves_out_zero():
    assert verdict(result_of([0.9, 0.91, 0.92], [0.5, 0.51, 0.52])).startswith("active_adamw won")
    assert verdict(result_of([0.9, 0.91, 0.92], [0.5, 0.51, 0.52], False)).startswith("adamw (best of 4) won")
    unclear = verdict(result_of([0.90, 0.95, 0.85], [0.91, 0.86, 0.96]))
    assert unclear.startswith("nobody won")
    assert "adamw (best of 4) is ahead by 0.01 " in unclear
    assert "one seed does not tell" in verdict(result_of([0.9], [0.8]))


def test_the_interval_is_that_of_welch_and_equal_scores_have_none():
    ours, theirs = np.array([3.0, 4.0, 6.0]), np.array([1.0, 1.5, 2.5, 2.0])
    difference = ours.mean() - theirs.mean()
    variances = ours.var(ddof=1) / 3, theirs.var(ddof=1) / 4
    degrees = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 3)
    half = stats.t.ppf(0.975, degrees) * np.sqrt(sum(variances))
    assert interval(ours, theirs) == pytest.approx((difference - half, difference + half))
    assert interval(np.ones(3), np.zeros(3)) == (1.0, 1.0)


def test_the_share_of_pairs_that_are_won_counts_a_tie_as_half():
    assert win_share(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(3.5 / 4)


def test_the_lines_say_the_costs_what_was_lost_and_whether_the_comparison_favors_the_search():
    text = "\n".join(result_lines(result_of([0.9, 0.8, 0.9], [0.8, 0.9, 0.8], is_test=False)))
    for part in ("trainings for one model", "1 of the 4 trials", "favors it", "1: 0.5, 4: 0.9", "lr: 0.01", "3 seeds"):
        assert part in text


def test_p_values_are_corrected_for_the_number_of_workloads_as_holm_did():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9]) == [0.9]
    ours, theirs = np.array([3.0, 4.0, 6.0]), np.array([1.0, 1.5, 2.5, 2.0])
    assert p_value(ours, theirs) == stats.ttest_ind(ours, theirs, equal_var=False).pvalue
    assert (p_value(np.ones(3), np.zeros(3)), p_value(np.ones(3), np.ones(3))) == (0.0, 1.0)


def test_the_table_counts_who_has_won_how_many_workloads():
    won = result_of([0.90, 0.91, 0.92], [0.50, 0.51, 0.52])
    lost = result_of([0.90, 0.91, 0.92], [0.50, 0.51, 0.52], higher_is_better=False)
    unclear = result_of([0.90, 0.95, 0.85], [0.91, 0.86, 0.96])
    lines = table_lines([won, lost, unclear])
    assert lines[2].startswith("| digits | test accuracy, higher is better | 0.9100 ± 0.01 | 0.5100 ± 0.01 | +0.4 |")
    assert "| -0.4 |" in lines[3]
    assert lines[6].startswith("the default won 1, the search won 1, nobody won 1 of 3 workloads")


def test_all_workloads_together_are_an_interquartile_mean_with_an_interval():
    ours, theirs = [0.90, 0.92, 0.94, 0.96], [0.80, 0.82, 0.88, 0.90]
    result = result_of(ours, theirs)
    scaled = [(np.array(scores) - 0.5) / 0.35 for scores in (ours, theirs)]  # a random AdamW 0.5, the search 0.85
    assert [side.tolist() for side in on_one_scale(result)] == [pytest.approx(side.tolist()) for side in scaled]
    assert interquartile_mean(*scaled[:1]) == pytest.approx((0.93 - 0.5) / 0.35)
    low, high = bootstrap_interval(scaled[:1], scaled[1:])
    assert 0 < low < 0.08 / 0.35 < high < 0.5
    assert "ahead by +0.229 (95 % interval +0." in aggregate_lines([result, result])[0]
    assert "better one in 97%" in aggregate_lines([result, result])[0]


def test_workloads_on_which_the_search_found_nothing_have_no_mean():
    assert "no mean" in aggregate_lines([result_of([0.9, 0.8], [0.4, 0.5])])[0]
    assert aggregate_lines([result_of([0.9], [0.8])]) == []


def test_the_study_of_the_proof_is_valid_and_takes_overrides():
    study, _ = read_proof(["random_search.trials=5", "seeds=[0]"])
    assert (study.random_search.trials, study.seeds, len(study.workloads)) == (5, [0], 6)
    with pytest.raises(JobError, match=r"--set sedes=.*unknown key"):
        read_proof(["sedes=[0]"])


def test_a_training_without_a_score_is_said_and_not_averaged(job_file):
    study, _ = read_challenge(job_file, [], 1, 2)
    rows = [("active_adamw", 0, 0.9, 0), ("active_adamw", 1, np.nan, 0)]
    rows += [("adamw (random)", 2, 0.8, 1), ("adamw (best of 1)", 0, 0.8, 0), ("adamw (best of 1)", 1, 0.8, 0)]
    trials = pd.DataFrame(rows, columns=["optimizer", "seed", "score", "random_trial"])
    trials = trials.assign(workload="digits", test_score=np.nan, seconds=1.0, status="finished", metric="val_accuracy")
    with pytest.raises(CommandError, match="1 of the 2 trainings of active_adamw left no score"):
        read_result(trials.assign(higher_is_better=True), study)
    result = read_result(trials.assign(higher_is_better=True).fillna({"score": 0.7}), study)
    assert result.default.scores.tolist() == [0.9, 0.7]


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("", {"type": "active_adamw"}),
        ("optimizer: active_muon", {"type": "active_muon"}),
        ("optimizer: {type: active_sgd, momentum: 0.5}", {"type": "active_sgd", "momentum": 0.5}),
        ("optimizer: {type: active_sgd, rule: paper}", {"type": "active_adamw"}),
        ("optimizer: {type: adamw, lr: 0.1}", {"type": "active_adamw"}),
    ],
)
def test_the_side_without_a_choice_is_that_of_the_job_or_active_adamw(job_file, optimizer, expected):
    job_file.write_text(f"{JOB}{optimizer}\n")
    study, _ = read_challenge(job_file, ["epochs=2"], 7, 2)
    assert study.optimizers == [expected]
    assert study.workloads["digits"]["epochs"] == 2
    assert (study.random_search.trials, study.seeds, study.name) == (7, [0, 1], "challenge-digits")


@pytest.mark.parametrize(
    ("more", "place"),
    [("early_stop: {patience: 3}", "early_stop"), ("modle: 3", "modle"), ("optimizer: {type: adamw, lr: -1}", "lr")],
)
def test_what_cannot_be_compared_is_refused_at_its_line(job_file, more, place):
    job_file.write_text(f"{JOB}{more}\n")
    with pytest.raises(JobError, match=rf"job.yaml:7: .*{place}"):
        read_challenge(job_file, [], 2, 2)


@pytest.mark.xdist_group("studies")
@pytest.mark.ray
def test_a_challenge_runs_and_a_longer_one_continues_the_search(job_file):
    folder = job_file.parent
    first = activelr("challenge", "job.yaml", "--trials", "2", "--seeds", "2", cwd=folder)
    assert first.returncode == 0, first.stderr
    assert "adamw (best of 2)" in first.stdout
    assert "test accuracy, higher is better, 2 seeds" in first.stdout
    report = folder / "outputs" / "studies" / "challenge-digits" / "report"
    assert (report / "challenge.txt").read_text().splitlines()[0] in first.stdout
    before = read_search(report)
    again = activelr("challenge", "job.yaml", "--trials", "3", "--seeds", "2", cwd=folder)
    assert again.returncode == 0, again.stderr
    after = read_search(report)
    assert (before["trial"].nunique(), after["trial"].nunique()) == (2, 3)
    kept = after[after["trial"].isin(before["trial"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before[kept.columns])


def read_search(report):
    table = pd.read_parquet(report / "results.parquet")
    return table[table["optimizer"] == "adamw (random)"].sort_values(["trial", "epoch"]).reset_index(drop=True)
