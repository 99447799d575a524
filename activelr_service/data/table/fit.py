"""Computes from the training rows how the model gets each column: scales of numbers, categories, and the target's kind."""

import re
from decimal import Decimal, InvalidOperation

import numpy as np

from activelr_service.config.data import CategoryColumn, NumberColumn, TableDataConfig
from activelr_service.data.table.cells import Cells, Kind, Part, is_whole, read_cells
from activelr_service.data.table.file import TableFile
from activelr_service.data.table.numbers import MISSING_WORDS
from activelr_service.errors import JobError

LARGEST_CATEGORY_COUNT = 256
LARGEST_INTEGER_CLASS_COUNT = 100
FARTHEST = 1e6  # deviations from the mean; the sum of the squares of larger values can overflow float32
_INDEX_NAME = re.compile(r"|Unnamed: ?\d+(_level_\d+)?|__index_level_\d+__")
_ROUNDING = 4 * np.finfo(np.float64).eps  # a column whose values differ by less is constant


def read_target(config: TableDataConfig, file: TableFile, decimal: str) -> Cells:
    """Read the target as classes or as numbers. Raises :class:`JobError` with the first row where it is missing."""
    kind: Kind | None = target_kind(config)
    cells = read_cells(config, file, config.target, kind, decimal)
    _refuse_missing(config, file, cells)
    if kind is not None or cells.names is not None or not is_whole(file, config.target):
        return cells
    is_few = len(np.unique(cells.values)) <= LARGEST_INTEGER_CLASS_COUNT
    return read_cells(config, file, config.target, "category", decimal) if is_few else cells


def target_kind(config: TableDataConfig) -> Kind | None:
    """The kind of the target that the job gives or an earlier run derived; None if its values decide."""
    if config.classes is not None or config.target_column is not None:
        return "number" if config.classes is None else "category"
    kind = config.types.get(config.target, config.target_kind)
    return None if kind == "ignore" else kind


def is_index(file: TableFile, name: str) -> bool:
    """Whether a column holds the row numbers that pandas writes: different integers, with no name or a name of pandas.

    A separator at the end of each line makes a column without a name and without values. It counts as an index, too.
    """
    if not _INDEX_NAME.fullmatch(name):
        return False
    column = file.table.column(name)
    if column.null_count == len(column):
        return True
    return is_whole(file, name) and column.null_count == 0 and len(column.unique()) == len(column)


def fit(config: TableDataConfig, train: Part, val: Part) -> TableDataConfig:
    """Return the config with ``columns`` and with the ``classes`` of both parts, or with ``target_column``."""
    fitted = [_fit_column(config, cells, cells.values[train.rows]) for cells in train.columns]
    targets = [part.target for part in (train, val)]
    if train.target.names is None:
        values = train.target.values[train.rows]
        if is_constant(values):
            raise _is_constant(config, f"{values[0]:g}")
        return config.model_copy(update={"columns": fitted, "target_column": _fit_number(config.target, values)})
    classes = in_order(
        [(target.names or [])[code] for target in targets for code in _used(target.values, target.names or [])]
    )
    if len(classes) < 2:
        raise _is_constant(config, repr(classes[0]))
    return config.model_copy(update={"columns": fitted, "classes": classes})


def is_constant(values: np.ndarray) -> bool:
    """Whether float64 ``values``, which have no NaN, differ by no more than rounding."""
    return bool(values.max() / 2 - values.min() / 2 <= _ROUNDING * np.abs(values).max())


def scale(values: np.ndarray, column: NumberColumn) -> np.ndarray:
    """``(values - mean) / std`` in float64. Halving first keeps the difference of large numbers from overflowing."""
    with np.errstate(over="ignore"):
        return np.asarray((values / 2 - column.mean / 2) / (column.std / 2))


def in_order(names: list[str]) -> list[str]:
    """The different names in order: numbers by value, where 1.50 and 1.5 are one, or texts in alphabetical order."""
    different = sorted(set(names))
    if not all(value_of(name) is not None for name in different) or any(_has_leading_zero(name) for name in different):
        return different
    by_value = {value_of(name): name for name in sorted(different, key=len, reverse=True)}
    return [by_value[value] for value in sorted(by_value, key=lambda value: value or 0)]


