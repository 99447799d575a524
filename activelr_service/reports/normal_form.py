"""The normal form of a table of trials: a row for each trial and epoch, with the same columns for every source."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame, Series

from activelr_service.errors import CommandError

STATUSES = ("finished", "diverged", "out_of_memory", "failed")
TEXTS = ("workload", "optimizer", "trial", "status", "reason", "metric")
WHOLE = ("seed", "epoch")
POSITIVE = ("initial_lr", "batch_size")
MEASURED = ("score", "val_loss", "train_loss", "seconds", "samples")
COLUMNS = (
    *("workload", "optimizer", "initial_lr", "batch_size", "seed", "trial", "status", "reason"),
    *("epoch", "metric", "higher_is_better", *MEASURED),
)
SETTINGS = [
    "workload",
    "optimizer",
    "initial_lr",
    "batch_size",
    "seed",
]  # all rows of a trial have the same values of these
ALIASES = {
    "workload": ("task", "dataset"),
    "initial_lr": ("lr", "learning_rate"),
    "batch_size": ("global_batch_size",),
    "epoch": ("epochs",),  # a table with one row for each trial has the number of its epochs here
}
DEFAULTS = {**dict.fromkeys((*POSITIVE, *MEASURED), np.nan), "seed": 0, "epoch": 1, "reason": ""}
HIGHER = frozenset({"accuracy", "acc", "top1", "top5", "map", "f1", "bleu"})
LOWER = frozenset({"ppl", "perplexity", "loss", "error"})
TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def normal_form(
    table: DataFrame, place: str, workload: str, metric: str | None = None, higher_is_better: bool | None = None
) -> DataFrame:
    """Check a table and bring it to normal form. A table in normal form stays the same, with its rows numbered from 0.

    ``place`` names the table in errors. ``workload`` is the name of the workload if the table has no column for it.
    ``metric`` is the column that is the score. The default is the column ``score``, or else the column whose name looks
    most like a score: accuracy before loss, validation before training, best before final, left before right.
    ``higher_is_better`` follows from the name of the metric if it is None.

    If the table has no column ``status``, a trial without a finite score in its last row is one that diverged.

    Raises ``CommandError``, with the place, for an empty table, a table without optimizer or metric, a value that is not
    a number, and a trial that has two rows for one epoch or more than one value of a setting.
    """
    if table.empty:
        raise CommandError(f"{place} has no rows")
    table = _with_our_names(table.reset_index(drop=True), place)
    table = _with_score(table, place, metric, higher_is_better)
    for name, value in {"workload": workload, **DEFAULTS}.items():
        if name not in table:
            table[name] = value
    _parse(table, place)
    if "trial" not in table:
        table["trial"] = _names(table)
    if "status" not in table:
        _give_status(table)
    _check(table, place)
    return table[[*COLUMNS, *(name for name in table if name not in COLUMNS)]]


def _with_our_names(table: DataFrame, place: str) -> DataFrame:
    """The table with the names of ``COLUMNS``. Case does not matter; ``ALIASES`` are read if the name is missing."""
    by_lower = {str(name).strip().lower().replace(" ", "_"): name for name in reversed(table.columns)}
    names = {}
    for ours in COLUMNS:
        found = next((by_lower[name] for name in (ours, *ALIASES.get(ours, ())) if name in by_lower), None)
        if found is not None:
            names[found] = ours
    if "optimizer" not in names.values():
        raise CommandError(f"{place} has no column optimizer; it has {_listed(table)}")
    return table.rename(columns=names)


def _with_score(table: DataFrame, place: str, metric: str | None, higher_is_better: bool | None) -> DataFrame:
    has_its_own = {"score", "metric", "higher_is_better"} <= set(table)
    if has_its_own and (metric is None or set(table["metric"]) == {metric}):
        return table
    if metric is None:
        metric = "score" if "score" in table else _find_metric(table, place)
    elif metric not in table:
        raise CommandError(f"{place} has no column {metric!r} to take as the score; it has {_listed(table)}")
    if higher_is_better is None:
        higher_is_better = _direction(metric)
    if higher_is_better is None:
        raise CommandError(
            f"{place}: is a higher {metric} better or worse? Its name does not tell it; give the direction"
        )
    return table.assign(score=table[metric], metric=metric, higher_is_better=higher_is_better)


def _find_metric(table: DataFrame, place: str) -> str:
    """The column whose name looks most like the score of a trial."""
    names = [str(name) for name in table if _direction(str(name)) is not None]
    if not names:
        raise CommandError(f"{place} has no column that looks like a score; name the metric, one of {_listed(table)}")

    def rank(name: str) -> tuple[bool, ...]:
        words = _words(name)
        return (
            "train" in words,
            "loss" in words,
            "best" not in words,
            not words & {"val", "valid", "validation", "test"},
        )

    return min(names, key=rank)


def _direction(name: str) -> bool | None:
    """Whether a higher value of the metric is better. None if its name does not tell it."""
    higher, lower = bool(_words(name) & HIGHER), bool(_words(name) & LOWER)
    return higher if higher != lower else None


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", name.lower()))


def _parse(table: DataFrame, place: str) -> None:
    """Convert every column to its type, in place. Raises ``CommandError`` for a value that has another type."""
    for name in (*POSITIVE, *WHOLE, *MEASURED):
        table[name] = _numbers(table[name], place, name)
    _refuse(table, POSITIVE, place, lambda column: (column <= 0) | np.isinf(column), "is not a positive number")
    _refuse(table, WHOLE, place, lambda column: ~(column % 1 == 0) | (column < 0), "is not a whole number from 0")
    table[list(WHOLE)] = table[list(WHOLE)].astype(int)
    for name in TEXTS:
        if name in table:
            table[name] = table[name].fillna("").astype(str).str.strip()
    table["higher_is_better"] = _truths(table["higher_is_better"], place)
    _refuse(table, ("workload", "optimizer"), place, lambda column: column == "", "is empty: every row needs a name")


def _numbers(column: Series, place: str, name: str) -> Series:
    """The column as float64. An empty text is NaN."""
    if column.dtype.kind in "iuf":
        return column.astype(float)
    texts = column.astype("object").where(column.notna(), "nan").astype(str).str.strip().replace("", "nan")
    numbers = pd.to_numeric(texts, errors="coerce").astype(float)
    wrong = np.flatnonzero(numbers.isna() & (texts.str.lower() != "nan"))
    if len(wrong):
        raise CommandError(f"{place}, row {wrong[0] + 1}, column {name}: {texts.iloc[wrong[0]]!r} is not a number")
    return numbers


def _truths(column: Series, place: str) -> Series:
    found = column.astype(str).str.strip().str.lower().map(TRUTH)
    wrong = np.flatnonzero(found.isna())
    if len(wrong):
        value = str(column.iloc[wrong[0]])
        raise CommandError(f"{place}, row {wrong[0] + 1}, column higher_is_better: {value!r} is not true or false")
    return found.astype(bool)


def _refuse(
    table: DataFrame, names: tuple[str, ...], place: str, is_wrong: Callable[[Series], Series], what: str
) -> None:
    for name in names:
        wrong = np.flatnonzero(is_wrong(table[name]))
        if len(wrong):
            value = table[name].iloc[wrong[0]]
            raise CommandError(f"{place}, row {wrong[0] + 1}, column {name}: {_shown(value)} {what}")


def _names(table: DataFrame) -> list[str]:
    """Names of the trials of a table without the column ``trial``: their settings."""
    rows = table[SETTINGS].itertuples(index=False)
    return [
        f"{row.workload}/{row.optimizer}/lr={row.initial_lr:g}/bs={row.batch_size:g}/seed={row.seed}" for row in rows
    ]


def _give_status(table: DataFrame) -> None:
    keys = ["workload", "trial"]
    ends = table.sort_values("epoch", kind="stable").drop_duplicates(keys, keep="last").set_index(keys)["score"]
    is_lost = ~np.isfinite(ends.reindex(pd.MultiIndex.from_frame(table[keys])).to_numpy())
    table["status"] = np.where(is_lost, "diverged", "finished")
    table.loc[is_lost & (table["reason"] == ""), "reason"] = "no finite score at its end"


def _check(table: DataFrame, place: str) -> None:
    _refuse(table, ("status",), place, lambda column: ~column.isin(STATUSES), f"is not one of {', '.join(STATUSES)}")
    twice = np.flatnonzero(table.duplicated(["workload", "trial", "epoch"]))
    if len(twice):
        row = table.iloc[twice[0]]
        same = (table[["workload", "trial", "epoch"]] == row[["workload", "trial", "epoch"]]).all(axis=1)
        text = f"{place}, rows {np.flatnonzero(same)[0] + 1} and {twice[0] + 1}: epoch {row.epoch} of trial {row.trial}"
        raise CommandError(f"{text} is there twice; add a column seed or trial that tells repeated trials apart")
    for keys, names in ((["workload", "trial"], SETTINGS), (["workload"], ["metric", "higher_is_better"])):
        kinds = table.groupby(keys, sort=False)[names].nunique(dropna=False).stack()
        if (kinds > 1).any():
            *which, name = kinds.index[int(np.argmax(kinds > 1))]
            raise CommandError(f"{place}: {keys[-1]} {which[-1]} has more than one {name}; one is needed")


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"{value:g}"


def _listed(table: DataFrame) -> str:
    return ", ".join(map(str, table))[:500]
