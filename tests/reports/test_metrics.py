"""Every number of a report, against one that was worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from activelr_service.reports.drawing import styles
from activelr_service.reports.labels import family_of, ordered, pairs
from activelr_service.reports.metrics import axis_trials, basin_width, summarize
from activelr_service.reports.statistics import expected_best, intervals, paired_tests, search_costs
from activelr_service.reports.targets import (
    benchmark_score,
    costs_to_target,
    profile,
    profile_scores,
    ratios,
    time_to_target,
)
from activelr_service.reports.trials import trials_of
from tests.reports.tables import table_of, trial


def summary_of(*trials, axis="initial_lr"):
    return summarize(trials_of(table_of(*trials)), axis).set_index("optimizer")


def test_a_trial_counts_with_its_best_epoch_and_a_diverged_one_as_its_untrained_model():
    trials = trials_of(
        table_of(
            trial("a", 0.1, [0.5, 0.8, 0.7], untrained=0.1),
            trial("a", 1.0, [0.6, math.nan], "diverged", 0.2),
            trial("a", 2.0, [], "out_of_memory", 0.3),
            trial("a", 3.0, [], "failed", math.nan),
            trial("a", 4.0, [0.6], "diverged", workload="unknown"),
        )
    ).set_index(["workload", "initial_lr"])
    assert trials["score"].tolist() == pytest.approx([math.nan, 0.8, 0.2, 0.3, math.nan], nan_ok=True)
    first = trials.loc[("w", 0.1)]
    assert (first["final_score"], first["epochs"], first["seconds"], first["samples"]) == (0.7, 3, 6.0, 300.0)
    assert first["lowest_loss"] == pytest.approx(0.2)
    assert first["untrained_loss"] == pytest.approx(0.9)


def test_a_trial_without_epoch_0_has_the_untrained_model_of_its_workload():
    trials = trials_of(table_of(trial("a", 0.1, [0.5], untrained=0.1), trial("a", 1.0, [0.6], "diverged")))
    assert trials["score"].tolist() == [0.5, 0.1]


def test_sensitivity_clips_what_diverged_at_the_untrained_model():
    row = summary_of(
        trial("a", 0.01, [0.9], untrained=0.1),
        trial("a", 0.1, [0.7], untrained=0.1),
        trial("a", 1.0, [0.05], untrained=0.1),
        trial("a", 10.0, [0.5, math.nan], "diverged", untrained=0.1),
    ).loc["a"]
    assert row["sensitivity"] == pytest.approx((0 + 0.2 + 0.8 + 0.8) / 4)
    assert row["loss_sensitivity"] == pytest.approx((0 + 0.2 + 0.8 + 0.8) / 4)
    assert row["worst"] == pytest.approx(0.05)  # only the sensitivity clips
    assert row["mean"] == pytest.approx((0.9 + 0.7 + 0.05 + 0.1) / 4)
    assert (row["best_at"], row["divergence"]) == (0.01, 0.25)


def test_a_flat_but_bad_optimizer_has_no_sensitivity_and_a_large_regret():
    rows = summary_of(
        *(trial("flat", rate, [0.3], untrained=0.1) for rate in (0.1, 1.0)),
        *(trial("good", rate, [score], untrained=0.1) for rate, score in ((0.1, 0.9), (1.0, 0.7))),
    )
    assert rows.loc["flat", ["best", "sensitivity", "regret"]].tolist() == pytest.approx([0.3, 0, 0.6])
    assert rows.loc["good", ["best", "sensitivity", "regret"]].tolist() == pytest.approx([0.9, 0.1, 0.1])


def test_lower_is_better_turns_best_and_worst_round():
    lower = {"metric": "ppl", "higher_is_better": False}
    row = summary_of(*(trial("a", rate, [30.0, ppl], **lower) for rate, ppl in ((0.1, 20.0), (1.0, 26.0)))).loc["a"]
    assert row[["best", "worst", "range", "sensitivity", "regret"]].tolist() == pytest.approx([20, 26, 6, 3, 3])


def test_one_value_has_no_range_and_a_diverged_one_without_untrained_model_no_mean():
    rows = summary_of(
        trial("one", 0.1, [0.5]),
        *(trial("two", rate, [0.4]) for rate in (0.1, 1.0)),
        trial("two", 10.0, [math.nan], "diverged"),
    )
    assert rows.loc["one", ["deviation", "range", "sensitivity", "basin_1"]].isna().all()
    assert rows.loc["one", "regret"] == pytest.approx(0)
    assert rows.loc["two", ["mean", "worst", "range", "sensitivity", "regret"]].isna().all()
    assert rows.loc["two", "best"] == 0.4
    assert rows.loc["two", "basin_1"] == pytest.approx(1)


def test_the_basin_ends_where_the_line_between_two_values_crosses_the_limit():
    positions, costs = np.array([-3.0, -2.0, -1.0]), np.array([1.2, 1.0, 1.02])
    assert basin_width(positions, costs, 0.05) == pytest.approx(0.25 + 1)
    assert basin_width(positions, costs, 0.01) == pytest.approx(0.05 + 0.5)
    assert basin_width(positions, -100 + costs, 0.01) == pytest.approx(2)
    assert basin_width(positions, np.array([1.0, np.nan, 1.0]), 0.05) == 0


def test_the_learning_rates_are_compared_at_the_batch_size_that_has_most_of_them():
    rows = [trial("a", rate, [0.5], batch_size=size) for size in (8.0, 16.0, 32.0) for rate in (0.1, 1.0)]
    trials = trials_of(table_of(*rows, trial("a", 0.1, [0.5], batch_size=64.0)))
    assert set(axis_trials(trials, "initial_lr")["batch_size"]) == {16.0}


def test_the_batch_sizes_are_compared_at_each_optimizer_s_best_learning_rate():
    rows = [
        trial(label, rate, [0.9 if rate == best else 0.5], batch_size=size)
        for label, best in (("a", 0.1), ("b", 1.0))
        for rate in (0.1, 1.0)
        for size in (8.0, 16.0)
    ]
    trials = axis_trials(trials_of(table_of(*rows, trial("a", 5.0, [0.99], batch_size=8.0))), "batch_size")
    assert trials.groupby("optimizer")["initial_lr"].unique().map(list).to_dict() == {"a": [0.1], "b": [1.0]}
    assert summary_of(*rows, axis="batch_size")["basin_1"].tolist() == pytest.approx([1, 1])  # one doubling


def test_the_expected_best_of_k_is_that_of_all_draws_with_replacement():
    values = np.array([0.2, 0.9, 0.5])
    draws = [max(a, b) for a in values for b in values]
    assert expected_best(values, 1, True) == pytest.approx(values.mean())
    assert expected_best(values, 2, True) == pytest.approx(np.mean(draws))
    assert expected_best(values, 2, False) == pytest.approx(np.mean([min(a, b) for a in values for b in values]))
    trials = trials_of(table_of(*(trial("a", rate, [score]) for rate, score in zip((1, 2, 3), values, strict=True))))
    assert search_costs(trials)["best_of_2"].item() == pytest.approx(np.mean(draws))


def test_the_target_is_reached_at_the_first_epoch_that_is_as_good():
    table = table_of(
        trial("a", 0.1, [0.5, 0.995, 1.0], untrained=0.1),
        trial("a", 1.0, [0.5, 0.6, 0.7], untrained=0.1),
        trial("b", 0.1, [0.99, 0.2, 0.2], untrained=0.1),
        trial("b", 1.0, [1.0, math.nan], "diverged", untrained=0.1),
        trial("b", 2.0, [0.3, 0.4, 0.995], untrained=0.1),
    )
    trials = trials_of(table)
    a, b = time_to_target(costs_to_target(table, trials), trials).to_dict("records")
    assert (a["target"], b["target"]) == pytest.approx((0.95, 0.95))
    assert (a["reached"], a["epochs"], a["samples"], a["seconds"]) == (0.5, math.inf, math.inf, math.inf)
    assert b["reached"] == pytest.approx(2 / 3)
    assert (b["epochs"], b["samples"], b["seconds"]) == (3, 300, 6)


def test_a_profile_is_of_the_ratios_to_the_fastest():
    rows = [
        trial(label, 0.1, [0.1] * (epochs - 1) + [1.0], workload=workload)
        for workload, times in (("v", {"a": 2, "b": 5}), ("w", {"a": 4, "b": 2}))
        for label, epochs in times.items()
    ]
    table = table_of(*rows, trial("c", 0.1, [0.1, 0.1], workload="v"))
    costs = costs_to_target(table, trials_of(table))
    found = ratios(costs)
    assert found.loc["a"].tolist() == [1, 2]
    assert found.loc["c"].tolist() == [math.inf, math.inf]
    assert profile(np.array([1.0, 2.0]), np.array([1.0, 1.9, 2.0])).tolist() == [0.5, 0.5, 1]
    assert benchmark_score(np.array([1.0, 2.0])) == pytest.approx((3 + 2) / 2 / 3)
    scores = profile_scores(costs).set_index("optimizer")["profile_score"]
    assert scores.to_dict() == pytest.approx({"a": 5 / 6, "b": (1.5 + 3) / 6, "c": 0})


def test_in_a_profile_an_optimizer_must_solve_a_workload_at_every_learning_rate():
    table = table_of(
        trial("swept", 0.1, [0.2, 1.0]),
        trial("swept", 1.0, [0.2, 0.3]),
        trial("fixed", 0.5, [1.0, 1.0]),
    )
    found = ratios(costs_to_target(table, trials_of(table)))
    assert found.shape == (2, 2)  # at 0.1 and at 1
    assert found.loc["fixed"].tolist() == [1, 1]
    assert found.loc["swept"].tolist() == [2, math.inf]


def test_pairs_are_tested_as_scipy_does():
    generator = np.random.default_rng(3)
    base, active = generator.normal(20, 1, 8), generator.normal(19, 1, 8)
    lower = {"metric": "ppl", "higher_is_better": False}
    rows = [
        trial(label, 0.1, [score], seed=seed, **lower)
        for label, scores in (("AdamW", base), ("ActiveAdamW", active))
        for seed, score in enumerate(scores)
    ]
    (row,) = paired_tests(trials_of(table_of(*rows, trial("ActiveAdamW", 0.1, [5.0], seed=99, **lower)))).to_dict(
        "records"
    )
    assert (row["pairs"], row["wins"]) == (8, int((active < base).sum()))
    assert row["difference"] == pytest.approx((base - active).mean())
    assert row["p"] == pytest.approx(stats.wilcoxon(base, active).pvalue)


def test_pairs_without_a_difference_have_no_p():
    rows = [trial(label, 0.1, [0.5], seed=seed) for label in ("sgd", "active_sgd") for seed in (0, 1)]
    assert math.isnan(paired_tests(trials_of(table_of(*rows)))["p"].item())


def test_an_interval_holds_the_mean_and_is_a_point_for_equal_seeds():
    noise = {0: -0.02, 1: 0.0, 2: 0.03}
    rows = [
        trial(label, rate, [score + (noise[seed] if label == "noisy" else 0)], seed=seed)
        for label in ("noisy", "equal")
        for rate, score in ((0.1, 0.5), (1.0, 0.8))
        for seed in noise
    ]
    trials = trials_of(table_of(*rows, trial("single", 0.1, [0.5])))
    found = intervals(trials, "initial_lr").set_index("optimizer")
    summary = summarize(trials, "initial_lr").set_index("optimizer")
    for name in ("mean", "range", "sensitivity"):
        low, high = found[f"{name}_low"], found[f"{name}_high"]
        assert low["noisy"] < summary.loc["noisy", name] < high["noisy"]
        assert low["equal"] == pytest.approx(high["equal"])
        assert low["equal"] == pytest.approx(summary.loc["equal", name])
    assert found.loc["single"].drop("workload").isna().all()


def test_labels_tell_the_base_and_its_suffix():
    assert family_of("Active_AdamW (schedule=cosine)") == ("adamw", "schedule=cosine")
    labels = [
        "prodigy",
        "ActiveBelief",
        "AdaBelief",
        "active_adamw (a=1)",
        "AdamW",
        "adamw (a=1)",
        "activeradam",
        "sgd",
    ]
    assert pairs(labels) == {"ActiveBelief": "AdaBelief", "active_adamw (a=1)": "adamw (a=1)"}
    assert ordered(labels)[:4] == ["AdaBelief", "ActiveBelief", "adamw (a=1)", "active_adamw (a=1)"]
    looks = styles(labels)
    assert (looks["AdaBelief"].color, looks["AdaBelief"].linestyle) == (looks["ActiveBelief"].color, "--")
    assert len({(look.color, look.marker) for look in looks.values()}) == 6
