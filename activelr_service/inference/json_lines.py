"""JSON lines of any length, read in pieces."""

import io
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from activelr_service.data.table.file import kind_of
from activelr_service.errors import InputError
from activelr_service.inference.read import Opened, Piece


def open_json_lines(path: str, columns: list[str] | None, rows: int, is_flat: bool) -> Opened:
    """Open JSON lines as :func:`~activelr_service.inference.table_files.open_table` does. The first piece has the names.

    Raises :class:`InputError` for a file without lines.
    """
    pieces = _json_pieces(path, columns, rows, is_flat)
    first = next(pieces, None)
    if first is None:
        raise InputError(f"{path} is empty")
    names, piece = first
    if not names and piece.errors:
        row, text = next(iter(piece.errors.items()))
        raise InputError(f"{path} has no JSON object in any line; row {row + 1}: {text}")

    def all_pieces() -> Iterator[Piece]:
        yield piece
        for _, more in pieces:
            yield _with_columns(more, names if columns is None else [name for name in names if name in columns])

    return Opened(names, all_pieces())


def _json_pieces(path: str, columns: list[str] | None, rows: int, is_flat: bool) -> Iterator[tuple[list[str], Piece]]:
    """The column names of each piece of JSON lines, and the piece. Empty lines are left out."""
    import pyarrow as pa

    with pa.input_stream(path, compression=kind_of(path)[1]) as stream:
        lines = (line for line in io.BufferedReader(stream) if line.strip())
        while some := list(islice(lines, rows)):
            errors: dict[int, str] = {}
            found = [_json_row(line, number, errors) for number, line in enumerate(some)]
            names = list(dict.fromkeys(name for row in found for name in row))
            wanted = [name for name in names if columns is None or name in columns]
            table = pa.table({name: _json_column(name, found, errors, is_flat) for name in wanted})
            if not wanted:
                table = pa.table({"": pa.nulls(len(found))})
            yield names, Piece(table, errors)


def _json_row(line: bytes, number: int, errors: dict[int, str]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        errors[number] = f"the line is no JSON: {error}"
        return {}
    if not isinstance(row, dict):
        errors[number] = 'the line is not an object such as {"age": 3, "city": "Oslo"}'
        return {}
    return row


def _json_column(name: str, rows: list[dict[str, Any]], errors: dict[int, str], is_flat: bool) -> Any:
    """A column as an arrow array; values of several types become texts, as in the training."""
    import pyarrow as pa

    values = [row.get(name) for row in rows]
    try:
        column = pa.array(values, from_pandas=True)
        if not (is_flat and pa.types.is_nested(column.type)):
            return column
    except (pa.ArrowException, OverflowError, TypeError):
        pass
    for number, value in enumerate(values):
        if isinstance(value, dict | list):
            errors.setdefault(number, f"column {name!r} holds {'a list' if isinstance(value, list) else 'an object'}")
            values[number] = None
    return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.large_string())


def _with_columns(piece: Piece, names: list[str]) -> Piece:
    """The piece with the columns ``names``; those that its rows lack are empty."""
    import pyarrow as pa

    there = piece.table.column_names
    count = piece.table.num_rows
    return piece._replace(
        table=pa.table({name: piece.table.column(name) if name in there else pa.nulls(count) for name in names})
    )
