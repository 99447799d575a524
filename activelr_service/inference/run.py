"""From raw input in files to a file of answers, piece by piece, so that the memory does not grow with the input."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from activelr_service.errors import InputError
from activelr_service.inference.answers import answer_types
from activelr_service.inference.notes import Notes
from activelr_service.inference.output import Writer, check_output, writing
from activelr_service.inference.predictor import BATCH_SIZES, Predictor
from activelr_service.inference.sources import Part, open_source

SHOWN_ERRORS = 5
LINE_EVERY_S = 30


class Options(NamedTuple):
    """How a file is answered. ``keep`` names columns of the input that go into the answers."""

    batch_size: int | None = None
    keep: tuple[str, ...] = ()
    overwrite: bool = False
    max_new_tokens: int | None = None


class Answered(NamedTuple):
    """The number of rows, and of those that could not be answered."""

    rows: int
    bad: int


def predict_file(predictor: Predictor, source: str, output: Path, options: Options) -> Answered:
    """Answer raw input in files; write a table of one row for each of its rows.

    Bad rows have an ``error`` and no answer; the first of them are printed to stderr. Raises :class:`InputError` if no row
    can be answered, or if the input is not of the kind that the model takes.
    """
    check_output(output, source, options.overwrite)
    batch_size = options.batch_size or BATCH_SIZES[predictor.kind]
    notes, rows, bad = Notes(), 0, 0
    opened = open_source(predictor, source, batch_size, list(options.keep), notes)
    with writing(output) as writer, _progress(opened.size) as advance:
        for part in opened.parts:
            frame = predictor.answer(part.rows, notes, batch_size, options.max_new_tokens)
            if part.errors:
                frame.loc[[*part.errors], :] = None
                frame.loc[[*part.errors], "error"] = [*part.errors.values()]
            writer.write(_to_table(predictor, part, frame))
            _show_errors(part, frame, bad)
            rows, bad = rows + len(frame), bad + int(frame["error"].notna().sum())
            advance(len(frame))
        if rows == 0:
            _write_nothing(predictor, writer, options)
        elif bad == rows:
            raise InputError(f"none of the {rows:,} rows of {source} can be answered")
    notes.log()
    return Answered(rows, bad)


def _to_table(predictor: Predictor, part: Part, frame: Any) -> Any:
    """The names of the rows, the columns that are kept, the answers and the errors, as an arrow table."""
    import pyarrow as pa

    named = {name: pa.array(values) for name, values in part.names.items()}
    kept = {name: _plain(column) for name, column in part.kept.items()}
    columns: dict[str, Any] = {**named, **kept}
    for name, kind in answer_types(predictor.task, predictor.info, predictor.kind).items():
        answer = pa.array(frame[name], kind, from_pandas=True)
        columns[f"{name}_answer" if name in columns else name] = answer
    return pa.table(columns)


def _plain(column: Any) -> Any:
    """A column that is kept: categories as their values, since pieces differ in their order; gaps only as texts."""
    import pyarrow as pa

    if pa.types.is_null(column.type):
        return column.cast(pa.large_string())
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _write_nothing(predictor: Predictor, writer: Writer, options: Options) -> None:
    """Write the columns of the answers to input without rows."""
    name = "file" if predictor.kind == "image" else "row"
    frame = predictor.no_answers()
    kept = {column: _texts_of_none() for column in options.keep}
    writer.write(_to_table(predictor, Part(None, {}, {name: []}, kept), frame))
    print("activelr: the input has no rows; the file of answers has its columns only", file=sys.stderr)


def _texts_of_none() -> Any:
    import pyarrow as pa

    return pa.array([], pa.large_string())


def _show_errors(part: Part, frame: Any, before: int) -> None:
    """Print the first bad rows of all: where each is, and why it is bad."""
    label, values = next(iter(part.names.items()))
    for index in frame.index[frame["error"].notna()][: max(0, SHOWN_ERRORS - before)]:
        place, error = f"row {values[index]}" if label == "row" else str(values[index]), frame["error"][index]
        text = error if label == "file" and place in error else f"{place}: {error}"
        print(f"activelr: {text}", file=sys.stderr)


@contextmanager
def _progress(count: int | None) -> Iterator[Any]:
    """Show how many rows are answered: a bar in a terminal, a line every half minute elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(count).advance
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rows", total=count)
        yield lambda rows: bar.advance(task, rows)


class _Lines:
    def __init__(self, count: int | None) -> None:
        self.count, self.rows, self.started = count, 0, time.monotonic()
        self.said = self.started

    def advance(self, rows: int) -> None:
        self.rows += rows
        now = time.monotonic()
        if now - self.said >= LINE_EVERY_S:
            self.said = now
            of = f" of {self.count:,}" if self.count else ""
            speed = self.rows / (now - self.started)
            print(f"activelr: {self.rows:,}{of} rows answered, {speed:,.0f} rows/s", file=sys.stderr, flush=True)
