"""The notes and warnings about a table."""

from collections.abc import Iterator

import numpy as np

from activelr_service.config.data import CategoryColumn, NumberColumn, TableDataConfig
from activelr_service.data.info import DataInfo, describe_classes, shorten
from activelr_service.data.table.cells import Cells, Part
from activelr_service.data.table.fit import FARTHEST, find, is_index, is_whole, scale, value_of
from activelr_service.data.table.looks import duplicates, look_at_column, look_at_target

_MOST_NAMES, _MOST_LINES = 10, 20
_NO_CLASSES = {"?", "??", "-", "--", ".", "n/a", "n.a.", "#n/a", "<na>", "nan", "null", "(null)", "#ref!", "#value!"}


def describe(config: TableDataConfig, train: Part, val: Part, test: Part | None, warnings: tuple[str, ...]) -> DataInfo:
    """Describe the table of a prepared config. Raises :class:`JobError` for a validation target that cannot be scored."""
    assert config.columns is not None
    width = sum(len(column.categories) if isinstance(column, CategoryColumn) else 1 for column in config.columns)
    notes = [*_files(config, train, val), *_test(config, train, test), *_columns(config, train), *_gaps(train, val)]
    unknown: list[str] = []
    looks = [*warnings, *_header(train)]
    for column, cells, val_part in zip(config.columns, train.columns, val.columns, strict=True):
        looks += look_at_column(column, cells, train)
        noted, warned = _describe_val(column, val_part, val)
        unknown, looks = unknown + noted, looks + warned
    notes += _some(unknown)
    looks += [*look_at_target(config, train), *duplicates(config, train, val, "validation")]
    info = DataInfo((), len(train.rows), len(val.rows), (width,), num_outputs=1)
    if test is not None:
        looks += duplicates(config, train, test, "test")
        info = info._replace(num_test=len(test.rows))
    if config.classes is None:
        assert config.target_column is not None
        notes.append(_number_target(config, train, val))
        info = info._replace(tasks=("regression",), target_scale=config.target_column.std)
        return info._replace(notes=tuple(notes), warnings=tuple(_some(looks)))
    classes = tuple(config.classes)
    parts = [part for part in (train, val, test) if part is not None]
    num_train, num_val, *more = (np.bincount(_class_numbers(config, part), minlength=len(classes)) for part in parts)
    counted, warned = describe_classes(classes, num_train, num_val, test=more[0] if more else None)
    looks += _no_classes(config)
    return info._replace(
        tasks=("classification",),
        num_classes=len(classes),
        classes=classes,
        notes=(*notes, _class_target(config, train), *counted),
        warnings=(*_some(looks), *warned),
        class_counts=tuple(num_train.tolist()),
    )


def _files(config: TableDataConfig, train: Part, val: Part) -> Iterator[str]:
    for part in [train] if val.file is train.file else [train, val]:
        table = part.file.table
        facts = "".join(f"; {fact}" for fact in part.file.facts)
        yield f"{part.file.path}: {table.num_rows:,} rows, {table.num_columns:,} columns{facts}"
    if val.file is not train.file:
        extra = [name for name in val.file.table.column_names if name not in train.file.table.column_names]
        yield f"validation: the {len(val.rows):,} rows of {val.file.path}"
        if extra:
            yield f"columns of {val.file.path} that are not used: {shorten(list(map(repr, extra)), _MOST_NAMES)}"
        return
    share = "" if config.classes is None else ", from each class its share"
    yield f"validation: {len(val.rows):,} of {train.file.table.num_rows:,} rows, drawn with seed 0{share}"


def _test(config: TableDataConfig, train: Part, test: Part | None) -> Iterator[str]:
    if test is None:
        return
    source = f"the {len(test.rows):,} rows of {test.file.path}"
    if test.file is train.file:
        share = "" if config.classes is None else ", from each class its share"
        source = f"{len(test.rows):,} of {train.file.table.num_rows:,} rows, drawn with seed 1{share}"
    yield f"test: {source}; measured once, at the end"


def _columns(config: TableDataConfig, train: Part) -> Iterator[str]:
    columns = config.columns or []
    numbers = [column.name for column in columns if isinstance(column, NumberColumn)]
    texts = [f"{c.name} ({len(c.categories)})" for c in columns if isinstance(c, CategoryColumn)]
    if numbers:
        yield f"columns of numbers ({len(numbers):,}): {shorten(numbers, _MOST_NAMES)}"
    if texts:
        yield f"columns of categories ({len(texts):,}), with how many: {shorten(texts, _MOST_NAMES)}"
    grouped = [f"{cells.name} ({cells.grouped!r})" for cells in train.columns if cells.grouped]
    if grouped:
        yield f"numbers whose digits are in groups: {shorten(grouped, _MOST_NAMES)}"
    used = {config.target, *(column.name for column in columns)}
    left = [name for name in train.file.table.column_names if name not in used]
    index = [name for name in left if name not in config.ignored() and is_index(train.file, name)]
    others = [name for name in left if name not in {*config.ignored(), *index}]
    for names, reason in (
        ([name for name in left if name in config.ignored()], "as the job says"),
        (index, "row numbers, or empty and without a name"),
        (others, "the model was not trained on them"),
    ):
        if names:
            yield f"columns left out ({reason}): {shorten(list(map(repr, names)), _MOST_NAMES)}"


