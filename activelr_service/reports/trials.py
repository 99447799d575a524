"""Tables of trials: read from a file, and reduced from a row for each epoch to a row for each trial."""

from pathlib import Path

import numpy as np
import pandas as pd
from pandas import DataFrame, Series

from activelr_service.errors import CommandError
from activelr_service.reports.normal_form import COLUMNS, normal_form

KEYS = ["workload", "trial"]
NOT_TRAINED = ("diverged", "out_of_memory")


def trials_of(table: DataFrame) -> DataFrame:
    """One row for each trial of a table in normal form, with its settings, status, reason, metric, and these columns:

    - ``best_score``, ``lowest_loss``: the best of the epochs from 1 on; ``final_score``: the score of the last epoch;
    - ``epochs``, ``seconds``, ``samples``: the whole length of the training;
    - ``untrained_score``, ``untrained_loss``: those of epoch 0. A trial without epoch 0 has the mean of its workload;
    - ``score``, ``loss``: all numbers of a report are made of these two. They are the best score and the lowest
      validation loss. A trial that diverged or ran out of memory has those of its untrained model, or NaN if they are
      unknown. A failed trial has NaN;
    - ``clipped_score``, ``clipped_loss``: the same, but not worse than those of the untrained model;
    - ``test_score``, ``final_test_score``, ``untrained_test_score``: on the test samples, of the epoch with the best score,
      of the last epoch and of epoch 0. NaN where there are none. For a trial that diverged as for ``score``.
    """
    table = table.sort_values([*KEYS, "epoch"], kind="stable")
    table = table if "test_score" in table else table.assign(test_score=np.nan)
    finite = {name: table[name].where(np.isfinite(table[name])) for name in ("score", "val_loss", "test_score")}
    table = table.assign(**finite)
    trials = table.drop_duplicates(KEYS, keep="last").set_index(KEYS)
    trials = trials.drop(columns=["val_loss", "train_loss", "seconds", "samples"])
    trials = trials.rename(columns={"epoch": "epochs", "score": "final_score", "test_score": "final_test_score"})
    trained = table[table["epoch"] >= 1].groupby(KEYS)
    sign = sign_of(trials)
    oriented = table.assign(score=table["score"] * sign_of(table))
    oriented = oriented[(oriented["epoch"] >= 1) & oriented["score"].notna()]
    best = oriented.loc[oriented.groupby(KEYS)["score"].idxmax()].set_index(KEYS)  # the first epoch of the best ones
    trials["best_score"] = best["score"] * sign
    trials["best_test_score"] = best["test_score"]
    trials["lowest_loss"] = trained["val_loss"].min()
    for name in ("seconds", "samples"):
        trials[name] = trained[name].sum(min_count=1)
    trials["final_score"] = trials["final_score"].where(trials["epochs"] >= 1)
    _add_untrained(trials, table)
    _add_what_counts(trials, sign)
    return trials.reset_index()


def sign_of(rows: DataFrame) -> Series:
    """(rows,): 1 where a higher score is better, -1 where a lower one is."""
    return pd.Series(np.where(rows["higher_is_better"], 1.0, -1.0), index=rows.index)


def counted(trials: DataFrame) -> DataFrame:
    """All trials except the failed ones: those failed for a reason that is not the optimizer."""
    return trials[trials["status"] != "failed"]


def _add_untrained(trials: DataFrame, table: DataFrame) -> None:
    untrained = table[table["epoch"] == 0].set_index(KEYS)
    columns = {"untrained_score": "score", "untrained_loss": "val_loss", "untrained_test_score": "test_score"}
    for name, column in columns.items():
        own = untrained[column].reindex(trials.index)
        trials[name] = own.fillna(own.groupby("workload").transform("mean"))


def _add_what_counts(trials: DataFrame, sign: Series) -> None:
    lost, failed = trials["status"].isin(NOT_TRAINED), trials["status"] == "failed"
    for name, best in (("score", "best_score"), ("loss", "lowest_loss"), ("test_score", "best_test_score")):
        trials[name] = trials[best].mask(lost, trials[f"untrained_{name}"]).mask(failed)
    worse_than_untrained = sign * trials["score"] < sign * trials["untrained_score"]
    trials["clipped_score"] = trials["score"].mask(worse_than_untrained, trials["untrained_score"])
    trials["clipped_loss"] = trials["loss"].mask(trials["loss"] > trials["untrained_loss"], trials["untrained_loss"])


def load_table(path: Path, metric: str | None = None, higher_is_better: bool | None = None) -> DataFrame:
    """Read a table of trials from a .csv or .parquet file; ``normal_form`` tells which columns it may have.

    ``metric`` is the column that is the score, and ``higher_is_better`` its direction; give them if the names of the
    columns do not tell them. A table without a column for the workload has one workload, named after the file.

    Raises ``CommandError`` if the file is missing, has another format or cannot be read, and as ``normal_form`` does. A
    pickle is refused, because reading a pickle runs the code in it.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise CommandError(f"{path} is neither a .csv nor a .parquet file; write the table as one of these")
    if not path.is_file():
        raise CommandError(f"no such file: {path}")
    return normal_form(_read(path), str(path), path.stem, metric, higher_is_better)


def _read(path: Path) -> DataFrame:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        # All values are read as text, so that an error can show the text of the file.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except pd.errors.EmptyDataError as error:
        raise CommandError(f"{path} is empty") from error
    except (OSError, ValueError) as error:  # pandas' and pyarrow's errors of parsing are ValueErrors
        raise CommandError(f"{path} cannot be read: {(str(error).splitlines() or ['?'])[0]}") from error
    for name in table.columns.difference(list(COLUMNS)):
        table[name] = _number_if_all_are(table[name])
    return table


def _number_if_all_are(column: pd.Series) -> pd.Series:
    try:
        return pd.to_numeric(column)
    except ValueError:
        return column
