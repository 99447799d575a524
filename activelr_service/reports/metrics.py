"""How robust an optimizer is along an axis: the initial learning rate, or the batch size.

All numbers are computed from the means over seeds at each value of the axis (``value_means``).

- *LR sensitivity* (Wortsman et al. 2023, arXiv 2309.14322, section 2.2): the mean over the values of
  min(l, l0) - l*. Here l is the cost: the loss, or the score, negated if higher is better. l0 is the cost of the untrained
  model and l* the lowest cost of this optimizer. An optimizer that is equally bad everywhere has a sensitivity of 0, so
  read it together with the best value and the regret.
- *Regret* is the same, but l* is the lowest cost of all optimizers of the workload. It combines quality and robustness.
- *Basin width* is the length of the axis on which the score is within 1 % or 5 % of the best score of this optimizer, in
  decades of the learning rate or in doublings of the batch size. Between two measured values the score is interpolated
  linearly.

A trial that diverged has the score of its untrained model. If that was not measured, the score is unknown, and so are all
numbers that need it. The best value does not need it. For the basin width an unknown score is outside the basin.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas import DataFrame

from activelr_service.reports.labels import OTHER, ordered
from activelr_service.reports.trials import counted

Floats = NDArray[np.float64]
AXES = {"initial_lr": np.log10, "batch_size": np.log2}
BASINS = (0.01, 0.05)
NEED_TWO_VALUES = ("deviation", "range", "sensitivity", "loss_sensitivity", "basin_1", "basin_5")


def axis_trials(trials: DataFrame, axis: str) -> DataFrame:
    """The trials that are compared along an axis, from ``trials_of``. Only the axis and the seed differ between them.

    Along ``initial_lr``: for each workload the trials of one batch size, the one with the most learning rates. If several
    have equally many, it is the middle one. Along ``batch_size``: for each optimizer the trials of one learning rate, the
    one with the most batch sizes. If several have equally many, it is the one with the best mean score.
    """
    trials = counted(trials)
    if trials.empty:
        return trials
    keys = ["workload"] if axis == "initial_lr" else ["workload", "optimizer"]
    choose = _most_learning_rates if axis == "initial_lr" else _most_batch_sizes
    return pd.concat([choose(group) for _, group in trials.groupby(keys, sort=False)], ignore_index=True)


def value_means(trials: DataFrame, axis: str) -> DataFrame:
    """The means over seeds: a row for each workload, optimizer and ``value`` of the axis, in ascending order.

    ``value`` is NaN for an optimizer without a learning rate. The other columns are ``metric``, ``higher_is_better``,
    ``held`` (the value of the other axis), the counts ``trials``, ``diverged`` and ``out_of_memory``, ``score`` and its
    standard ``deviation`` over seeds (n - 1), ``loss``, ``clipped_score`` and ``clipped_loss`` (see ``trials_of``).
    """
    rows = axis_trials(trials, axis)
    rows = rows.assign(value=rows[axis], held=rows[OTHER[axis]], deviation=rows["score"])
    for status in ("diverged", "out_of_memory"):
        rows[status] = rows["status"] == status
    keys = ["workload", "optimizer", "value"]
    groups = rows.groupby(keys, dropna=False)
    means = groups[["score", "loss", "clipped_score", "clipped_loss"]].mean(skipna=False)
    means.insert(1, "deviation", groups["deviation"].std(skipna=False))
    counts = groups[["diverged", "out_of_memory"]].sum().assign(trials=groups.size())
    fixed = groups[["metric", "higher_is_better", "held"]].first()
    return _in_order(pd.concat([fixed, counts, means], axis=1).reset_index())


def summarize(trials: DataFrame, axis: str) -> DataFrame:
    """One row for each workload and optimizer, over the values of the axis.

    In units of the score: ``mean``, standard ``deviation``, ``best``, ``worst`` and ``range`` of the means over seeds,
    ``sensitivity`` and ``regret``. In units of the validation loss: ``loss_best``, ``loss_sensitivity``, ``loss_regret``.
    ``best_at`` is the value with the best score, ``basin_1`` and ``basin_5`` are the basin widths, and ``divergence`` is
    the fraction of trials that diverged.

    For an optimizer with one value, ``deviation``, ``range``, ``sensitivity`` and the basin widths are NaN.
    """
    means = value_means(trials, axis)
    rows = []
    for _, workload in means.groupby("workload", sort=False):
        lowest = costs_of(workload, "clipped_score").min(), workload["clipped_loss"].min()
        rows += [_describe(group, axis, *lowest) for _, group in workload.groupby("optimizer", sort=False)]
    return DataFrame(rows)


def has_axis(means: DataFrame, axis: str) -> bool:
    """Whether a report has a section about an axis, from ``value_means``. Batch sizes have one only if they were varied."""
    return not means.empty and (axis == "initial_lr" or bool(means.duplicated(["workload", "optimizer"]).any()))


def grid(means: DataFrame) -> DataFrame:
    """(optimizers, values): the mean scores of one workload. The values are those of optimizers with more than one."""
    several = means[means.duplicated("optimizer", keep=False)]
    values = sorted(several["value"].dropna().unique())
    table = means[means["value"].isin(values)].pivot(index="optimizer", columns="value", values="score")
    return table.reindex(index=pd.unique(means["optimizer"]), columns=values)


def costs_of(means: DataFrame, column: str = "score") -> pd.Series:
    """The column as a cost, of which lower is better: it is negated where a higher score is better."""
    return means[column].where(~means["higher_is_better"], -means[column])


def sensitivity(costs: Floats, lowest: float | None = None) -> float:
    """The mean of clipped ``costs`` (values,) less the lowest: of these costs (sensitivity), or the given one (regret)."""
    return float(np.mean(costs) - (np.min(costs) if lowest is None else lowest))


def worsened(cost: float, fraction: float) -> float:
    """The cost, made worse by a fraction of itself."""
    return cost + fraction * abs(cost)


def basin_width(positions: Floats, costs: Floats, fraction: float) -> float:
    """The length of the axis on which the cost is at most ``worsened(lowest, fraction)``.

    ``positions`` (values,): ascending, in decades or doublings. ``costs`` (values,): interpolated linearly. The intervals
    on both sides of a NaN are outside.
    """
    limit = worsened(_lowest(costs), fraction)
    low, high = np.minimum(costs[:-1], costs[1:]), np.maximum(costs[:-1], costs[1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = np.where(high <= limit, 1.0, np.clip((limit - low) / (high - low), 0, 1))
    return float(np.sum(np.nan_to_num(inside) * np.diff(positions)))


def _most_learning_rates(workload: DataFrame) -> DataFrame:
    counts = workload.groupby("batch_size", dropna=False)["initial_lr"].nunique()
    most = counts.index[counts == counts.max()]
    return _at(workload, "batch_size", most[(len(most) - 1) // 2])


def _most_batch_sizes(trials: DataFrame) -> DataFrame:
    groups = trials.assign(cost=costs_of(trials)).groupby("initial_lr", dropna=False)
    table = DataFrame({"values": -groups["batch_size"].nunique(), "cost": groups["cost"].mean(skipna=False)})
    return _at(trials, "initial_lr", table.sort_values(["values", "cost"], kind="stable").index[0])


def _at(rows: DataFrame, column: str, value: float) -> DataFrame:
    return rows[rows[column].isna() if np.isnan(value) else rows[column] == value]


def _in_order(means: DataFrame) -> DataFrame:
    """The rows sorted by workload, then by optimizer as in ``labels.ordered``, then by ascending value."""
    places = {label: place for place, label in enumerate(ordered(means["optimizer"]))}
    means = means.assign(place=means["optimizer"].map(places)).sort_values(["workload", "place", "value"])
    return means.drop(columns="place").reset_index(drop=True)


def _describe(group: DataFrame, axis: str, lowest: float, lowest_loss: float) -> dict[str, Any]:
    first = group.iloc[0]
    row = {name: first[name] for name in ("workload", "metric", "higher_is_better", "optimizer")}
    row |= {"axis": axis, "held": first["held"], "values": len(group)}
    row |= {name: int(group[name].sum()) for name in ("trials", "diverged", "out_of_memory")}
    row["divergence"] = row["diverged"] / row["trials"]
    row |= _spread(group) | _sensitivities(group, "clipped_score", "", lowest) | _basins(group, axis)
    row["loss_best"] = _lowest(group["loss"].to_numpy())
    row |= _sensitivities(group, "clipped_loss", "loss_", lowest_loss)
    if len(group) == 1:
        row |= dict.fromkeys(NEED_TWO_VALUES, np.nan)
    return row


def _spread(group: DataFrame) -> dict[str, Any]:
    scores, costs = group["score"].to_numpy(), costs_of(group).to_numpy()
    sign = -1 if group["higher_is_better"].iloc[0] else 1
    is_best = np.flatnonzero(costs == _lowest(costs))
    return {
        "mean": np.mean(scores),
        "deviation": np.std(scores),  # the deviation of exactly these values, not an estimate for other values
        "best": sign * _lowest(costs),
        "best_at": group["value"].iloc[is_best[0]] if len(is_best) else np.nan,
        "worst": sign * np.max(costs),
        "range": np.ptp(scores),
    }


def _sensitivities(group: DataFrame, column: str, prefix: str, lowest: float) -> dict[str, float]:
    costs = (costs_of(group, column) if column == "clipped_score" else group[column]).to_numpy()
    return {f"{prefix}sensitivity": sensitivity(costs), f"{prefix}regret": sensitivity(costs, lowest)}


def _basins(group: DataFrame, axis: str) -> dict[str, float]:
    group = group[group["value"].notna()]
    positions, costs = AXES[axis](group["value"].to_numpy()), costs_of(group).to_numpy()
    return {f"basin_{fraction * 100:.0f}": basin_width(positions, costs, fraction) for fraction in BASINS}


def _lowest(values: Floats) -> float:
    return float(np.nanmin(values)) if not np.isnan(values).all() else np.nan
