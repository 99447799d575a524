"""All rows of another table, to measure a model on them."""

from pathlib import Path

import numpy as np

from activelr_service.config.data import TableDataConfig
from activelr_service.data.info import DataInfo, shorten
from activelr_service.data.splits import check_known
from activelr_service.data.table import as_dataset, check_has_columns, kinds_of
from activelr_service.data.table.cells import Cells, Part, read_known
from activelr_service.data.table.file import TableFile, read_table_file
from activelr_service.data.table.fit import find, target_kind
from activelr_service.data.table.numbers import infer_decimal
from activelr_service.data.whole import Whole, name_splits

FIELDS = {"path": "train", "val_path": "validation", "test_path": "test"}


def build_whole(config: TableDataConfig, trained: DataInfo, cache: Path) -> list[Whole]:
    """All rows of the files that a prepared config names; a field that is None names none.

    Rows without a target and rows with text in a column of numbers are left out. Raises :class:`JobError` for classes that
    the model does not know, for missing columns, and if no row is left.
    """
    named = {split: (getattr(config, field), f"data.{field}") for field, split in FIELDS.items()}
    return name_splits([_read(config, split, *place) for split, place in named.items() if place[0] is not None])


def _read(config: TableDataConfig, split: str, path: str, location: str) -> Whole:
    file = read_table_file(config, path, location)
    kinds = kinds_of(config)
    check_has_columns(config, file, list(kinds))
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    numbers += [config.target] if config.classes is None else []
    decimal, warning = (config.decimal, None) if config.decimal else infer_decimal(file, numbers)
    read = [read_known(config, file, name, kind, decimal) for name, kind in kinds.items()]
    target, odd_targets = read_known(config, file, config.target, target_kind(config) or "category", decimal)
    is_bad = {
        f"no number as the target {config.target!r}": _at(odd_targets, file),
        f"no target {config.target!r}": target.is_missing(),
        **{f"no number in the column {cells.name!r}": _at(odd, file) for cells, odd in read if len(odd)},
    }
    is_left, left_out = np.zeros(file.table.num_rows, dtype=bool), {}
    for reason, is_so in is_bad.items():
        if count := int((is_so & ~is_left).sum()):
            left_out[f"{reason} (first in row {np.flatnonzero(is_so & ~is_left)[0] + 1})"] = count
        is_left |= is_so
    part = Part(file, [cells for cells, _ in read], target, np.flatnonzero(~is_left))
    _check_classes(config, part)
    if not len(part.rows):
        raise file.error(
            f"no row can be measured: {shorten(f'{n:,} rows: {reason}' for reason, n in left_out.items())}"
        )
    notes = [*file.warnings, *([warning] if warning else []), *_unknown(config, part), *_unused(config, file)]
    return Whole(split, path, as_dataset(config, part), left_out, tuple(notes))


def _at(rows: np.ndarray, file: TableFile) -> np.ndarray:
    mask = np.zeros(file.table.num_rows, dtype=bool)
    mask[rows] = True
    return mask


def _check_classes(config: TableDataConfig, part: Part) -> None:
    """Raise :class:`JobError` with the classes that the model does not know and how many rows have each."""
    if config.classes is None:
        return
    names = np.array(part.target.names or [], dtype=object)
    codes = part.target.values[part.rows]
    is_unknown = find(list(names), config.classes)[codes] < 0
    where = f"the column {config.target!r} of {part.file.path}"
    check_known(names[codes[is_unknown]], config.classes, part.file.location, where)


def _unknown(config: TableDataConfig, part: Part) -> list[str]:
    """A note on the categories that the model does not know."""
    found = []
    for column, cells in zip(config.columns or [], part.columns, strict=True):
        if column_categories := getattr(column, "categories", None):
            values = cells.values[part.rows]
            unknown = values[(values >= 0) & (find(cells.names or [], column_categories)[values] < 0)]
            if len(unknown):
                found.append(f"{column.name} ({len(unknown):,} rows, such as {_name(cells, unknown)!r})")
    return [f"categories that the model does not know, counted as none of them: {shorten(found, 10)}"] if found else []


def _name(cells: Cells, values: np.ndarray) -> str:
    return (cells.names or [])[values[0]]


def _unused(config: TableDataConfig, file: TableFile) -> list[str]:
    used = {config.target, *kinds_of(config)}
    extra = [name for name in file.table.column_names if name not in used]
    return [f"columns of {file.path} that are not used: {shorten(extra, 10)}"] if extra else []
