"""How long an optimizer needs to a target score, and the performance profiles that follow over several workloads."""

import numpy as np
import pandas as pd
from pandas import DataFrame, Series

from activelr_service.report.labels import ordered
from activelr_service.report.metrics import Floats, costs_of, worsened
from activelr_service.report.trials import KEYS, NOT_TRAINED, counted, sign_of

TARGET_SHARE = 0.01
LARGEST_RATIO = 4.0  # AlgoPerf's
COSTS = ("epochs", "samples", "seconds")


def with_curves(table: DataFrame) -> set[str]:
    """The workloads with more than one trained epoch of a trial: else there is no telling when a target was reached."""
    rows = table[table["epoch"] >= 1]
    return set(rows.loc[rows.duplicated(KEYS), "workload"])


def targets_of(trials: DataFrame) -> Series:
    """The target of each workload: the best mean score over seeds of any optimizer at any learning rate and batch size,
    worsened by 1 % of itself. A workload of which no score is known has none."""
    rows = counted(trials)
    keys = ["workload", "higher_is_better", "optimizer", "initial_lr", "batch_size"]
    means = rows.groupby(keys, dropna=False)["score"].mean(skipna=False).reset_index()
    lowest = means.assign(cost=costs_of(means)).groupby(["workload", "higher_is_better"])["cost"].min().dropna()
    targets = lowest.map(lambda cost: worsened(cost, TARGET_SHARE)).reset_index()
    return targets.set_index("workload")["cost"] * -sign_of(targets).to_numpy()


def costs_to_target(table: DataFrame, trials: DataFrame) -> DataFrame:
    """A row for each trial: whether it ``reached`` its workload's target, and after how many ``epochs``, ``samples`` and
    ``seconds``: infinite where it missed it, or diverged later.

    The first epoch at the target counts. NaN epochs where the table has no curves and the target was reached, NaN
    samples and seconds where they were not measured.
    """
    rows = counted(trials).set_index(KEYS)
    table = table[table["epoch"] >= 1].sort_values([*KEYS, "epoch"])
    spent = table.groupby(KEYS)[["samples", "seconds"]].cumsum().assign(epochs=table["epoch"].astype(float))
    target = table["workload"].map(targets_of(trials)).astype(float)
    hits = table[sign_of(table) * table["score"] >= sign_of(table) * target][KEYS]
    first = hits.join(spent).drop_duplicates(KEYS).set_index(KEYS).reindex(rows.index)
    reached = pd.Series(rows.index.isin(pd.MultiIndex.from_frame(hits)), rows.index)
    reached &= ~rows["status"].isin(NOT_TRAINED)
    first[~first.index.get_level_values("workload").isin(with_curves(table))] = np.nan
    found = first.where(reached, np.inf)[list(COSTS)].assign(reached=reached)
    return found.assign(optimizer=rows["optimizer"]).reset_index()


def time_to_target(table: DataFrame, trials: DataFrame) -> DataFrame:
    """A row for each workload and optimizer: the ``target``, the share of its trials that ``reached`` it, and the medians
    of ``epochs``, ``samples`` and ``seconds`` over all its trials: no learning rate is chosen for it."""
    if counted(trials).empty:
        return DataFrame(columns=["workload", "optimizer", "target", "trials", "reached", *COSTS])
    costs = costs_to_target(table, trials)
    groups = costs.groupby(["workload", "optimizer"])
    found = groups["reached"].agg(trials="size", reached="mean")
    for name in COSTS:
        found[name] = groups[name].agg(lambda column: np.median(column.to_numpy()))
    found.insert(0, "target", found.index.get_level_values("workload").map(targets_of(trials)))
    places = {label: place for place, label in enumerate(ordered(trials["optimizer"]))}
    found["place"] = found.index.get_level_values("optimizer").map(places)
    return found.sort_values(["workload", "place"]).drop(columns="place").reset_index()


def ratios(times: DataFrame) -> DataFrame:
    """(optimizers, workloads): the median epochs to the target over the least of any optimizer (Dolan & More 2002).

    From ``time_to_target``. Infinite where the optimizer missed the target, or was not run. Workloads without
    curves are left out.
    """
    is_known = times.groupby("workload")["epochs"].transform(lambda column: column.notna().all())
    table = times[is_known.astype(bool)].pivot(index="optimizer", columns="workload", values="epochs").fillna(np.inf)
    least = table.min().where(np.isfinite(table.min()), 1.0)  # where all missed it, all are infinite
    return (table / least).reindex(ordered(table.index))


def profile(ratios_of_one: Floats, tau: Floats) -> Floats:
    """rho(tau), the share of workloads (n,) with a ratio of at most ``tau`` (points,)."""
    return np.mean(ratios_of_one[:, None] <= tau[None], axis=0)


def benchmark_score(ratios_of_one: Floats, largest: float = LARGEST_RATIO) -> float:
    """AlgoPerf's score (Dahl et al. 2023): the mean of rho(tau) for tau from 1 to ``largest``.

    rho is a sum of steps, one for each workload (n,) at its ratio, so the integral is exact.
    """
    return float(np.mean(np.clip(largest - ratios_of_one, 0, None)) / (largest - 1))


def profile_scores(times: DataFrame) -> DataFrame:
    """``benchmark_score`` of each optimizer, the best first, over the workloads of ``time_to_target``: of two at least."""
    found = ratios(times)
    if found.shape[1] < 2:
        return DataFrame(columns=["optimizer", "profile_score"])
    rows = [
        {"optimizer": label, "profile_score": benchmark_score(found.loc[label].to_numpy())} for label in found.index
    ]
    return DataFrame(rows).sort_values("profile_score", ascending=False, kind="stable", ignore_index=True)
