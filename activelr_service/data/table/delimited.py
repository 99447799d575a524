"""Reads delimited text (.csv, .tsv) as an arrow table of texts. It finds the encoding and the separator if none is given."""

import codecs
import csv
import io
import re
from itertools import islice
from typing import Any

from activelr_service.errors import JobError

SEPARATORS = (",", ";", "\t", "|")
_SAMPLE_BYTES, _SAMPLE_ROWS = 2**16, 50
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def to_utf8(data: bytes, encoding: str | None, place: tuple[str, str]) -> tuple[bytes, str]:
    """Return the data as UTF-8 without a byte order mark, and the encoding that they had.

    ``place`` is the path and the key of the job that names it. Raises :class:`JobError` with the line of the first byte that
    the encoding does not have.
    """
    path, location = place
    found = find_encoding(data, encoding, place)
    try:
        text = data.decode(found)
    except UnicodeDecodeError as error:
        if found != "utf-8" or b"\0" not in data[:_SAMPLE_BYTES]:
            raise JobError.at(location, f"{path} {_not_decoded(data, found, error)}") from error
        text = "\0"
    if "\0" in text[:_SAMPLE_BYTES]:
        remedy = "if it is UTF-16, set data.encoding: utf-16-le (or utf-16-be)"
        raise JobError.at(location, f"{path} holds zero bytes, so it is not text in {found}; {remedy}")
    if text.startswith("\ufeff"):
        text = text[1:]
        return text.encode(), found
    return (data if codecs.lookup(found).name == "utf-8" else text.encode()), found


def find_encoding(start: bytes, encoding: str | None, place: tuple[str, str]) -> str:
    """The encoding of data with this ``start``: the given one, that of their byte order mark, or UTF-8."""
    found = encoding or next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")
    try:
        codecs.lookup(found)
    except LookupError:
        text = f"Python knows no encoding {encoding!r}; use utf-8, cp1252 or utf-16"
        raise JobError.at("data.encoding", text) from None
    if encoding is not None and is_no_utf16(encoding, start[:_SAMPLE_BYTES]):
        text = f"{place[0]} holds no zero byte, so it is not text in {encoding}; leave it out"
        raise JobError.at("data.encoding", text)
    return found


def head_of(start: bytes, encoding: str, place: tuple[str, str]) -> str:
    """The first whole lines of data with this ``start``, as text; bytes that the encoding lacks are replaced."""
    if start.startswith(b"PK\x03\x04"):
        text = "is a zip archive or a spreadsheet, not text; export it as a .csv file"
        raise JobError.at(place[1], f"{place[0]} {text}")
    text = codecs.getincrementaldecoder(encoding)("replace").decode(start).removeprefix("\ufeff")
    if "\0" in text:
        raise JobError.at(place[1], f"{place[0]} holds zero bytes, so it is not text in {encoding}")
    if len(start) <= _SAMPLE_BYTES:
        return text
    return text[: text.rfind("\n") + 1] or text


def infer_header(sample: str, usual: str, place: tuple[str, str]) -> tuple[str, list[str], list[str]]:
    """The separator of a sample of a text, its header as it is written, and the names of the columns."""
    separator = _infer_separator(sample, usual)
    return separator, *_header(sample, separator, place)


def text_options(separator: str, header: list[str]) -> tuple[Any, Any]:
    """Arrow's options for parsing and converting a text: all columns are large_string, with null for empty cells."""
    import pyarrow as pa
    from pyarrow import csv

    types = {name: pa.large_string() for name in header}
    convert = csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
    return csv.ParseOptions(delimiter=separator, newlines_in_values=True), convert


def _header(sample: str, separator: str, place: tuple[str, str]) -> tuple[list[str], list[str]]:
    path, location = place
    header = next((row for row in _rows(sample, separator) if row), None)
    if header is None:
        raise JobError.at(location, f"{path} is empty")
    names = _name_all([name.strip() for name in header])
    check_names(names, place)
    return header, names


def is_no_utf16(encoding: str, start: bytes) -> bool:
    """Whether ``encoding`` is UTF-16 or UTF-32 and the file is not. In these encodings each line break has a zero byte."""
    return codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")) and bool(start) and b"\0" not in start


