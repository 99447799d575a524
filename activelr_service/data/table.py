"""Rows of a .csv or .parquet file, read by pyarrow: numbers are standardised, categories become zeros and ones.

What is learned from the training rows (means, deviations, categories, classes) is written into the resolved job, so that
the same model can be shown other files.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from activelr_service.config import JobError
from activelr_service.config.data import CategoryColumn, NumberColumn, TableDataConfig
from activelr_service.data.info import DataInfo, split_sizes

LARGEST_CATEGORY_COUNT = 256
LARGEST_INTEGER_CLASS_COUNT = 100


def inspect(config: TableDataConfig) -> DataInfo:
    """Reads the whole file: a table fits in memory."""
    if config.columns is None:
        config = prepare(config, Path())
    assert config.columns is not None
    train, val = _read_splits(config)
    width = sum(len(column.categories) if isinstance(column, CategoryColumn) else 1 for column in config.columns)
    info = DataInfo((), train.num_rows, val.num_rows, (width,))
    if config.classes is None:
        return info._replace(tasks=("regression",), num_outputs=1)
    return info._replace(
        tasks=("classification",), num_classes=len(config.classes), classes=tuple(config.classes), num_outputs=1
    )


def prepare(config: TableDataConfig, cache: Path) -> TableDataConfig:
    """The config with ``columns`` and the target's ``classes`` or ``target_column``, from the training rows."""
    if config.columns is not None:
        return config
    train, val = _read_splits(config)
    names = [name for name in train.column_names if name != config.target and name not in config.ignore]
    if not names:
        raise JobError.at("data.path", f"{config.path} has no column besides the target {config.target!r}")
    columns = [_describe_column(config, name, train.column(name)) for name in names]
    target = train.column(config.target)
    values = sorted({*target.unique().to_pylist(), *val.column(config.target).unique().to_pylist()})
    if _is_number(target) and (not _is_integer(target) or len(values) > LARGEST_INTEGER_CLASS_COUNT):
        described = _describe_column(config, config.target, target)
        return config.model_copy(update={"columns": columns, "target_column": described})
    if len(values) < 2:
        raise JobError.at("data.target", f"the target {config.target!r} of {config.path} is {values[0]!r} in every row")
    return config.model_copy(update={"columns": columns, "classes": [_text(value) for value in values]})


def build(config: TableDataConfig) -> tuple[Any, Any]:
    """(train, val) tensor datasets: float32 inputs (rows, width), and int64 classes or float32 standardised targets."""
    import torch
    from torch.utils.data import TensorDataset

    if config.columns is None:
        config = prepare(config, Path())
    tables = _read_splits(config)
    pairs = [(torch.from_numpy(_inputs(config, table)), torch.from_numpy(_targets(config, table))) for table in tables]
    return TensorDataset(*pairs[0]), TensorDataset(*pairs[1])


def _read_splits(config: TableDataConfig) -> tuple[Any, Any]:
    """(train, val) arrow tables; a random share of the rows is held out where there is no file for it."""
    table = _read(config, config.path, "data.path")
    if config.val_path is not None:
        val = _read(config, config.val_path, "data.val_path")
        if missing := sorted(set(table.column_names) - set(val.column_names)):
            raise JobError.at("data.val_path", f"{config.val_path} lacks the columns {', '.join(missing)}")
        return table, val
    order = np.random.default_rng(0).permutation(table.num_rows)
    num_train, _ = split_sizes(table.num_rows, config.val_fraction)
    return table.take(order[:num_train]), table.take(order[num_train:])


