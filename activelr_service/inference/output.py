"""Answers as files: .csv, .parquet and .jsonl, written piece by piece beside their place and moved there at the end."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from activelr_service.errors import InputError

FORMATS = (".csv", ".parquet", ".jsonl")


def check_output(output: Path, source: str, overwrite: bool) -> None:
    """Raise :class:`InputError` if the answers cannot be written there. Nothing is computed before."""
    if output.suffix.lower() not in FORMATS:
        raise InputError(f"--output: {output} has no suffix of {', '.join(FORMATS)}, which says how to write")
    if output.is_dir():
        raise InputError(f"--output: {output} is a folder; name a file")
    if not output.parent.is_dir():
        raise InputError(f"--output: no such folder: {output.parent}")
    if not os.access(output.parent, os.W_OK):
        raise InputError(f"--output: {output.parent} cannot be written")
    if output.exists() and Path(source).exists() and output.samefile(source):
        raise InputError(f"--output: {output} is the input")
    if output.exists() and not overwrite:
        raise InputError(f"--output: {output} exists; give another name, or --overwrite to replace it")


class Writer:
    """Writes arrow tables of the same columns, one after another, to a file in the format of a suffix."""

    def __init__(self, path: Path, suffix: str) -> None:
        self.path, self.suffix = path, suffix
        self.schema: Any = None
        self.file: Any = None

    def write(self, table: Any) -> None:
        """Write a table. The first one says the types of all."""
        table = table if self.suffix != ".csv" else _flat(table)
        if self.schema is None:
            self._open(table.schema)
        table = self._cast(table)
        if self.suffix != ".jsonl":
            self.file.write_table(table)
            return
        for row in table.to_pylist():
            self.file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")

    def _cast(self, table: Any) -> Any:
        import pyarrow as pa

        try:
            return table.cast(self.schema)
        except pa.ArrowInvalid as error:
            text = f"--keep: a column has other values in later rows: {str(error).splitlines()[0]}"
            raise InputError(f"{text}; leave it out, or keep it as text") from error

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def _open(self, schema: Any) -> None:
        from pyarrow import csv, parquet

        self.schema = schema
        if self.suffix == ".csv":
            self.file = csv.CSVWriter(self.path, schema)
        elif self.suffix == ".parquet":
            self.file = parquet.ParquetWriter(self.path, schema)
        else:
            self.file = self.path.open("w", encoding="utf-8")


@contextmanager
def writing(output: Path) -> Iterator[Writer]:
    """A writer whose file appears at ``output``, whole, when the block ends; not at all if it raises."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    writer = Writer(temporary, output.suffix.lower())
    try:
        yield writer
        writer.close()
        os.replace(temporary, output)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)


def _flat(table: Any) -> Any:
    """The table with lists and the like as JSON texts, since a cell of a .csv file holds a text."""
    import pyarrow as pa

    for number, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            cells = table.column(number).to_pylist()
            texts = [None if cell is None else json.dumps(cell, ensure_ascii=False, default=str) for cell in cells]
            table = table.set_column(number, field.name, pa.array(texts, pa.large_string()))
    return table