def looks_like_utf8(data: bytes, encoding: str) -> bool:
    """Whether data that are read in another encoding are valid UTF-8 with letters beyond ASCII. That is hardly by chance."""
    try:
        return not data.isascii() and codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig") and bool(data.decode())
    except UnicodeDecodeError:
        return False


def read_text_table(data: bytes, separator: str | None, usual: str, place: tuple[str, str]) -> tuple[Any, str]:
    """Read UTF-8 ``data``. Return an arrow table of large_string columns, with null for empty cells, and the separator.

    ``usual`` is the separator of such files. It is taken if more than one would do.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    path, location = place
    sample = _sample(data)
    separator = separator or _infer_separator(sample, usual)
    header, names = _header(sample, separator, place)
    parse, convert = text_options(separator, header)
    try:
        table = arrow_csv.read_csv(pa.BufferReader(data), parse_options=parse, convert_options=convert)
    except pa.ArrowException as error:
        reason = _first_odd_row(data, separator, len(header)) or f"cannot be read: {str(error).splitlines()[0]}"
        raise JobError.at(location, f"{path} {reason}") from error
    return table.rename_columns(names), separator


def _name_all(names: list[str]) -> list[str]:
    """Name the columns without a name as pandas does, except the first. A separator at the line's end makes such columns."""
    first = names.index("") if "" in names else None
    return [name or ("" if number == first else f"Unnamed: {number}") for number, name in enumerate(names)]


def check_names(names: list[str], place: tuple[str, str]) -> None:
    """Raise :class:`JobError` if two columns have the same name."""
    path, location = place
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise JobError.at(location, f"{path} has more than one column {repeated!r}; rename one")


def _not_decoded(data: bytes, encoding: str, error: UnicodeDecodeError) -> str:
    line = data.count(b"\n", 0, error.start) + 1
    text = f"is not text in {encoding}: line {line} has the byte 0x{data[error.start]:02x}"
    if codecs.lookup(encoding).name != "utf-8":
        return f"{text}; see data.encoding"
    # Latin-1 and cp1252 differ in bytes that letters do not use; cp1252 is what Windows and Excel write.
    shown = data[max(0, error.start - 20) : error.start + 20].decode("cp1252", "replace")
    word = re.split(r"[,;|\s\"]", shown[: error.start - max(0, error.start - 20)])[-1]
    word += re.split(r"[,;|\s\"]", shown[len(shown[: error.start - max(0, error.start - 20)]) :])[0]
    return (
        f"{text}. It reads {word!r} in cp1252 (Windows, close to Latin-1): if that is right, set data.encoding: cp1252"
    )


def _sample(data: bytes) -> str:
    """The first whole lines, as text."""
    if len(data) <= _SAMPLE_BYTES:
        return data.decode()
    end = data.rfind(b"\n", 0, _SAMPLE_BYTES)
    end = end if end >= 0 else data.find(b"\n", _SAMPLE_BYTES)
    return (data if end < 0 else data[: end + 1]).decode()


def _rows(text: str, separator: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator)


def _infer_separator(sample: str, usual: str) -> str:
    """The separator that splits the most rows into as many values as the header has, two or more; else the usual one."""

    def fit(separator: str) -> tuple[float, int]:
        rows = [row for row in islice(_rows(sample, separator), _SAMPLE_ROWS) if row]
        width = len(rows[0]) if rows else 0
        if width < 2:
            return 0.0, 0
        return sum(len(row) == width for row in rows) / len(rows), width

    return max([usual, *SEPARATORS], key=fit)


def _first_odd_row(data: bytes, separator: str, width: int) -> str | None:
    rows = _rows(data.decode(), separator)
    start = 1
    for row in rows:
        if row and len(row) != width and rows.line_num - start > 9:
            text = f"has {len(row)} values from line {start} to {rows.line_num}, and {width} in its header"
            return f"{text}; close the quote that is open in line {start}"
        start = rows.line_num + 1
        if row and len(row) != width:
            text = f"has {len(row)} values in line {rows.line_num}, and {width} in its header"
            text += f"; complete the line, put quotes around values that hold {separator!r}, or set data.separator"
            return text + ("; if line 1 does not name the columns, take it out" if len(row) > width else "")
    return None
