"""The time that an optimizer needs to reach a target score, and performance profiles over several workloads."""

import numpy as np
import pandas as pd
from pandas import DataFrame, Series

from activelr_service.reports.labels import ordered
from activelr_service.reports.metrics import Floats, axis_trials, costs_of, worsened
from activelr_service.reports.trials import KEYS, NOT_TRAINED, sign_of

TARGET_FRACTION = 0.05  # the target is worse than the best score by this fraction
LARGEST_RATIO = 4.0  # as in AlgoPerf
COSTS = ("epochs", "samples", "seconds")


def with_curves(table: DataFrame) -> set[str]:
    """The workloads that have a trial with more than one epoch. Only they show when a target was reached."""
    rows = table[table["epoch"] >= 1]
    return set(rows.loc[rows.duplicated(KEYS), "workload"])


def targets_of(trials: DataFrame) -> Series:
    """The target score of each workload: its best mean score over seeds, made worse by 5 % of itself.

    The best is taken over all optimizers and learning rates, at the batch size of ``axis_trials``. A workload without a
    known score has no target.
    """
    rows = axis_trials(trials, "initial_lr")
    keys = ["workload", "higher_is_better", "optimizer", "initial_lr"]
    means = rows.groupby(keys, dropna=False)["score"].mean(skipna=False).reset_index()
    lowest = means.assign(cost=costs_of(means)).groupby(["workload", "higher_is_better"])["cost"].min().dropna()
    targets = lowest.map(lambda cost: worsened(cost, TARGET_FRACTION)).reset_index()
    return targets.set_index("workload")["cost"] * -sign_of(targets).to_numpy()


def costs_to_target(table: DataFrame, trials: DataFrame) -> DataFrame:
    """A row for each trial along the learning rate (``axis_trials``): whether and when it ``reached`` the target.

    ``epochs``, ``samples`` and ``seconds`` are the costs up to the end of the first epoch at the target. They are infinite
    if the trial missed the target or diverged later. Epochs are NaN if the workload has no curves; samples and seconds are
    NaN if they were not measured.
    """
    rows = axis_trials(trials, "initial_lr").set_index(KEYS)
    is_counted = (table["epoch"] >= 1) & table["trial"].isin(rows.index.get_level_values("trial"))
    table = table[is_counted].sort_values([*KEYS, "epoch"])
    spent = table.groupby(KEYS)[["samples", "seconds"]].cumsum().assign(epochs=table["epoch"].astype(float))
    target = table["workload"].map(targets_of(trials)).astype(float)
    hits = table[sign_of(table) * table["score"] >= sign_of(table) * target][KEYS]
    first = hits.join(spent).drop_duplicates(KEYS).set_index(KEYS).reindex(rows.index)
    reached = pd.Series(rows.index.isin(pd.MultiIndex.from_frame(hits)), rows.index)
    reached &= ~rows["status"].isin(NOT_TRAINED)
    first[~first.index.get_level_values("workload").isin(with_curves(table))] = np.nan
    found = first.where(reached, np.inf)[list(COSTS)].assign(reached=reached)
    return found.assign(optimizer=rows["optimizer"], initial_lr=rows["initial_lr"]).reset_index()


def time_to_target(costs: DataFrame, trials: DataFrame) -> DataFrame:
    """A row for each workload and optimizer, from ``costs_to_target``.

    ``target`` is the target score, ``reached`` the fraction of the trials that reached it, and ``epochs``, ``samples`` and
    ``seconds`` are medians over all trials. So no optimizer gets the benefit of its best learning rate.
    """
    if costs.empty:
        return DataFrame(columns=["workload", "optimizer", "target", "trials", "reached", *COSTS])
    groups = costs.groupby(["workload", "optimizer"])
    found = groups["reached"].agg(trials="size", reached="mean")
    for name in COSTS:
        found[name] = groups[name].agg(lambda column: np.median(column.to_numpy()))
    found.insert(0, "target", found.index.get_level_values("workload").map(targets_of(trials)))
    places = {label: place for place, label in enumerate(ordered(trials["optimizer"]))}
    found["place"] = found.index.get_level_values("optimizer").map(places)
    return found.sort_values(["workload", "place"]).drop(columns="place").reset_index()


def ratios(costs: DataFrame) -> DataFrame:
    """(optimizers, problems): performance ratios (Dolan & More 2002), from ``costs_to_target``.

    A problem is a workload at one learning rate: an optimizer that needs another learning rate does not solve it. The ratio
    is the median number of epochs to the target over seeds, divided by the smallest such number of any optimizer and
    learning rate of the workload. An optimizer that was run at one learning rate has this number in all problems of the
    workload. The ratio is infinite if the optimizer missed the target or was not run. Workloads without curves are left out.
    """
    problems = [_problems(rows) for _, rows in costs.groupby("workload") if rows["epochs"].notna().all()]
    if not problems:
        return DataFrame()
    found = pd.concat(problems, axis=1).fillna(np.inf)
    return found.reindex(ordered(found.index))


def _problems(costs: DataFrame) -> DataFrame:
    """(optimizers, learning rates): the ratios of one workload."""
    rates = costs["initial_lr"].fillna(0.0)  # the key of optimizers without a learning rate
    times = costs.groupby(["optimizer", rates])["epochs"].agg(lambda column: np.median(column.to_numpy())).unstack()
    is_swept = times.notna().sum(axis=1) > 1
    swept = times.loc[is_swept].dropna(axis=1, how="all") if is_swept.any() else times.max(axis=1).to_frame()
    own = times.max(axis=1)  # the one value of an optimizer that was run at one learning rate
    found = DataFrame({rate: swept[rate].reindex(times.index) for rate in swept.columns})
    found.loc[~is_swept] = np.tile(own[~is_swept].to_numpy()[:, None], found.shape[1])
    least = np.nanmin(found.to_numpy())
    found.columns = pd.Index([f"{costs['workload'].iloc[0]} at {rate:g}" for rate in found.columns])
    return found.fillna(np.inf) / (
        least if np.isfinite(least) else 1.0
    )  # all are infinite if every optimizer missed the target


def profile(ratios_of_one: Floats, tau: Floats) -> Floats:
    """(points,): rho(tau), the fraction of the problems (n,) with a ratio of at most ``tau`` (points,)."""
    return np.mean(ratios_of_one[:, None] <= tau[None], axis=0)


def benchmark_score(ratios_of_one: Floats, largest: float = LARGEST_RATIO) -> float:
    """The benchmark score of AlgoPerf (Dahl et al. 2023): the mean of rho(tau) for tau from 1 to ``largest``.

    rho is a step function with a step at the ratio of each problem (n,), so the mean is exact.
    """
    return float(np.mean(np.clip(largest - ratios_of_one, 0, None)) / (largest - 1))


def profile_scores(costs: DataFrame) -> DataFrame:
    """``benchmark_score`` of each optimizer over all problems, the best first. Empty for fewer than two problems."""
    found = ratios(costs)
    if found.shape[1] < 2:
        return DataFrame(columns=["optimizer", "profile_score"])
    rows = [
        {"optimizer": label, "profile_score": benchmark_score(found.loc[label].to_numpy())} for label in found.index
    ]
    return DataFrame(rows).sort_values("profile_score", ascending=False, kind="stable", ignore_index=True)