def _read(config: TableDataConfig, path: str, location: str) -> Any:
    import pyarrow as pa
    from pyarrow import csv, parquet

    empty_is_missing = csv.ConvertOptions(strings_can_be_null=True)
    readers = {".csv": partial(csv.read_csv, convert_options=empty_is_missing), ".parquet": parquet.read_table}
    if Path(path).suffix not in readers:
        raise JobError.at(location, f"{path} is neither a .csv nor a .parquet file")
    if not Path(path).is_file():
        raise JobError.at(location, f"no such file: {path}")
    try:
        table = readers[Path(path).suffix](path)
    except (pa.ArrowException, OSError) as error:
        raise JobError.at(location, f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    _check_table(config, table, path, location)
    return table


def _check_table(config: TableDataConfig, table: Any, path: str, location: str) -> None:
    names = table.column_names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise JobError.at(location, f"{path} has more than one column {repeated[0]!r}")
    unknown = [name for name in (config.target, *config.ignore) if name not in names]
    if unknown:
        text = f"{path} has no column {unknown[0]!r}; it has {', '.join(names)}"
        raise JobError.at("data.target" if unknown[0] == config.target else "data.ignore", text[:500])
    if table.num_rows < 2:
        raise JobError.at(location, f"{path} has {table.num_rows} rows; at least 2 are needed")
    target = table.column(config.target)
    missing = np.flatnonzero(_missing(target))
    if len(missing):
        text = f"the target {config.target!r} of {path} is missing in {len(missing)} rows, the first of them row"
        raise JobError.at(location, f"{text} {missing[0] + 1}; take these rows out")


def _describe_column(config: TableDataConfig, name: str, column: Any) -> NumberColumn | CategoryColumn:
    import pyarrow as pa

    if _is_number(column):
        values = _numbers(column)
        values = values[np.isfinite(values)]
        if len(values) == 0:
            raise JobError.at(
                "data.path", f"the column {name!r} of {config.path} has no value; put it into data.ignore"
            )
        return NumberColumn(name=name, mean=float(values.mean()), std=float(values.std()) or 1.0)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)):
        text = f"the column {name!r} of {config.path} is {kind}; numbers, text and true or false are read"
        raise JobError.at("data.path", f"{text}: put it into data.ignore")
    categories = sorted({_text(value) for value in column.unique().to_pylist() if value is not None})
    if len(categories) > LARGEST_CATEGORY_COUNT:
        text = f"the column {name!r} of {config.path} has {len(categories)} different texts, more than"
        raise JobError.at("data.path", f"{text} {LARGEST_CATEGORY_COUNT}; put it into data.ignore")
    return CategoryColumn(name=name, categories=categories)


def _inputs(config: TableDataConfig, table: Any) -> np.ndarray:
    assert config.columns is not None
    parts = []
    for column in config.columns:
        if column.name not in table.column_names:
            raise JobError.at(
                "data.path", f"{config.path} has no column {column.name!r}, which the model was trained on"
            )
        values = table.column(column.name)
        if isinstance(column, NumberColumn):
            scaled = (_numbers(values) - column.mean) / column.std
            parts.append(np.where(np.isfinite(scaled), scaled, 0.0)[:, None])
        else:
            texts = np.array([_text(value) for value in values.to_pylist()], dtype=object)
            parts.append(texts[:, None] == np.array(column.categories, dtype=object)[None])
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1)


def _targets(config: TableDataConfig, table: Any) -> np.ndarray:
    column = table.column(config.target)
    if config.target_column is not None:
        return ((_numbers(column) - config.target_column.mean) / config.target_column.std).astype(np.float32)
    assert config.classes is not None
    index = {name: number for number, name in enumerate(config.classes)}
    texts = [_text(value) for value in column.to_pylist()]
    unknown = sorted({text for text in texts if text not in index})
    if unknown:
        text = f"the target {config.target!r} of {config.path} has values the model was not trained on: {unknown[:5]}"
        raise JobError.at("data.path", text)
    return np.array([index[text] for text in texts], dtype=np.int64)


def _is_integer(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(column.type))


def _is_number(column: Any) -> bool:
    import pyarrow as pa

    return any(check(column.type) for check in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def _numbers(column: Any) -> np.ndarray:
    """float64, NaN where a value is missing."""
    import pyarrow as pa

    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _missing(column: Any) -> np.ndarray:
    return ~np.isfinite(_numbers(column)) if _is_number(column) else np.asarray(column.is_null().to_numpy())


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
