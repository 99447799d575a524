"""95 % intervals of means, ranges and sensitivities: the percentile bootstrap over seeds (Efron 1979)."""

from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from activelr_service.report.metrics import Floats, axis_trials, costs_of

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