def find(names: list[str], known: list[str]) -> np.ndarray:
    """The int64 index in ``known`` of each of ``names``, and -1 at the end. Equal texts match, else equal values (01 is 1).

    An unknown name has the index -1.
    """
    by_name = {name: index for index, name in enumerate(known)}
    by_value = {value_of(name): index for index, name in enumerate(known) if value_of(name) is not None}
    found = [by_name[name] if name in by_name else by_value.get(value_of(name), -1) for name in names]
    return np.array([*found, -1], dtype=np.int64)  # code -1, a missing cell, takes the last


def _fit_column(config: TableDataConfig, cells: Cells, values: np.ndarray) -> NumberColumn | CategoryColumn:
    place = f"the column {cells.name!r} of {config.path}"
    if cells.is_missing().all():
        raise JobError.at("data.path", f"{place} has no value; put it into data.ignore")
    if cells.names is None:
        return _fit_number(cells.name, values[~np.isnan(values)])
    categories = in_order([cells.names[code] for code in _used(values, cells.names)])
    if len(categories) > LARGEST_CATEGORY_COUNT:
        text = f"{place} has {len(categories)} different texts, such as {categories[0][:40]!r}; the most are"
        raise JobError.at("data.path", f"{text} {LARGEST_CATEGORY_COUNT}: put it into data.ignore")
    return CategoryColumn(name=cells.name, categories=categories)


def _fit_number(name: str, values: np.ndarray) -> NumberColumn:
    """The mean and the standard deviation, computed without overflow. The deviation of a constant or of no values is 1."""
    if len(values) == 0:
        return NumberColumn(name=name, mean=0.0, std=1.0)
    if is_constant(values):
        return NumberColumn(name=name, mean=float(values[0]), std=1.0)
    largest = float(np.abs(values).max())
    unit = 1.0 if 1e-100 < largest < 1e100 else largest  # so that squares neither overflow nor vanish
    shifted = values / unit - values[0] / unit  # exact for large numbers that are close together
    mean = (values[0] / unit + shifted.mean()) * unit
    return NumberColumn(name=name, mean=float(mean), std=float(shifted.std() * unit) or 1.0)


def _refuse_missing(config: TableDataConfig, file: TableFile, cells: Cells) -> None:
    is_missing = cells.is_missing()
    shown = ", ".join(repr(text) for text in cells.gaps if text)
    if cells.names is not None and config.classes is None and config.target not in config.types:
        words = [text for text in cells.names if text.lower() in MISSING_WORDS]
        others = [text for text in cells.names if text.lower() not in MISSING_WORDS]
        if words and others and all(value_of(text) is not None for text in others):  # a word among numbers
            is_missing |= np.isin(cells.values, [cells.names.index(text) for text in words])
            shown = ", ".join(map(repr, words))
    rows = np.flatnonzero(is_missing)
    if len(rows):
        text = f"the target {config.target!r} is missing in {len(rows):,} rows, the first of them row {rows[0] + 1}"
        can_be_class = shown and (cells.names is not None or not np.nanmax(np.abs(cells.values % 1)))
        remedy = f", or set data.types: {{{config.target}: category}} if that is a class" if can_be_class else ""
        raise file.error(f"{text}{f' ({shown})' if shown else ''}; take these rows out{remedy}")


def _is_constant(config: TableDataConfig, value: str) -> JobError:
    return JobError.at("data.target", f"the target {config.target!r} of {config.path} is {value} in every row")


def _used(values: np.ndarray, names: list[str]) -> np.ndarray:
    return np.flatnonzero(np.bincount(values[values >= 0], minlength=len(names)))


def value_of(name: str) -> Decimal | None:
    """The exact number that a text is, or None."""
    try:
        value = Decimal(name)
    except InvalidOperation:
        return None
    return value if value.is_finite() and "_" not in name else None


def _has_leading_zero(name: str) -> bool:
    digits = name.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
