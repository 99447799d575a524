"""Raw input in files, in pieces that fit into memory: what a reader reads, and what each row is called."""

import glob
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from activelr_service.data.images import formats
from activelr_service.data.info import shorten
from activelr_service.data.listing import count_suffixes, list_files, suffix_of
from activelr_service.errors import InputError, JobError
from activelr_service.inference import images
from activelr_service.inference.array_files import open_array
from activelr_service.inference.notes import Notes
from activelr_service.inference.predictor import BATCH_SIZES, Predictor
from activelr_service.inference.table_files import is_table, open_table
from activelr_service.inference.tables import TableRows

STDIN = "-"
LISTS = (".txt", ".csv", ".tsv")
_PATH_COLUMNS = ("image", "file", "path", "filename", "file_name")


class Part(NamedTuple):
    """Some raw rows. ``rows`` is what the reader takes; ``errors`` says of rows, by index, why they cannot be read.

    ``names`` are columns of the answers that say which row is which: row numbers from 1, or files. ``kept`` are columns of
    the input, arrow arrays, that go into the answers.
    """

    rows: Any
    errors: dict[int, str]
    names: dict[str, list[Any]]
    kept: dict[str, Any]


class Source(NamedTuple):
    """The parts of some input, and ``size``, the number of its rows; None if it is not known before the end."""

    parts: Iterator[Part]
    size: int | None = None


def open_source(predictor: Predictor, source: str, batch_size: int, keep: list[str], notes: Notes) -> Source:
    """Open raw input of the kind that the model takes. Raises :class:`InputError` for input of another kind."""
    if source != STDIN and predictor.kind != "image" and not os.path.exists(source):
        raise InputError(f"no such file: {source}")
    if keep and not (predictor.kind == "table" or is_table(source)):
        raise InputError(f"--keep names columns of a table, and {source} is none")
    if predictor.kind == "table":
        return Source(_table_parts(predictor, source, batch_size, keep, notes))
    if predictor.kind == "image":
        return _image_source(predictor, source, batch_size, keep)
    column = predictor.columns[0]
    if source != STDIN and (is_table(source) or os.path.isdir(source)):
        columns = [column, getattr(predictor.data, "text_column", column)] if predictor.kind == "text" else [column]
        return Source(_column_parts(predictor, source, columns, batch_size, keep))
    if predictor.kind == "text":
        return Source(_line_parts(source, batch_size))
    return _array_source(source, batch_size)


def _table_parts(predictor: Predictor, source: str, batch_size: int, keep: list[str], notes: Notes) -> Iterator[Part]:
    if source == STDIN:
        raise InputError("a table is read from a file; give its path")
    wanted = [*predictor.columns, *keep]
    data, rows = predictor.data, _multiple(batch_size, 4 * BATCH_SIZES["table"])
    opened = open_table(source, wanted, rows, data.encoding, data.separator)
    predictor.reader.check_names(opened.names, notes)
    _check_kept(keep, opened.names)
    decimal = None
    first = 1
    for piece in opened.pieces:
        if decimal is None:
            decimal = predictor.reader.rows_of(piece.table, notes).decimal
        cells = TableRows(predictor.reader.rows_of(piece.table, Notes()).table, decimal)
        yield Part(cells, piece.errors, _numbered(first, piece.table.num_rows), _columns(piece.table, keep))
        first += piece.table.num_rows


def _column_parts(
    predictor: Predictor, source: str, columns: list[str], batch_size: int, keep: list[str]
) -> Iterator[Part]:
    """The cells of one column of a table: the first of ``columns`` that is there."""
    opened = open_table(source, [*columns, *keep], batch_size, is_flat=False)
    column = next((name for name in columns if name in opened.names), None)
    if column is None:
        there = shorten(map(repr, opened.names), 20)
        raise InputError(f"{source} has no column {' or '.join(map(repr, dict.fromkeys(columns)))}; it has {there}")
    _check_kept(keep, opened.names)
    first = 1
    for piece in opened.pieces:
        cells = piece.table.column(column).to_pylist()
        yield Part(cells, piece.errors, _numbered(first, len(cells)), _columns(piece.table, keep))
        first += len(cells)


