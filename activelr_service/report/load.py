"""Tables of trials from a file: a study's own, or results that others published."""

from pathlib import Path

import pandas as pd
from pandas import DataFrame

from activelr_service.errors import CommandError
from activelr_service.report.normal_form import COLUMNS, normal_form


def load_table(path: Path, metric: str | None = None, higher_is_better: bool | None = None) -> DataFrame:
    """The table of a .csv or .parquet file in normal form; ``normal_form`` says what is recognised.

    ``metric`` is the column to take as the score and ``higher_is_better`` its direction, where the names do not say. A
    table without a column for it is of one workload, with the file's name.

    Raises ``CommandError`` for a file that is missing, is neither, or cannot be read, and as ``normal_form`` does. A
    pickle is refused: reading one runs whatever code is in it.
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
        # As texts, so that an error can show what stands in the file.
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
