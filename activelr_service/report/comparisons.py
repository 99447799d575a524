"""Optimizers against each other: each ActiveLR variant and its base trial by trial, and the cost of a random search."""

from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame
from scipy import stats

from activelr_service.report.labels import ordered, pairs
from activelr_service.report.metrics import Floats, costs_of, value_means
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
