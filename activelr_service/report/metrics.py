"""How robust an optimizer is along an axis: the initial learning rate, or the batch size.

Every number is made of means over seeds, one for each value of the axis (``value_means``).

- *LR sensitivity* (Wortsman et al. 2023, arXiv 2309.14322, section 2.2): the mean over the values of
  min(l, l0) - l*, where l is the cost (the loss, or the score with its sign turned if higher is better), l0 that of the
  untrained model and l* the optimizer's own lowest. A bad optimizer that is as bad everywhere has 0: look at its best
  value and regret too.
- *Regret* is the same with l* the lowest of all optimizers of the workload: quality and robustness in one number.
- *Basin width*: the length, in decades of the learning rate or doublings of the batch size, over which the score is
  within 1 % or 5 % of the optimizer's own best, linear between the values that were run.

A trial that diverged counts as its untrained model. Where that was not measured its value is unknown, and so is every
number that needs it; the best value does not, and in the basin width an unknown value counts as outside.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas import DataFrame

from activelr_service.report.labels import OTHER, ordered
from activelr_service.report.trials import counted

Floats = NDArray[np.float64]
AXES = {"initial_lr": np.log10, "batch_size": np.log2}
BASINS = (0.01, 0.05)
NEED_TWO_VALUES = ("deviation", "range", "sensitivity", "loss_sensitivity", "basin_1", "basin_5")


def axis_trials(trials: DataFrame, axis: str) -> DataFrame:
    """The trials that count along an axis, from ``trials_of``; all others differ in a second thing.

    Along ``initial_lr``: those of one batch size for each workload, the one with the most learning rates, the middle one
    of several. Along ``batch_size``: those of one learning rate for each optimizer, the one with the most batch sizes, of
    several the one with the best mean score, as if it had been tuned.
    """
    trials = counted(trials)
    if trials.empty:
        return trials
    keys = ["workload"] if axis == "initial_lr" else ["workload", "optimizer"]
    choose = _most_learning_rates if axis == "initial_lr" else _most_batch_sizes
    return pd.concat([choose(group) for _, group in trials.groupby(keys, sort=False)], ignore_index=True)


def value_means(trials: DataFrame, axis: str) -> DataFrame:
    """The means over seeds: a row for each workload, optimizer and ``value`` of the axis, ascending, NaN for none.

    Its columns: ``metric``, ``higher_is_better``, ``held`` (the value of the other axis), ``trials``, ``diverged``,
    ``out_of_memory``, ``score`` and its ``deviation`` over seeds (n - 1), ``loss``, and ``clipped_score`` and
    ``clipped_loss``, at worst those of the untrained model.
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


def summarise(trials: DataFrame, axis: str) -> DataFrame:
    """One row for each workload and optimizer, in units of the score: ``mean``, standard ``deviation``, ``best`` (and
    where: ``best_at``), ``worst`` and ``range`` of the means over seeds, ``sensitivity``, ``regret``, the basin widths
    ``basin_1`` and ``basin_5``, and ``divergence``, the share of trials that diverged; in units of the validation loss
    ``loss_best``, ``loss_sensitivity`` and ``loss_regret``.

    ``deviation``, ``range``, ``sensitivity`` and basins of an optimizer that was run at one value only are NaN.
    """
    means = value_means(trials, axis)
    rows = []
    for _, workload in means.groupby("workload", sort=False):
        lowest = costs_of(workload, "clipped_score").min(), workload["clipped_loss"].min()
        rows += [_describe(group, axis, *lowest) for _, group in workload.groupby("optimizer", sort=False)]
    return DataFrame(rows)


def has_axis(means: DataFrame, axis: str) -> bool:
    """Whether there is something to say about an axis, from ``value_means``: of batch sizes, only if one was varied."""
    return not means.empty and (axis == "initial_lr" or bool(means.duplicated(["workload", "optimizer"]).any()))


def grid(means: DataFrame) -> DataFrame:
    """(optimizers, values): the mean scores of one workload, at the values at which an optimizer with several was run."""
    several = means[means.duplicated("optimizer", keep=False)]
    values = sorted(several["value"].dropna().unique())
    table = means[means["value"].isin(values)].pivot(index="optimizer", columns="value", values="score")
    return table.reindex(index=pd.unique(means["optimizer"]), columns=values)


def costs_of(means: DataFrame, column: str = "score") -> pd.Series:
    """The column with its sign turned where higher is better: lower is better in what comes back."""
    return means[column].where(~means["higher_is_better"], -means[column])


def sensitivity(costs: Floats, lowest: float | None = None) -> float:
    """The mean of clipped ``costs`` (values,) above ``lowest``, by default their own: Wortsman et al.'s, or the regret."""
    return float(np.mean(costs) - (np.min(costs) if lowest is None else lowest))


def worsened(cost: float, share: float) -> float:
    """The cost that is worse by a share of itself."""
    return cost + share * abs(cost)


def basin_width(positions: Floats, costs: Floats, share: float) -> float:
    """Length of the part of the axis where the cost is at most ``worsened(lowest, share)``.

    ``positions`` (values,): ascending, in decades or doublings; ``costs`` (values,): linear in between, NaN counts as
    outside together with the parts beside it.
    """
    limit = worsened(_lowest(costs), share)
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
    """Optimizers in the order of ``labels.ordered``, values ascending."""
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
        "deviation": np.std(scores),  # of these values, not an estimate for others
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
    return {f"basin_{share * 100:.0f}": basin_width(positions, costs, share) for share in BASINS}


def _lowest(values: Floats) -> float:
    return float(np.nanmin(values)) if not np.isnan(values).all() else np.nan
