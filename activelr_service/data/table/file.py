"""Reads files as arrow tables: delimited text and JSON lines, also compressed, and parquet."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from activelr_service.config.data import TableDataConfig
from activelr_service.data.info import shorten
from activelr_service.data.table.delimited import check_names, looks_like_utf8, read_text_table, to_utf8
from activelr_service.errors import JobError

TEXT, JSON_LINES, PARQUET = (".csv", ".tsv", ".tab", ".txt"), (".jsonl", ".ndjson"), (".parquet", ".pq")
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
KNOWN = ".csv, .tsv, .txt, .jsonl (each also with .gz, .bz2 or .zst), .parquet, and folders of .parquet files"


class TableFile(NamedTuple):
    """The table in a file. ``facts`` say how it was read, if its name does not say so.

    ``separator`` is that of delimited text. ``can_hold_commas``: whether a cell can hold a comma, which can be decimal.
    """

    path: str
    location: str
    table: Any
    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    separator: str | None = None
    can_hold_commas: bool = True

    def error(self, message: str) -> JobError:
        """An error about this file, at the place where the job names it."""
        return JobError.at(self.location, f"{self.path}: {message}")


def read_table_file(config: TableDataConfig, path: str, location: str) -> TableFile:
    """Read the table in a file or in a folder of parquet files. Raises :class:`JobError` if it cannot be read."""
    import pyarrow as pa

    if not Path(path).exists():
        raise JobError.at(location, f"no such file: {path}")
    suffix, compression = kind_of(path)
    try:
        if os.path.isdir(path):
            return _read_folder(path, location)
        if suffix in PARQUET and compression is None:
            from pyarrow import parquet

            return TableFile(path, location, parquet.ParquetFile(path).read())
        if suffix not in TEXT + JSON_LINES:
            raise JobError.at(location, f"{path} {unknown_suffix(suffix)}")
        with pa.input_stream(path, compression=compression) as stream:
            data = stream.read()
    except (pa.ArrowException, OSError) as error:
        raise JobError.at(location, f"{path} cannot be read: {(str(error).splitlines() or ['?'])[0]}") from error
    return _read_bytes(config, data, suffix, (path, location))


def kind_of(path: str) -> tuple[str, str | None]:
    """The suffix of the format and the compression, from the name in lower case."""
    name = Path(path).name.lower()
    compression = next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")
    return Path(name.removesuffix(compression)).suffix, COMPRESSIONS.get(compression)


def unknown_suffix(suffix: str) -> str:
    """Why a file with this suffix is not read, to follow its name."""
    if suffix in SPREADSHEETS:
        return "is a spreadsheet; export its sheet as a .csv file"
    return f"is none of the files that are read: {KNOWN}"


def _read_bytes(config: TableDataConfig, data: bytes, suffix: str, place: tuple[str, str]) -> TableFile:
    if data.startswith(b"PK\x03\x04"):
        raise JobError.at(place[1], f"{place[0]} is a zip archive or a spreadsheet, not text; export it as a .csv file")
    raw = data
    data, encoding = to_utf8(raw, config.encoding, place)
    facts = [] if encoding == "utf-8" else [f"encoding {encoding}"]
    warnings: tuple[str, ...] = ()
    if config.encoding is not None and looks_like_utf8(raw, config.encoding):
        warnings = (f"{place[0]} is read in {config.encoding}, as the job says, and looks like UTF-8",)
    if suffix in JSON_LINES:
        table = _read_json_lines(config, data, place)
        check_names(table.column_names, place)
        return TableFile(*place, table, tuple(facts), warnings)
    usual = "\t" if suffix in (".tsv", ".tab") else ","
    table, separator = read_text_table(data, config.separator, usual, place)
    if separator != usual:
        facts.append("separator " + ("tab" if separator == "\t" else repr(separator)))
    return TableFile(*place, table, tuple(facts), warnings, separator, separator != "," or b'"' in data)


def _read_json_lines(config: TableDataConfig, data: bytes, place: tuple[str, str]) -> Any:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    try:
        return arrow_json.read_json(pa.BufferReader(data))
    except pa.ArrowException:  # numbers and texts in one column, or no JSON
        rows = [_json_row(number, line, place) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _json_column(name, rows, place) for name in names if name not in config.ignored()})


def _json_row(number: int, line: bytes, place: tuple[str, str]) -> dict[str, Any]:
    path, location = place
    try:
        row = json.loads(line)
    except ValueError as error:
        raise JobError.at(location, f"{path}: line {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise JobError.at(location, f'{path}: line {number} is not an object such as {{"age": 3, "city": "Oslo"}}')
    return row


def _json_column(name: str, rows: list[dict[str, Any]], place: tuple[str, str]) -> Any:
    import pyarrow as pa

    values = [row.get(name) for row in rows]
    for number, value in enumerate(values, 1):
        if isinstance(value, dict | list):
            what = "a list" if isinstance(value, list) else "an object"
            text = f"{place[0]}: the column {name!r} holds {what} in row {number}, which is not read"
            raise JobError.at(place[1], f"{text}: put it into data.ignore")
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array(texts, pa.large_string())


def _read_folder(path: str, location: str) -> TableFile:
    whole, facts = open_folder(path, location)
    return TableFile(path, location, whole.to_table(), tuple(facts))


def open_folder(path: str, location: str) -> tuple[Any, list[str]]:
    """All parquet files in a folder as an arrow dataset, in the order of their names, and facts about them.

    ``key=value`` folders become columns. Raises :class:`JobError` at ``location`` for a folder without such files.
    """
    import pyarrow as pa
    from pyarrow import dataset

    files = [file for file in sorted(Path(path).rglob("*")) if file.is_file() and not _is_hidden(file, path)]
    parts = [str(file) for file in files if file.suffix.lower() in PARQUET]
    others = [str(file.relative_to(path)) for file in files if file.suffix.lower() not in PARQUET]
    if not parts:
        text = f"is a folder without a .parquet file; it has {shorten(others, 5) or 'no file'}"
        raise JobError.at(location, f"{path} {text}; name a file: {KNOWN}")
    whole = dataset.dataset(parts, format="parquet", partitioning="hive", partition_base_dir=path)
    schemas = [fragment.physical_schema for fragment in whole.get_fragments()]
    for part, schema in zip(parts, schemas, strict=True):
        if set(schema.names) != set(schemas[0].names):
            odd = sorted(set(schema.names) ^ set(schemas[0].names))
            raise JobError.at(location, f"{part} has other columns than {parts[0]}: {shorten(odd, 5)}")
    keys = [field for field in whole.schema if field.name not in schemas[0].names]
    unified = pa.unify_schemas([*schemas, pa.schema(keys)], promote_options="permissive")
    facts = [f"{len(parts)} parquet files"]
    facts += [f"columns from folder names: {shorten([field.name for field in keys], 10)}"] if keys else []
    facts += [f"{len(others)} other files not read: {shorten(others, 3)}"] if others else []
    return whole.replace_schema(unified), facts


def _is_hidden(file: Path, root: str) -> bool:
    return any(part.startswith((".", "_")) for part in file.relative_to(root).parts)
