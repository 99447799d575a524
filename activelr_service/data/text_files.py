"""Readers of text files, which yield the text in pieces.

The formats are plain text such as WikiText's token files, JSON lines, parquet files as on the Hugging Face Hub, and saved
datasets.
"""

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from activelr_service.config.data import TextDataConfig
from activelr_service.data.saved_datasets import load_split
from activelr_service.data.table.delimited import is_no_utf16
from activelr_service.errors import JobError

PIECE = 1024  # characters of a piece; pieces are encoded one by one, and the validation text begins with a piece
FORMATS = {
    "plain": (".txt", ".tokens", ".raw"),
    "lines": (".jsonl", ".ndjson"),
    "parquet": (".parquet",),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # tested before UTF-16, whose mark is the first half of this one
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def format_of(path: Path) -> str | None:
    """The format that the suffix names: ``plain`` or ``lines``, both also with ``.gz``, ``parquet``, or None."""
    name = path.name.lower()
    for kind, suffixes in FORMATS.items():
        if name.endswith(suffixes) or (kind != "parquet" and name.removesuffix(".gz").endswith(suffixes)):
            return kind
    return None


def read_pieces(config: TextDataConfig, paths: list[Path]) -> Iterator[str | None]:
    """Yield the text of a split in pieces of about 1,024 characters, which end with a line, and None after each document.

    A file of plain text is one document. A row of a table is one document, except if it is empty or a single line with its
    line break. Such rows are lines of a longer document, as in WikiText's parquet files.
    """
    readers = {"parquet": _read_parquet, "lines": _read_json_lines}
    for path in paths:
        if path.is_dir():
            yield from _end_documents(_read_saved(config, path))
        elif (reader := readers.get(format_of(path) or "plain")) is not None:
            yield from _end_documents(reader(config, path))
        else:
            yield from _join(_read_lines(config, path))
            yield None


def _end_documents(rows: Iterable[str]) -> Iterator[str | None]:
    pending: list[str] = []
    for row in rows:
        pending.append(row)
        if row and row.find("\n") != len(row) - 1:
            yield from _join(pending)
            yield None
            pending.clear()
        elif sum(map(len, pending)) >= PIECE:
            yield from _join(pending)
            pending.clear()
    yield from _join(pending)
    yield None


def _join(lines: Iterable[str]) -> Iterator[str]:
    """Join lines to pieces of at least :data:`PIECE` characters. The last piece can be shorter."""
    piece: list[str] = []
    length = 0
    for line in lines:
        piece.append(line)
        length += len(line)
        if length >= PIECE:
            yield "".join(piece)
            piece, length = [], 0
    if length:
        yield "".join(piece)


def open_binary(path: Path) -> BinaryIO:
    """Open a file. It is decompressed if its name ends with ``.gz``."""
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _read_lines(config: TextDataConfig, path: Path) -> Iterator[str]:
    """Yield lines, and very long lines in parts. CRLF becomes a line break, and a byte order mark is left out."""
    try:
        encoding = _encoding_of(config, path)
        with open_binary(path) as content, io.TextIOWrapper(content, encoding) as file:
            yield from iter(lambda: file.readline(1 << 16), "")
    except UnicodeDecodeError as error:
        raise JobError.at("data.root", _undecodable(path, encoding)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise JobError.at("data.root", f"{path} cannot be read: {error}") from error


def _encoding_of(config: TextDataConfig, path: Path) -> str:
    """The encoding that the job names, or that the byte order mark of the file shows, or UTF-8."""
    with open_binary(path) as file:
        start = file.read(1 << 16)
    marked = next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
    if config.encoding is not None:
        if is_no_utf16(config.encoding, start):
            text = f"{path} holds no zero byte, so it is not text in {config.encoding}; leave it out"
            raise JobError.at("data.encoding", text)
        is_utf_8 = codecs.lookup(config.encoding).name == "utf-8"
        return "utf-8-sig" if is_utf_8 else config.encoding
    if marked is None and b"\0" in start:
        text = (
            f"{path} holds bytes of value 0 and is no UTF-8 text: if it is UTF-16 without its mark, set data.encoding:"
        )
        raise JobError.at("data.root", f"{text} utf-16-le or utf-16-be; if it is no text, take it out")
    return marked or "utf-8-sig"


def _undecodable(path: Path, encoding: str) -> str:
    position, value = _first_invalid_byte(path, encoding)
    name = "UTF-8" if encoding == "utf-8-sig" else encoding
    text = f"{path} is not {name}: byte {position} is not text"
    found = f"{text} (0x{value:02x})" if value is not None else f"{text}: it ends within a character"
    return f"{found}; set data.encoding to what it was written in, such as latin-1 or cp1252, or write it as UTF-8"


def _first_invalid_byte(path: Path, encoding: str) -> tuple[int, int | None]:
    """The position and the value of the first byte that cannot be decoded. The value is None at the end of the file."""
    decoder, seen = codecs.getincrementaldecoder(encoding)(), 0
    with open_binary(path) as file:
        while block := file.read(1 << 20):
            state = decoder.getstate()[0]
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                return seen - len(state) + error.start, error.object[error.start]
            seen += len(block)
    return seen, None


def _read_json_lines(config: TextDataConfig, path: Path) -> Iterator[str]:
    whole = ""
    number = 0
    for part in _read_lines(config, path):
        whole += part
        if not part.endswith("\n") and len(part) == 1 << 16:
            continue  # a part of a long line
        number += 1
        if whole.strip():
            yield from _text_of_line(config, f"line {number} of {path}", whole)
        whole = ""
    if whole.strip():
        yield from _text_of_line(config, f"line {number + 1} of {path}", whole)


def _text_of_line(config: TextDataConfig, where: str, line: str) -> Iterator[str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise JobError.at("data.root", f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise JobError.at("data.root", f"{where} is no JSON object, as in {{{config.text_column!r}: ...}}")
    _check_column(config, where, list(row))
    text = row[config.text_column]
    if text is not None:
        if not isinstance(text, str):
            raise JobError.at("data.text_column", f"{where}: {config.text_column!r} is no text, got {text!r:.100}")
        if "\\u" in line and re.search("[\ud800-\udfff]", text):
            raise JobError.at("data.root", f"{where} holds half of a character that is written as two, such as \\ud83d")
        yield text


def _read_parquet(config: TextDataConfig, path: Path) -> Iterator[str]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _check_column(config, path, file.schema_arrow.names)
            _check_type(config, path, file.schema_arrow.field(config.text_column).type)
            for batch in file.iter_batches(batch_size=1000, columns=[config.text_column]):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise JobError.at("data.root", f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _read_saved(config: TextDataConfig, path: Path) -> Iterator[str]:
    dataset: Any = load_split(path, "data.root")
    if dataset is None:
        return
    _check_column(config, path, dataset.column_names)
    _check_type(config, path, dataset.data.schema.field(config.text_column).type)
    try:
        for batch in dataset.select_columns([config.text_column]).iter(batch_size=1000):
            yield from (text for text in batch[config.text_column] if text is not None)
    except UnicodeDecodeError as error:
        raise JobError.at("data.root", f"{path} cannot be read: {error}") from error


def _check_column(config: TextDataConfig, where: object, names: list[str]) -> None:
    if config.text_column not in names:
        text = f"{where} has no column {config.text_column!r}; it has {', '.join(names)}"
        raise JobError.at("data.text_column", text)


def _check_type(config: TextDataConfig, path: Path, kind: Any) -> None:
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)):
        text = f"the column {config.text_column!r} of {path} holds {kind}, no text; name another column"
        raise JobError.at("data.text_column", text)
