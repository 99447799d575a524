"""Statistics over seeds and trials: paired tests, the expected best of a random search, and bootstrap intervals."""

from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame
from scipy import stats

from activelr_service.reports.labels import ordered, pairs
from activelr_service.reports.metrics import Floats, axis_trials, costs_of, value_means
from activelr_service.reports.trials import counted

SEARCHES = (1, 2, 4, 8)
SETTINGS = ["initial_lr", "batch_size", "seed"]


def paired_tests(trials: DataFrame) -> DataFrame:
    """Each ActiveLR optimizer against its baseline: a row for each workload, ``optimizer`` and ``baseline``.

    A pair is two trials of the same initial learning rate, batch size and seed. ``pairs`` is the number of pairs,
    ``difference`` the mean difference of their scores (positive where the ActiveLR variant is better), and ``wins`` the
    number of pairs in which it is better. ``p`` is that of Wilcoxon's two-sided signed-rank test (1945), NaN if all
    scores are equal.
    """
    rows = []
    for workload, group in counted(trials).groupby("workload"):
        found = pairs(group["optimizer"].unique())
        for active in (label for label in ordered(group["optimizer"]) if label in found):
            gains = _gains(group, active, found[active])
            if len(gains):
                rows.append({"workload": workload, "optimizer": active, "baseline": found[active], **_test(gains)})
    return DataFrame(rows, columns=["workload", "optimizer", "baseline", "pairs", "difference", "wins", "p"])


def expected_best(values: Floats, searches: int, higher_is_better: bool) -> float:
    """The expected best of ``searches`` draws with replacement from ``values`` (n,) (Dodge et al. 2019, section 3.1).

    The largest of k draws is at most the i-th smallest of n values with probability (i / n)^k.
    """
    sign = 1.0 if higher_is_better else -1.0
    ascending = np.sort(sign * values)
    below = (np.arange(len(values) + 1) / len(values)) ** searches
    return float(sign * np.sum(ascending * np.diff(below)))


def search_costs(trials: DataFrame, searches: tuple[int, ...] = SEARCHES) -> DataFrame:
    """The expected result of a random search over the learning rates: a row for each workload and optimizer.

    ``best_of_K``, for each K of ``searches``, is the expected best mean score of K learning rates, drawn from the
    ``learning_rates`` that were run.
    """
    rows = []
    means = value_means(trials, "initial_lr")
    for (workload, optimizer), group in means.groupby(["workload", "optimizer"], sort=False):
        values, higher = group["score"].to_numpy(), bool(group["higher_is_better"].iloc[0])
        best = {f"best_of_{k}": expected_best(values, k, higher) for k in searches}
        rows.append({"workload": workload, "optimizer": optimizer, "learning_rates": len(values), **best})
    return DataFrame(rows)


def _gains(group: DataFrame, active: str, baseline: str) -> Floats:
    """(pairs,): how much better the ActiveLR variant is."""
    costs = group.assign(cost=costs_of(group)).groupby(["optimizer", *SETTINGS], dropna=False)["cost"].mean()
    both = pd.merge(*(costs.loc[[label]].reset_index() for label in (baseline, active)), on=SETTINGS)
    gains = (both["cost_x"] - both["cost_y"]).to_numpy()
    return gains[~np.isnan(gains)]


def _test(gains: Floats) -> dict[str, Any]:
    p = float(stats.wilcoxon(gains).pvalue) if np.any(gains) else np.nan
    return {"pairs": len(gains), "difference": float(gains.mean()), "wins": int((gains > 0).sum()), "p": p}


RESAMPLES = 2000  # of the bootstrap
SEED = 0
NAMES = ("mean", "range", "sensitivity")


def intervals(trials: DataFrame, axis: str) -> DataFrame:
    """95 % intervals of mean, range and sensitivity, from the percentile bootstrap over seeds (Efron 1979).

    A row for each workload and optimizer: ``mean_low``, ``mean_high``, and the same for ``range`` and ``sensitivity``.
    The seeds at each value of the axis are drawn again with replacement, the values are not: the intervals tell how much
    other seeds would have changed the numbers. They are NaN if a value has fewer than two seeds. Those of range and
    sensitivity are NaN, too, if there is only one value.
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
    """(resamples, values): means over resampled seeds. ``samples`` has an array (seeds,) for each value of the axis."""
    generator = np.random.default_rng(SEED)  # every optimizer and every call has the same draws
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
    # A score that is not known makes the interval unknown, also if some resamples do not contain it.
    ends = np.percentile(found, [2.5, 97.5], axis=1).T
    return dict(zip(columns, ends.ravel().tolist(), strict=True))


def with_intervals(summary: DataFrame, trials: DataFrame, axis: str) -> DataFrame:
    """The rows of ``metrics.summarize``, with the columns of ``intervals`` added."""
    if summary.empty:
        return summary
    return pd.merge(summary, intervals(trials, axis), on=["workload", "optimizer"], how="left", validate="1:1")