def _line_parts(source: str, batch_size: int) -> Iterator[Part]:
    """The lines of a text, without their line breaks."""
    stream = sys.stdin.buffer if source == STDIN else open(source, "rb")  # noqa: SIM115
    first = 1
    with stream:
        while some := list(islice(stream, batch_size)):
            lines, errors = [], {}
            for row, line in enumerate(some):
                try:
                    lines.append(line.decode("utf-8-sig" if first + row == 1 else "utf-8").rstrip("\r\n"))
                except UnicodeDecodeError as error:
                    lines.append("")
                    errors[row] = f"the byte 0x{line[error.start]:02x} is not UTF-8"
            yield Part(lines, errors, _numbered(first, len(lines)), {})
            first += len(lines)


def _image_source(predictor: Predictor, source: str, batch_size: int, keep: list[str]) -> Source:
    if source.endswith((".npz", ".npy")):
        return _array_source(source, batch_size)
    if os.path.isfile(source) and suffix_of(source) in (".parquet", ".jsonl", ".ndjson"):
        return Source(_column_parts(predictor, source, [images.COLUMN], batch_size, keep))
    if keep:
        raise InputError("--keep takes columns of .parquet and .jsonl files with images")
    paths = _list_images(source)
    parts = (
        Part(paths[start : start + batch_size], {}, {"file": paths[start : start + batch_size]}, {})
        for start in range(0, len(paths), batch_size)
    )
    return Source(parts, len(paths))


def _list_images(source: str) -> list[str]:
    """The paths of images: of a folder, of a list, of a pattern, or of one file."""
    if source == STDIN:
        return [line.strip() for line in sys.stdin if line.strip()]
    if os.path.isdir(source):
        return _images_in(source)
    if os.path.isfile(source):
        return _paths_in(source) if suffix_of(source) in LISTS else [source]
    found = sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
    if not found:
        raise InputError(f"no such file: {source}" + (" (no file has such a name)" if glob.has_magic(source) else ""))
    return found


def _images_in(folder: str) -> list[str]:
    from PIL import Image

    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in formats()}
    try:
        paths = list_files(folder, "")
    except JobError as error:
        raise InputError(str(error)) from error
    found = [path for path in paths if suffix_of(path) in suffixes]
    others = [path for path in paths if suffix_of(path) not in suffixes]
    if not found:
        raise InputError(f"{folder} holds no image" + (f"; it holds {count_suffixes(others)}" if others else ""))
    if others:
        text = f"{len(others):,} files are left out, since they are no images that can be decoded"
        print(f"activelr: {text}: {count_suffixes(others)}", file=sys.stderr)
    return found


def _paths_in(path: str) -> list[str]:
    """The paths that a list has, one a line; of a .csv or .tsv file those in its column of paths, or in its first.

    They are relative to the folder of the list, or to the current folder.
    """
    if suffix_of(path) == ".txt":
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    else:
        names = _paths_in_table(path)
    if not names:
        raise InputError(f"{path} names no image")
    folder = Path(path).parent
    return [str(folder / name) if (folder / name).exists() else name for name in names]


def _paths_in_table(path: str) -> list[str]:
    opened = open_table(path, None, 8192)
    column = next((name for name in opened.names if name.lower() in _PATH_COLUMNS), opened.names[0])
    return [cell or "" for piece in opened.pieces for cell in piece.table.column(column).to_pylist()]


def _array_source(source: str, batch_size: int) -> Source:
    count, pieces = open_array(source, batch_size)
    starts = range(1, count + 1, batch_size)
    named = ((rows, _numbered(start, len(rows))) for start, rows in zip(starts, pieces, strict=True))
    return Source((Part(rows, {}, names, {}) for rows, names in named), count)


def _multiple(batch_size: int, least: int) -> int:
    """A multiple of the batch size, so that a table read in pieces has the same batches as one read whole."""
    return -(-least // batch_size) * batch_size


def _numbered(first: int, count: int) -> dict[str, list[Any]]:
    return {"row": list(range(first, first + count))}


def _columns(table: Any, keep: list[str]) -> dict[str, Any]:
    return {name: table.column(name) for name in keep}


def _check_kept(keep: list[str], names: list[str]) -> None:
    if missing := [name for name in keep if name not in names]:
        raise InputError(f"--keep: there is no column {missing[0]!r}; the input has {shorten(map(repr, names), 20)}")