def _gaps(train: Part, val: Part) -> Iterator[str]:
    for part in [train] if val.file is train.file else [train, val]:
        lines = [f"{cells.name}: {_gap(cells)}" for cells in part.columns if cells.gaps]
        if lines:
            way = "a number counts as the mean, a category as none of them"
            yield f"missing in {part.file.path} ({way}): {'; '.join(lines[:_MOST_LINES])}" + _more(lines)


def _gap(cells: Cells) -> str:
    counts = [(repr(text) if text else "empty", *gap) for text, gap in cells.gaps.items()]
    return ", ".join(f"{rows:,} {text} (first in row {row})" for text, rows, row in counts)


def _more(lines: list[str]) -> str:
    return f"; and {len(lines) - _MOST_LINES:,} columns more" if len(lines) > _MOST_LINES else ""


def _some(lines: list[str]) -> list[str]:
    """The first lines, and how many more there are: a table can have thousands of columns."""
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], f"and {more:,} more of this kind"] if more > 0 else lines


def _header(train: Part) -> Iterator[str]:
    names = train.file.table.column_names
    if train.file.separator is not None and all(value_of(name) is not None for name in names):
        yield f"the first line of {train.file.path} looks like data, and names the columns: {shorten(names, 5)}"


def _describe_val(column: NumberColumn | CategoryColumn, cells: Cells, val: Part) -> tuple[list[str], list[str]]:
    """(notes, warnings) on values of the validation rows that the training rows do not have."""
    values = cells.values[val.rows]
    place = f"the column {column.name!r} of the validation rows"
    if isinstance(column, NumberColumn):
        far = np.flatnonzero(np.abs(scale(values, column)) > FARTHEST)
        if len(far) == 0:
            return [], []
        row, value = val.rows[far[0]] + 1, values[far[0]]
        text = (
            f"{place} has values more than {FARTHEST:,.0f} deviations from the mean of the training rows, cut off there"
        )
        return [], [f"{text}: {len(far):,}, the first {value:g} in row {row}"]
    codes, is_there = find(cells.names or [], column.categories)[values], values >= 0
    unknown = is_there & (codes < 0)
    if not unknown.any():
        return [], []
    first = int(np.flatnonzero(unknown)[0])
    name = (cells.names or [])[values[first]]
    text = f"{place} has categories that no training row has, counted as none: in {unknown.sum():,} of {len(values):,} rows,"
    text += f" such as {name!r} in row {val.rows[first] + 1}"
    return ([], [text]) if unknown.sum() == is_there.sum() else ([text], [])


def _class_numbers(config: TableDataConfig, part: Part) -> np.ndarray:
    """The int64 class of each row (rows,). Raises :class:`JobError` with the classes that the model does not know."""
    names, classes = part.target.names or [], config.classes or []
    numbers = find(names, classes)[part.target.values[part.rows]]
    if (numbers < 0).any():
        unknown = sorted({names[code] for code in part.target.values[part.rows][numbers < 0]})
        row = part.rows[np.flatnonzero(numbers < 0)[0]] + 1
        text = f"the target {config.target!r} has classes that the model was not trained on"
        raise part.file.error(f"{text}, the first in row {row}: {shorten(list(map(repr, unknown)), 5)}")
    return np.asarray(numbers)


def _class_target(config: TableDataConfig, train: Part) -> str:
    count = f"the target {config.target!r} is read as {len(config.classes or [])} classes"
    if config.types.get(config.target, config.target_kind) is None and is_whole(train.file, config.target):
        return f"{count}, since it has few different integers; to predict the number, set task: regression"
    return count


def _no_classes(config: TableDataConfig) -> Iterator[str]:
    """A warning for classes that look like a missing value, unless the job says that they are classes."""
    names = [repr(name) for name in config.classes or [] if name.lower() in _NO_CLASSES]
    if names and config.target not in config.types:
        text = (
            f"the target {config.target!r} has the class {shorten(names)}, which looks like a missing value; if it is"
        )
        yield f"{text} one, take these rows out; if not, set data.types: {{{config.target}: category}}"


def _number_target(config: TableDataConfig, train: Part, val: Part) -> str:
    column = config.target_column
    assert column is not None
    scaled = scale(val.target.values[val.rows], column)
    far = np.flatnonzero(np.abs(scaled) > FARTHEST)
    if len(far):
        row, value = val.rows[far[0]] + 1, val.target.values[val.rows[far[0]]]
        text = f"the target {config.target!r} is {value:g} in row {row}, too far from the training rows"
        raise val.file.error(f"{text} (mean {column.mean:g}, deviation {column.std:g}); correct it or take the row out")
    text = f"the target {config.target!r} is read as a number, of mean {column.mean:g} and deviation {column.std:g}"
    if config.types.get(config.target, config.target_kind) is None and is_whole(train.file, config.target):
        text += ", since it has more than 100 different integers; for classes, set task: classification"
    return f"{text}; a loss of 1 is that of always answering the mean"
