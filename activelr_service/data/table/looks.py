"""Warnings about a table: constants, identifiers, copies of the target, and rows that are in both parts."""

from collections.abc import Iterator

import numpy as np

from activelr_service.config.data import CategoryColumn, NumberColumn, TableDataConfig
from activelr_service.data.table.cells import Cells, Part
from activelr_service.data.table.fit import LARGEST_INTEGER_CLASS_COUNT, find, is_constant, scale

_HEAD = 1_000  # rows that are compared first; they decide for most columns
_LEAST_ROWS = 20  # with fewer rows any column can look like a row number or like the target
_LARGEST_EXACT, _LARGEST_INTEGER = 2.0**53, 1e25  # larger integers are hardly identifiers
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def look_at_column(column: NumberColumn | CategoryColumn, cells: Cells, train: Part) -> Iterator[str]:
    """Warnings about one column."""
    values = cells.values[train.rows]
    if isinstance(column, CategoryColumn):
        if len(column.categories) == 1 and (values >= 0).all():
            yield f"the column {column.name!r} is {column.categories[0]!r} in every training row, and tells nothing"
        if len(column.categories) == len(values) >= _LEAST_ROWS:
            yield f"the column {column.name!r} has another text in every training row, like a name; see data.ignore"
        return
    if np.isnan(values).all():
        yield f"the column {column.name!r} has no value in the training rows, and tells nothing"
        return
    largest = np.nanmax(np.abs(values))
    if largest > _LARGEST_EXACT and (values % 1 == 0).all() and largest < _LARGEST_INTEGER:
        text = "has integers beyond 2**53, of which neighbors are read as one number, and looks like an identifier"
        yield f"the column {column.name!r} {text}; see data.ignore"
    elif is_constant(values[~np.isnan(values)]):
        yield f"the column {column.name!r} is {column.mean:g} in every training row, and tells nothing; it is not scaled"
    elif largest > _LARGEST_FLOAT32:
        row = train.rows[np.nanargmax(np.abs(values))] + 1
        text = f"the column {column.name!r} has values up to {largest:g} (row {row}), more than float32 holds"
        yield f"{text}; correct them if they are wrong"
    elif len(values) >= _LEAST_ROWS and (np.diff(cells.values) == 1).all():
        yield f"the column {column.name!r} counts the rows; see data.ignore"


def look_at_target(config: TableDataConfig, train: Part) -> Iterator[str]:
    """A warning for each column that gives the target away, and for a number as the target that may be a class."""
    if len(train.rows) < _LEAST_ROWS:
        return
    target = train.target.values[train.rows]
    if config.target_column is not None and config.types.get(config.target, config.target_kind) is None:
        yield from _few_values(config.target, target)
    for column, cells in zip(config.columns or [], train.columns, strict=True):
        values = cells.values[train.rows]
        if config.target_column is None:
            is_same = _is_one_to_one(target[:_HEAD], values[:_HEAD]) and _is_one_to_one(target, values)
        elif isinstance(column, NumberColumn):
            scaled = (scale(target, config.target_column), scale(values, column))
            is_same = _is_linear(*(part[:_HEAD] for part in scaled)) and _is_linear(*scaled)
        else:
            is_same = False
        if is_same:
            yield f"the column {column.name!r} gives the target away: each of its values goes with one of {config.target!r}"


def _few_values(name: str, target: np.ndarray) -> Iterator[str]:
    count = len(np.unique(target))
    if count <= LARGEST_INTEGER_CLASS_COUNT and count * 5 <= len(target) and (target % 1 == 0).all():
        text = f"the target {name!r} has only {count} different values, all of them whole, and is read as a number"
        yield f"{text}; for classes, set task: classification"


def _is_one_to_one(a: np.ndarray, b: np.ndarray) -> bool:
    import pandas as pd

    (x, _), (y, _) = pd.factorize(a), pd.factorize(b)
    count = x.max() + 1
    if not (1 < count < len(a) / 2 and y.max() + 1 == count and y.min() >= 0):
        return False
    return len(np.unique(x * np.int64(count) + y)) == count


def _is_linear(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether ``b`` is a linear function of ``a``. It is not if there is a NaN."""
    a, b = a - a.mean(), b - b.mean()
    length = np.sqrt((a**2).sum() * (b**2).sum())
    return bool(length > 0 and np.abs((a * b).sum()) > (1 - 1e-9) * length)


def duplicates(config: TableDataConfig, train: Part, part: Part, split: str) -> Iterator[str]:
    """A warning if rows of the part of another ``split`` have the same inputs and the same target as training rows."""
    is_known = np.isin(_row_hashes(config, part), _row_hashes(config, train))
    if count := int(is_known.sum()):
        row = part.rows[np.flatnonzero(is_known)[0]] + 1
        text = (
            f"{count:,} of {len(part.rows):,} {split} rows are training rows, too, value for value (first: row {row})"
        )
        yield f"{text}; they measure what was learned by heart"


def _row_hashes(config: TableDataConfig, part: Part) -> np.ndarray:
    """Hashes of the rows, uint64 (rows,). Rows that are equal for the model have equal hashes."""
    import pandas as pd

    columns = []
    for column, cells in zip(config.columns or [], part.columns, strict=True):
        values = cells.values[part.rows]
        if isinstance(column, CategoryColumn):
            values = find(cells.names or [], column.categories)[values]
        columns.append(values)
    target = part.target.values[part.rows]
    columns.append(target if config.classes is None else find(part.target.names or [], config.classes)[target])
    return pd.util.hash_pandas_object(pd.DataFrame(dict(enumerate(columns))), index=False).to_numpy()
