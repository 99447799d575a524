"""Raw rows of a table, read by the functions that read the training rows."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from activelr_service.data.info import folded, shorten
from activelr_service.data.table import inputs_of, kinds_of
from activelr_service.data.table.cells import Cells, read_known
from activelr_service.data.table.file import TableFile
from activelr_service.data.table.fit import find
from activelr_service.data.table.numbers import shown_decimal
from activelr_service.errors import InputError, JobError
from activelr_service.inference.notes import Notes
from activelr_service.inference.read import Read


class TableRows(NamedTuple):
    """An arrow table that has the columns of the model, and the decimal sign of its texts."""

    table: Any
    decimal: str


class TableReader:
    """Makes the float32 inputs (rows, width) of a model that was trained on the table ``config``."""

    def __init__(self, config: Any) -> None:
        self.config, self.kinds = config, kinds_of(config)
        self.names = list(self.kinds)
        self.numbers = [name for name, kind in self.kinds.items() if kind == "number"]
        self.categories = {
            column.name: column.categories for column in config.columns if column.name not in self.numbers
        }

    def rows(self, frame: Any, notes: Notes) -> TableRows:
        """The rows of a DataFrame. Raises :class:`InputError` if a column is missing or there twice."""
        import pyarrow as pa

        self.check_names([str(name) for name in frame.columns], notes)
        by_name = frame.set_axis([str(name) for name in frame.columns], axis=1)
        return self.rows_of(pa.table({name: _to_arrow(by_name[name]) for name in self.names}), notes)

    def rows_of(self, table: Any, notes: Notes) -> TableRows:
        """The rows of an arrow table that has the columns; its first rows show the decimal sign."""
        for name in self.numbers:
            table = _flags_as_numbers(table, name)
        trained = self.config.decimal
        decimal = shown_decimal(TableFile("the input", "", table), self.numbers) or trained or "."
        if trained is not None and decimal != trained:
            notes.say(f"numbers of the input have the decimal sign {decimal!r}, those trained on had {trained!r}")
        return TableRows(table, decimal)

    def check_names(self, there: list[str], notes: Notes) -> None:
        """Raise :class:`InputError` with all columns that are missing, and those that are there twice."""
        if missing := [name for name in self.names if name not in there]:
            alike = {folded(name): name for name in there}
            close = [f"{name!r} is spelled {alike[folded(name)]!r} there" for name in missing if folded(name) in alike]
            hint = f"; {shorten(close)}" if close else f"; it has {shorten(map(repr, there), 20) or 'no column'}"
            text = f"the input lacks columns that the model was trained on: {shorten(map(repr, missing), len(missing))}"
            raise InputError(text + hint)
        if twice := [name for name in self.names if there.count(name) > 1]:
            raise InputError(f"the input has more than one column {twice[0]!r}; rename one")
        target = self.config.target
        extra = [repr(name) + " (the target)" * (name == target) for name in there if name not in self.names]
        if extra:
            notes.say(f"columns that are not used: {shorten(extra, 10)}")

    def batches(self, rows: TableRows, batch_size: int, notes: Notes) -> Iterator[Read]:
        """The rows in batches. A row with a cell that is no number in a column of numbers is bad."""
        for start in range(0, rows.table.num_rows, batch_size):
            yield self._read(rows.table.slice(start, batch_size), rows.decimal, notes)

    def _read(self, table: Any, decimal: str, notes: Notes) -> Read:
        import torch

        file = TableFile("the input", "", table)
        errors: dict[int, str] = {}
        cells = [self._cells(file, name, decimal, errors, notes) for name in self.names]
        good = np.setdiff1d(np.arange(table.num_rows), [*errors])
        return Read(torch.from_numpy(inputs_of(self.config, cells, good)), good, errors, table.num_rows)

    def _cells(self, file: TableFile, name: str, decimal: str, errors: dict[int, str], notes: Notes) -> Cells:
        try:
            cells, odd_rows = read_known(self.config, file, name, self.kinds[name], decimal)
        except JobError as error:
            kind = file.table.column(name).type
            raise InputError(
                f"the column {name!r} is of type {kind}; only numbers, text and true or false are read"
            ) from error
        texts = file.table.column(name)
        for row in odd_rows.tolist():
            errors.setdefault(row, f"column {name!r}: {str(texts[row].as_py())[:40]!r} is no number")
        if name in self.categories:
            _count_unknown(name, self.categories[name], cells, notes)
        return cells


def _count_unknown(name: str, categories: list[str], cells: Cells, notes: Notes) -> None:
    names = cells.names or []
    is_unknown = find(names, categories)[:-1] < 0
    counts = np.bincount(cells.values[cells.values >= 0], minlength=len(names))
    unknown = {names[code]: int(counts[code]) for code in np.flatnonzero(is_unknown) if counts[code]}
    if unknown:
        notes.count_unknown(name, Counter(unknown))


def _to_arrow(column: Any) -> Any:
    """A column of a DataFrame as an arrow array; values of several types become texts."""
    import pandas as pd
    import pyarrow as pa

    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError, TypeError):
        is_missing = pd.isna(column).tolist()
        texts = [None if gap else str(value) for value, gap in zip(column.tolist(), is_missing, strict=True)]
        return pa.array(texts, pa.large_string())


def _flags_as_numbers(table: Any, name: str) -> Any:
    """The table with a column of true and false as 1 and 0."""
    import pyarrow as pa

    column = table.column(name)
    if not pa.types.is_boolean(column.type):
        return table
    return table.set_column(table.column_names.index(name), name, column.cast(pa.int8()))
