"""Reads the cells of a column as numbers or as categories. A cell that is no number is named in an error."""

import re
from typing import Any, Literal, NamedTuple

import numpy as np

from activelr_service.config.data import TableDataConfig
from activelr_service.data.table.dates import example_date, without_words
from activelr_service.data.table.file import TableFile
from activelr_service.data.table.numbers import Gaps, count_gap, parse_numbers, to_numpy
from activelr_service.errors import JobError

Kind = Literal["number", "category"]

# A column can hold numbers and other texts. Up to the first share of other texts, it holds numbers, and the texts are
# errors; so it does up to the second share if a number has a fraction. Up to the second share, other columns are read as
# categories with a warning. Above it they are categories, such as sizes (S, M, 38) and postal codes (12a, 13).
_WRONG_CELLS, _CATEGORIES = 0.05, 0.5
_HEAD = 1_000  # rows that are searched for leading zeros and for units


class Cells(NamedTuple):
    """A column of a file. For numbers, ``values`` are float64, NaN where one is missing, and ``names`` is None.

    For categories, ``values`` are int64 indices into ``names``, -1 where one is missing. ``gaps`` maps each text that counts
    as missing to (number of rows, first row from 1). ``warnings`` are about the kind of the column. ``grouped`` is an
    example of a number whose digits are grouped, such as 1,234.
    """

    name: str
    values: np.ndarray
    names: list[str] | None
    gaps: Gaps
    warnings: tuple[str, ...] = ()
    grouped: str | None = None

    def kind(self) -> Kind:
        return "number" if self.names is None else "category"

    def is_missing(self) -> np.ndarray:
        """bool (rows,)."""
        return np.isnan(self.values) if self.names is None else self.values < 0


class Part(NamedTuple):
    """The training or the validation rows of a table. ``rows`` are their numbers in the file, from 0."""

    file: TableFile
    columns: list[Cells]
    target: Cells
    rows: np.ndarray


def read_cells(config: TableDataConfig, file: TableFile, name: str, kind: Kind | None, decimal: str) -> Cells:
    """Read the column ``name`` of ``file`` as ``kind``, or as its values suggest if ``kind`` is None.

    Raises :class:`JobError` for a type that is not read, and for a cell that is no number in a column of numbers.
    """
    column = _tidy(config, file, name, kind)
    if kind == "category" or (kind is None and is_dictionary(file, name)):
        return _categories(name, column, config.missing)
    parsed = parse_numbers(column, decimal, config.missing)
    num_numbers = int(np.count_nonzero(~np.isnan(parsed.values)))
    num_words = len({*parsed.gaps} - {"", *config.missing})
    if kind is None and num_numbers == 0 and (len(parsed.odd_rows) or num_words > 1):
        _refuse_dates(config, file, name, column)
        return _categories(name, column, config.missing)._replace(warnings=_units(config, file, name, column))
    share = len(parsed.odd_rows) / max(1, num_numbers + len(parsed.odd_rows))
    if kind == "number" and share:
        raise _odd_cell(config, file, name, column, parsed.odd_rows, kind)
    if share == 0:
        warnings = _codes(file, name, column) if kind is None else ()
        return Cells(name, parsed.values, None, parsed.gaps, warnings, parsed.grouped)
    has_fractions = bool(np.nanmax(np.abs(parsed.values % 1)) > 0)
    if share <= _WRONG_CELLS or (has_fractions and share < _CATEGORIES):
        raise _odd_cell(config, file, name, column, parsed.odd_rows, kind)
    cells = _categories(name, column, config.missing)
    if share >= _CATEGORIES:
        return cells
    row = int(parsed.odd_rows[0])
    text = f"the column {name!r} of {file.path} is read as categories: most of its values are numbers, but"
    text += (
        f" {len(parsed.odd_rows):,} of {len(column):,} are not, such as {column[row].as_py()[:40]!r} in row {row + 1};"
    )
    return cells._replace(warnings=(f"{text} see data.missing and data.types",))


def read_known(
    config: TableDataConfig, file: TableFile, name: str, kind: Kind, decimal: str
) -> tuple[Cells, np.ndarray]:
    """Read the column ``name`` of ``file`` as ``kind``, and return the indices of its cells that are no number, too.

    Such cells are NaN. Raises :class:`JobError` for a type that is not read.
    """
    column = _tidy(config, file, name, kind)
    if kind == "category":
        return _categories(name, column, config.missing), np.array([], dtype=np.int64)
    parsed = parse_numbers(column, decimal, config.missing)
    return Cells(name, parsed.values, None, parsed.gaps), parsed.odd_rows


def cell_name(value: Any) -> str:
    """The name of a class or category. 1, 1.0 and "1" have the same name, and so have true, True and "true"."""
    text = str(value)
    if text in ("True", "TRUE"):
        return "true"
    if text in ("False", "FALSE"):
        return "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    whole = re.fullmatch(r"\+?(-?\d+)\.0*", text)
    return whole[1] if whole else text


