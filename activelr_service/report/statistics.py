"""Optimizers against each other: each ActiveLR variant and its base trial by trial, and the cost of a random search."""

from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame
from scipy import stats

from activelr_service.report.labels import ordered, pairs
from activelr_service.report.metrics import Floats, axis_trials, costs_of, value_means
from activelr_service.report.trials import counted

SEARCHES = (1, 2, 4, 8)
SETTINGS = ["initial_lr", "batch_size", "seed"]


def paired_tests(trials: DataFrame) -> DataFrame:
    """Each ActiveLR optimizer against its base: a row for each workload, ``optimizer`` and ``base``.

    A pair is two trials of the same initial learning rate, batch size and seed. ``difference`` is the mean difference of
    their scores, positive where the ActiveLR variant is better, ``wins`` counts such pairs among ``pairs``, and ``p`` is
    of Wilcoxon's signed-rank test (1945), two-sided: NaN if no two scores differ.
    """
    rows = []
    for workload, group in counted(trials).groupby("workload"):
        found = pairs(group["optimizer"].unique())
        for active in (label for label in ordered(group["optimizer"]) if label in found):
            gains = _gains(group, active, found[active])
            if len(gains):
                rows.append({"workload": workload, "optimizer": active, "base": found[active], **_test(gains)})
    return DataFrame(rows, columns=["workload", "optimizer", "base", "pairs", "difference", "wins", "p"])


def expected_best(values: Floats, searches: int, higher_is_better: bool) -> float:
    """The expected best of ``searches`` draws from ``values`` (n,), with replacement (Dodge et al. 2019, section 3.1).

    The best of k draws is at most the i-th smallest of n values with probability (i / n)^k.
    """
    sign = 1.0 if higher_is_better else -1.0
    ascending = np.sort(sign * values)
    below = (np.arange(len(values) + 1) / len(values)) ** searches
    return float(sign * np.sum(ascending * np.diff(below)))


def search_costs(trials: DataFrame, searches: tuple[int, ...] = SEARCHES) -> DataFrame:
    """What a random search over the learning rates can expect: a row for each workload and optimizer, ``best_of_K``
    for each K of ``searches``, the expected best mean score of K learning rates drawn from those that were run."""
    rows = []
    means = value_means(trials, "initial_lr")
    for (workload, optimizer), group in means.groupby(["workload", "optimizer"], sort=False):
        values, higher = group["score"].to_numpy(), bool(group["higher_is_better"].iloc[0])
        best = {f"best_of_{k}": expected_best(values, k, higher) for k in searches}
        rows.append({"workload": workload, "optimizer": optimizer, "learning_rates": len(values), **best})
    return DataFrame(rows)


def _gains(group: DataFrame, active: str, base: str) -> Floats:
    """How much better the ActiveLR variant is, a value for each pair."""
    costs = group.assign(cost=costs_of(group)).groupby(["optimizer", *SETTINGS], dropna=False)["cost"].mean()
    both = pd.merge(*(costs.loc[[label]].reset_index() for label in (base, active)), on=SETTINGS)
    gains = (both["cost_x"] - both["cost_y"]).to_numpy()
    return gains[~np.isnan(gains)]


def _test(gains: Floats) -> dict[str, Any]:
    p = float(stats.wilcoxon(gains).pvalue) if np.any(gains) else np.nan
    return {"pairs": len(gains), "difference": float(gains.mean()), "wins": int((gains > 0).sum()), "p": p}


RESAMPLES = 2000
SEED = 0
NAMES = ("mean", "range", "sensitivity")


def intervals(trials: DataFrame, axis: str) -> DataFrame:
    """One row for each workload and optimizer: ``mean_low``, ``mean_high``, and the same of ``range``, ``sensitivity``.

    The seeds are drawn again, with replacement, within each value of the axis, which itself is not drawn: the intervals
    say what other seeds would have changed. NaN where a value has fewer than two seeds, and, for range and sensitivity,
    where there is one value only.
    """
    rows = axis_trials(trials, axis)
    rows = rows.assign(clipped_cost=costs_of(rows, "clipped_score"))
    return DataFrame(
        [
            {"workload": workload, "optimizer": optimizer, **_interval(group, axis)}
            for (workload, optimizer), group in rows.groupby(["workload", "optimizer"], sort=False)
        ]
    )


def resampled_means(samples: list[Floats]) -> Floats:
    """(resamples, values): the means over seeds, for ``samples`` with an array (seeds,) for each value."""
    generator = np.random.default_rng(SEED)  # the same draws for every optimizer, and every time
    draws = [generator.integers(len(values), size=(RESAMPLES, len(values))) for values in samples]
    return np.stack([values[draw].mean(axis=1) for values, draw in zip(samples, draws, strict=True)], axis=1)


def _interval(group: DataFrame, axis: str) -> dict[str, Any]:
    columns = [f"{name}_{end}" for name in NAMES for end in ("low", "high")]
    by_value = [rows for _, rows in group.groupby(axis, dropna=False)]
    if min(map(len, by_value)) < 2:
        return dict.fromkeys(columns, np.nan)
    scores = resampled_means([rows["score"].to_numpy() for rows in by_value])
    costs = resampled_means([rows["clipped_cost"].to_numpy() for rows in by_value])
    found = np.stack([scores.mean(axis=1), np.ptp(scores, axis=1), costs.mean(axis=1) - costs.min(axis=1)])
    if len(by_value) == 1:
        found[1:] = np.nan
    # A trial whose score is not known makes the ends unknown, even if some resamples miss it.
    ends = np.percentile(found, [2.5, 97.5], axis=1).T
    return dict(zip(columns, ends.ravel().tolist(), strict=True))


def with_intervals(summary: DataFrame, trials: DataFrame, axis: str) -> DataFrame:
    """The rows of ``metrics.summarise`` with those of ``intervals``."""
    if summary.empty:
        return summary
    return pd.merge(summary, intervals(trials, axis), on=["workload", "optimizer"], how="left", validate="1:1")
