"""Tables of any length, read in pieces: delimited text, JSON lines and parquet."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from activelr_service.data.table.delimited import find_encoding, head_of, infer_header, looks_like_utf8, text_options
from activelr_service.data.table.file import JSON_LINES, PARQUET, TEXT, kind_of, open_folder, unknown_suffix
from activelr_service.errors import InputError, JobError
from activelr_service.inference.json_lines import open_json_lines
from activelr_service.inference.read import Opened, Piece

_BLOCK_BYTES = 2**23


def open_table(
    path: str,
    columns: list[str] | None,
    rows: int,
    encoding: str | None = None,
    separator: str | None = None,
    is_flat: bool = True,
) -> Opened:
    """Open a table file, to be read in pieces of so many ``rows``; only ``columns`` are in them, None for all.

    ``encoding`` and ``separator`` are those of a text, if they are known. With ``is_flat`` a list in JSON lines is an error
    of its row. Raises :class:`InputError` for a file that
    is none, here or when a piece is read.
    """
    import pyarrow as pa

    suffix, compression = kind_of(path)
    try:
        if os.path.isdir(path) or (suffix in PARQUET and compression is None):
            return _open_parquet(path, columns, rows)
        if suffix in JSON_LINES:
            return open_json_lines(path, columns, rows, is_flat)
        if suffix in TEXT:
            return _open_text(path, (encoding, separator), columns, rows)
    except JobError as error:
        raise InputError("; ".join(problem.message for problem in error.problems)) from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read: {_first_line(error)}") from error
    raise InputError(f"{path} {unknown_suffix(suffix)}")


def _open_parquet(path: str, columns: list[str] | None, rows: int) -> Opened:
    from pyarrow import dataset

    whole = open_folder(path, "")[0] if os.path.isdir(path) else dataset.dataset(path, format="parquet")
    names = list(whole.schema.names)
    wanted = [name for name in names if columns is None or name in columns]
    batches = whole.to_batches(columns=wanted, batch_size=rows, fragment_readahead=1, batch_readahead=2)
    return Opened(names, _regroup(path, ((batch, {}) for batch in batches), rows))


def _open_text(path: str, known: tuple[str | None, str | None], columns: list[str] | None, rows: int) -> Opened:
    import pyarrow as pa
    from pyarrow import csv

    suffix, compression = kind_of(path)
    place = (path, "")
    with pa.input_stream(path, compression=compression) as stream:
        start = stream.read(2**16 + 1)
    is_utf8 = known[0] is not None and looks_like_utf8(start[: start.rfind(b"\n")], known[0])
    encoding = "utf-8" if is_utf8 else find_encoding(start, known[0], place)
    sample = head_of(start, encoding, place)
    usual = known[1] or ("\t" if suffix in (".tsv", ".tab") else ",")
    separator, header, names = infer_header(sample, usual, place)
    odd: deque[tuple[int, str]] = deque()

    def keep_odd(row: Any) -> str:
        text = f"the row has {row.actual_columns} values, and the header has {row.expected_columns}"
        odd.append((row.number - 2, text))  # counted from 1, with the header
        return "skip"

    parse, convert = text_options(separator, header)
    parse.invalid_row_handler = keep_odd
    convert.check_utf8 = False  # else one odd byte would end it all
    reader = csv.open_csv(
        pa.input_stream(path, compression=compression),
        read_options=csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False, encoding=encoding),
        parse_options=parse,
        convert_options=convert,
    )
    wanted = [number for number, name in enumerate(names) if columns is None or name in columns]
    tables = (pa.table(batch).rename_columns(names).select(wanted) for batch in _batches(reader))
    return Opened(names, _regroup(path, _with_odd_rows(tables, odd), rows))


def _batches(reader: Any) -> Iterator[Any]:
    import pyarrow as pa

    for batch in reader:
        yield pa.Table.from_batches([batch])


def _with_odd_rows(tables: Iterator[Any], odd: deque[tuple[int, str]]) -> Iterator[tuple[Any, dict[int, str]]]:
    """Each table with an empty row where the file has one of another length, and with the errors of such rows."""
    import pyarrow as pa

    done, last = 0, None
    for table in tables:
        order: list[int | None] = []
        errors: dict[int, str] = {}
        next_row, last = 0, table
        while next_row < table.num_rows or (odd and odd[0][0] == done + len(order)):
            if odd and odd[0][0] == done + len(order):
                errors[len(order)] = odd.popleft()[1]
                order.append(None)
            else:
                until = min(table.num_rows, next_row + (odd[0][0] - done - len(order) if odd else table.num_rows))
                order.extend(range(next_row, until))
                next_row = until
        done += len(order)
        yield (table.take(pa.array(order, pa.int64())) if errors else table), errors
    if odd and last is not None:
        yield last.take(pa.array([None] * len(odd), pa.int64())), {row: text for row, (_, text) in enumerate(odd)}


def _regroup(path: str, parts: Iterator[tuple[Any, dict[int, str]]], rows: int) -> Iterator[Piece]:
    """The same rows in pieces of exactly ``rows``, but for the last. So the model sees the same batches in any case."""
    import pyarrow as pa

    tables: list[Any] = []
    errors: dict[int, str] = {}
    count = done = 0
    try:
        for part, part_errors in parts:
            table = pa.Table.from_batches([part]) if isinstance(part, pa.RecordBatch) else part
            errors |= {count + row: text for row, text in part_errors.items()}
            tables.append(table)
            count += table.num_rows
            while count >= rows:
                whole = pa.concat_tables(tables, promote_options="permissive")
                yield _piece(whole.slice(0, rows), {row: text for row, text in errors.items() if row < rows})
                errors = {row - rows: text for row, text in errors.items() if row >= rows}
                tables, count, done = [whole.slice(rows)], count - rows, done + rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read after row {done + count:,}: {_first_line(error)}") from error
    if count:
        yield _piece(pa.concat_tables(tables, promote_options="permissive"), errors)


def _piece(table: Any, errors: dict[int, str]) -> Piece:
    """The piece, in which texts that are not UTF-8 are errors."""
    import pyarrow as pa

    for number, name in enumerate(table.column_names):
        column = table.column(name)
        if not pa.types.is_large_string(column.type):
            continue
        try:
            column.cast(pa.large_binary()).cast(pa.large_string())
        except pa.ArrowInvalid:
            texts: list[str | None] = []
            for row, content in enumerate(column.cast(pa.large_binary()).to_pylist()):
                try:
                    texts.append(None if content is None else content.decode())
                except UnicodeDecodeError as error:
                    texts.append(None)
                    text = (
                        f"column {name!r}: the byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
                    )
                    errors.setdefault(row, text)
            table = table.set_column(number, name, pa.array(texts, pa.large_string()))
    return Piece(table, errors)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["?"])[0]


def is_table(path: str) -> bool:
    """Whether the name of a file is that of a table, other than plain text."""
    suffix, _ = kind_of(path)
    return suffix in (*JSON_LINES, *PARQUET, ".csv", ".tsv", ".tab") and not Path(path).is_dir()