def is_whole(file: TableFile, name: str) -> bool:
    """Whether the numbers of a column are written as integers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = file.table.column(name)
    if _is_text(column.type):
        texts = pc.utf8_trim_whitespace(column.unique().drop_null().cast(pa.large_string()))
        return pc.all(pc.match_substring_regex(texts, r"^[+-]?\d+$")).as_py() is not False
    return bool(pa.types.is_integer(column.type))


def is_dictionary(file: TableFile, name: str) -> bool:
    """Whether a column is stored as categories, as those of pandas are."""
    import pyarrow as pa

    return bool(pa.types.is_dictionary(file.table.column(name).type))


def _tidy(config: TableDataConfig, file: TableFile, name: str, kind: Kind | None) -> Any:
    """The column as one arrow array of numbers, or of trimmed texts. NaN and empty texts become null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = file.table.column(name)
    if is_dictionary(file, name):
        column = column.cast(column.type.value_type)
    is_time = pa.types.is_temporal(column.type)
    if _is_text(column.type) or (is_time and kind == "category"):
        column = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.large_string()), column)
    elif pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        column = column.cast(pa.float64(), safe=False)
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
    elif not pa.types.is_integer(column.type):
        text = f"the column {name!r} is of type {column.type}; only numbers, text and true or false are read"
        raise file.error(f"{text}: {_remedy(config, name)}" + (_as_category(name) if is_time else ""))
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _is_text(kind: Any) -> bool:
    """Whether an arrow type is read as text. Booleans are, and so is a column without any value."""
    import pyarrow as pa

    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_boolean,
        pa.types.is_null,
    )
    return any(test(kind) for test in tests)


def _remedy(config: TableDataConfig, name: str) -> str:
    return "choose another data.target" if name == config.target else "put it into data.ignore"


def _as_category(name: str) -> str:
    return f", or set data.types: {{{name}: category}}"


def _categories(name: str, column: Any, missing: list[str]) -> Cells:
    encoded = column.dictionary_encode()
    texts = [cell_name(value) for value in encoded.dictionary.to_pylist()]
    codes = to_numpy(encoded.indices.fill_null(-1)).astype(np.int64)
    gaps = count_gap({}, "", codes < 0)
    names = list(dict.fromkeys(text for text in texts if text not in missing))
    number_of = {text: number for number, text in enumerate(names)}
    numbers = np.array([*(number_of.get(text, -1) for text in texts), -1], dtype=np.int64)
    for code, text in enumerate(texts):
        if numbers[code] < 0:
            gaps = count_gap(gaps, text, codes == code)
    return Cells(name, numbers[codes], names, gaps)


def _codes(file: TableFile, name: str, column: Any) -> tuple[str, ...]:
    """A warning if numbers look like codes, such as postal codes: some of the first rows have a leading zero."""
    import pyarrow as pa
    import pyarrow.compute as pc

    head = column.slice(0, _HEAD).drop_null()
    if not pa.types.is_large_string(head.type):
        return ()
    codes = head.filter(pc.match_substring_regex(head, r"^0\d+$"))
    if len(codes) == 0:
        return ()
    text = f"the column {name!r} of {file.path} is read as numbers, and has values such as {codes[0].as_py()!r}"
    return (f"{text}; for codes, set data.types: {{{name}: category}}",)


def _units(config: TableDataConfig, file: TableFile, name: str, column: Any) -> tuple[str, ...]:
    """A warning if texts are numbers with a unit, such as $5, 5 % or 5 kg, or in brackets, such as (5.00)."""
    import pyarrow.compute as pc

    head = without_words(column.slice(0, _HEAD).drop_null(), config.missing)
    unit = re.search(r"[A-Za-z]*$", head[0].as_py())[0] if len(head) else ""  # type: ignore[index]
    pattern = rf"^\(?[$€£¥]? ?[+-]?\d[\d.,]* ?(?:[$€£¥%]?\)?|{unit})$"
    if len(head) == 0 or not pc.all(pc.match_substring_regex(head, pattern)).as_py():
        return ()
    text = f"the column {name!r} of {file.path} is read as categories, since its values ({head[0].as_py()}) are not written"
    return (f"{text} as plain numbers; if they are numbers, leave units and other signs away",)


def _refuse_dates(config: TableDataConfig, file: TableFile, name: str, column: Any) -> None:
    date = example_date(column, config.missing)
    if date is not None:
        text = f"the column {name!r} holds dates, such as {date!r}, which are not read"
        raise file.error(f"{text}: {_remedy(config, name)}{_as_category(name)}")


def _odd_cell(
    config: TableDataConfig, file: TableFile, name: str, column: Any, odd_rows: np.ndarray, kind: Kind | None
) -> JobError:
    row = int(odd_rows[0])
    value, count = column[row].as_py()[:40], f"{len(odd_rows):,} such of {len(column):,} rows"
    what = "holds numbers" if kind is None else "is to hold numbers"
    remedies = [f"correct it, or set data.missing: [{value}] if that is no value"]
    if kind is None:
        remedies.append(f"set data.types: {{{name}: category}} if these are categories")
    if re.fullmatch(r"[+-]?[\d.,]+", value):
        remedies.append("set data.decimal if that is a number")
    remedies.append(_remedy(config, name))
    return file.error(
        f"the column {name!r} {what}, but row {row + 1} has {value!r} ({count}): {', or '.join(remedies)}"
    )
