"""Tables, read by pyarrow. Numbers are standardized, and categories become zeros and ones.

The means, deviations, categories and classes of the training rows are written into the resolved job, so that the model
can read other files. :mod:`file <activelr_service.data.table.file>` reads files,
:mod:`cells <activelr_service.data.table.cells>` tells numbers from categories,
:mod:`fit <activelr_service.data.table.fit>` computes the means and lists the categories, and
:mod:`notes <activelr_service.data.table.notes>` describes what was read.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from activelr_service.config.data import CategoryColumn, NumberColumn, TableDataConfig
from activelr_service.data.info import DataInfo, shorten
from activelr_service.data.splits import draw_splits
from activelr_service.data.table.cells import Cells, Kind, Part, read_cells
from activelr_service.data.table.file import TableFile, read_table_file
from activelr_service.data.table.fit import FARTHEST, find, fit, is_index, read_target, scale
from activelr_service.data.table.notes import describe
from activelr_service.data.table.numbers import infer_decimal
from activelr_service.errors import JobError

_EXAMINED: dict[Any, tuple[TableDataConfig, DataInfo]] = {}  # the last table only


class _Loaded(NamedTuple):
    config: TableDataConfig
    train: Part
    val: Part
    test: Part | None
    warnings: tuple[str, ...]


def for_task(config: TableDataConfig, task: str) -> TableDataConfig:
    """Return the config that reads the target as classes for classification and as a number for regression."""
    kind = {"classification": "category", "regression": "number"}.get(task)
    given = config.types.get(config.target, kind)
    if kind is None or given == kind:
        return config.model_copy(update={"target_kind": kind})
    text = f"the target {config.target!r} is a {given}, and the task is {task}; change one of them"
    raise JobError.at("data.types", text)


def inspect(config: TableDataConfig) -> DataInfo:
    """Read the whole file, which must fit into memory, and describe it."""
    return _examine(config)[1]


def prepare(config: TableDataConfig, cache: Path) -> TableDataConfig:
    """Return the config with ``columns`` and with ``classes`` or ``target_column``, computed from the training rows."""
    return config if config.columns is not None else _examine(config)[0]


def build(config: TableDataConfig) -> tuple[Any, Any]:
    """Make (train, val) tensor datasets: float32 inputs (width,), and an int64 class or a standardized float32 target."""
    loaded = _load(config)
    return as_dataset(loaded.config, loaded.train), as_dataset(loaded.config, loaded.val)


def build_split(config: TableDataConfig, split: str) -> Any:
    """The dataset of a split, "train", "validation" or "test", as :func:`build` makes them. None if there is no such
    split."""
    loaded = _load(config)
    part = {"train": loaded.train, "validation": loaded.val, "test": loaded.test}[split]
    return part and as_dataset(loaded.config, part)


def as_dataset(config: TableDataConfig, part: Part) -> Any:
    """The tensor dataset of the rows of a part, as the model gets them; ``config`` is prepared."""
    import torch
    from torch.utils.data import TensorDataset

    inputs = inputs_of(config, part.columns, part.rows)
    return TensorDataset(torch.from_numpy(inputs), torch.from_numpy(_targets(config, part)))


def kinds_of(config: TableDataConfig) -> dict[str, Kind]:
    """The kinds of the columns that the model gets, by name and in order; none before the config is prepared."""
    return {c.name: "number" if isinstance(c, NumberColumn) else "category" for c in config.columns or []}


def decimal_of(config: TableDataConfig) -> str:
    """The decimal sign of the file of a prepared config. Raises :class:`JobError` if it cannot be read."""
    file = read_table_file(config, config.path, "data.path")
    return infer_decimal(file, [name for name, kind in kinds_of(config).items() if kind == "number"])[0]


def validation_cells(config: TableDataConfig) -> list[Cells]:
    """The cells of the validation rows of a prepared config, column by column, before they are scaled."""
    val = _load(config).val
    return [cells._replace(values=cells.values[val.rows]) for cells in val.columns]


def _examine(config: TableDataConfig) -> tuple[TableDataConfig, DataInfo]:
    """The prepared config and its description. The last result is kept, because a job is checked more than once when it
    starts. A check of the prepared config then also shows what was found when it was prepared.
    """
    stamps = _stamps(config)
    key = (config.model_dump_json(), stamps)
    if key not in _EXAMINED:
        loaded = _load(config)
        result = (loaded.config, describe(*loaded))
        _EXAMINED.clear()
        _EXAMINED.update({(each.model_dump_json(), stamps): result for each in (config, loaded.config)})
    return _EXAMINED[key]


def _stamps(config: TableDataConfig) -> tuple[Any, ...]:
    """The sizes and times of the files, which change when a file changes."""
    paths = [Path(path) for path in (config.path, config.val_path, config.test_path) if path is not None]
    files = [file for path in paths for file in ([path, *sorted(path.rglob("*"))] if path.is_dir() else [path])]
    return tuple((str(file), *_stamp(os.stat(file))) for file in files if file.exists())


def _stamp(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _load(config: TableDataConfig) -> _Loaded:
    """Read all parts, and compute what the config lacks from the training rows."""
    if config.test_path is not None and config.test_fraction is not None:
        raise JobError.at("data.test_fraction", "there is a test_path already; leave one of the two out")
    file = read_table_file(config, config.path, "data.path")
    _check_names(config, file)
    names = _names(config, file)
    kinds: dict[str, Any] = {name: kind for name, kind in config.types.items() if name in names}
    kinds |= kinds_of(config)
    part, warnings = read_part(config, file, names, kinds)
    labels = None if part.target.names is None else part.target.values
    val_fraction = config.val_fraction if config.val_path is None else None
    drawn = draw_splits(len(part.rows), val_fraction, config.test_fraction, labels)
    train, val, test = (part._replace(rows=rows) for rows in drawn)
    others: dict[str, Part] = {}
    for field, path in (("val_path", config.val_path), ("test_path", config.test_path)):
        if path is not None:
            others[field], more = _read_other(config, path, f"data.{field}", part)
            warnings += more
    val, test = others.get("val_path", val), others.get("test_path", test)
    if config.columns is None:
        config = fit(config, train, val)
    kept, more = _of_known_classes(config, test)
    return _Loaded(config, train, val, kept if len(kept.rows) else None, (*warnings, *more))


def _read_other(config: TableDataConfig, path: str, location: str, train: Part) -> tuple[Part, list[str]]:
    """The rows of another file, read as those of the part to train on."""
    file = read_table_file(config, path, location)
    names = [cells.name for cells in train.columns]
    check_has_columns(config, file, names)
    as_train = config.model_copy(update={"target_kind": train.target.kind()})
    return read_part(as_train, file, names, {cells.name: cells.kind() for cells in train.columns})


def _of_known_classes(config: TableDataConfig, test: Part) -> tuple[Part, list[str]]:
    """The test rows whose class the model has, and a warning for the others, which cannot be scored."""
    if config.classes is None:
        return test, []
    is_known = find(test.target.names or [], config.classes)[test.target.values[test.rows]] >= 0
    if is_known.all():
        return test, []
    names = np.array(test.target.names)[test.target.values[test.rows[~is_known]]]
    text = f"{len(names):,} test rows are not measured: no training row has their class, {shorten(sorted(set(names)))}"
    return test._replace(rows=test.rows[is_known]), [text]


def read_part(
    config: TableDataConfig, file: TableFile, names: list[str], kinds: dict[str, Kind]
) -> tuple[Part, list[str]]:
    """All rows of a file, and warnings on how it was read."""
    decimal: str | None = config.decimal
    warning = None
    if decimal is None:
        may_be_numbers = [name for name in (*names, config.target) if kinds.get(name) != "category"]
        decimal, warning = infer_decimal(file, may_be_numbers)
    if decimal == ",":
        file = file._replace(facts=(*file.facts, "decimal comma"))
    columns = [read_cells(config, file, name, kinds.get(name), decimal) for name in names]
    part = Part(file, columns, read_target(config, file, decimal), np.arange(file.table.num_rows))
    cells_warnings = [text for cells in (*part.columns, part.target) for text in cells.warnings]
    return part, [*file.warnings, *([warning] if warning else []), *cells_warnings]


def _names(config: TableDataConfig, file: TableFile) -> list[str]:
    """The names of the columns that the model gets."""
    there = file.table.column_names
    if config.columns is not None:
        names = [column.name for column in config.columns]
        if missing := [name for name in names if name not in there]:
            raise file.error(f"there is no column {missing[0]!r}, which the model was trained on")
        return names
    names = [name for name in there if name != config.target and name not in config.ignored()]
    names = [name for name in names if name in config.types or not is_index(file, name)]
    if not names:
        raise file.error(f"there is no column besides the target {config.target!r}; if there is, see data.separator")
    return names


def _check_names(config: TableDataConfig, file: TableFile) -> None:
    there = file.table.column_names
    if file.table.num_rows < 2:
        raise file.error(f"the file has {file.table.num_rows} rows; at least 2 are needed")
    places = [("target", config.target), *(("ignore", name) for name in config.ignore)]
    places += [("types", name) for name in config.types]
    for place, name in places:
        if name not in there and (place == "target" or config.columns is None):
            text = f"{file.path} has no column {name!r}; it has {shorten(there, 20)}"
            hint = "; if that is more than one column, set data.separator" if len(there) == 1 else ""
            raise JobError.at(f"data.{place}", text[:500] + hint)
    if config.target in config.ignored():
        raise JobError.at("data.target", f"the target {config.target!r} is among the columns to ignore")


def check_has_columns(config: TableDataConfig, file: TableFile, names: list[str]) -> None:
    """Raise :class:`JobError` if a file lacks the target or one of the columns ``names``, or has no row."""
    if missing := [name for name in (config.target, *names) if name not in file.table.column_names]:
        raise file.error(f"the file lacks the columns {shorten(missing, 10)}")
    if file.table.num_rows < 1:
        raise file.error("the file has no row")


def inputs_of(config: TableDataConfig, columns: list[Cells], rows: np.ndarray) -> np.ndarray:
    """The float32 inputs (rows, width) that the model gets of the cells of its columns, at the indices ``rows``."""
    assert config.columns is not None
    widths = [len(column.categories) if isinstance(column, CategoryColumn) else 1 for column in config.columns]
    inputs = np.zeros((len(rows), sum(widths)), dtype=np.float32)
    order = np.arange(len(rows))
    for start, column, cells in zip(np.cumsum([0, *widths]), config.columns, columns, strict=False):
        values = cells.values[rows]
        if isinstance(column, NumberColumn):
            inputs[:, start] = np.clip(np.nan_to_num(scale(values, column)), -FARTHEST, FARTHEST)
        else:
            codes = find(cells.names or [], column.categories)[values]
            inputs[order[codes >= 0], start + codes[codes >= 0]] = 1
    return inputs


def _targets(config: TableDataConfig, part: Part) -> np.ndarray:
    values = part.target.values[part.rows]
    if config.target_column is not None:
        return scale(values, config.target_column).astype(np.float32)
    assert config.classes is not None
    return find(part.target.names or [], config.classes)[values]
