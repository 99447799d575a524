"""A proposed job, and how a table gets one: which column is to be predicted, and which columns say nothing."""

from pathlib import Path
from typing import Any, NamedTuple

from activelr_service.config.data import TableDataConfig
from activelr_service.data.info import shorten
from activelr_service.data.table.dates import example_date
from activelr_service.data.table.file import COMPRESSIONS, JSON_LINES, PARQUET, TEXT, TableFile, read_table_file
from activelr_service.data.table.fit import LARGEST_CATEGORY_COUNT, is_index
from activelr_service.errors import CommandError

TARGETS = ("target", "label", "labels", "class", "y", "outcome", "output", "species")
IDENTIFIERS = ("id", "index", "uuid", "guid", "rownames", "row")
PREDICTS = "--target COLUMN names another one"


class Proposal(NamedTuple):
    """The keys ``data`` and ``model`` of a job, its ``epochs``, and lines that say why they are so."""

    data: dict[str, Any]
    model: dict[str, Any]
    epochs: int
    why: list[str]


def epochs_for(num_samples: int, wanted: int, fewest: int, most: int) -> int:
    """Epochs in which about ``wanted`` samples are seen."""
    return max(fewest, min(most, round(wanted / max(1, num_samples))))


def table_suffix(path: Path) -> str | None:
    """The suffix of a table's file without that of a compression, in lower case; None if ``path`` is no table."""
    name = path.name.lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    suffix = Path(name).suffix
    return suffix if suffix in (*TEXT, *JSON_LINES, *PARQUET) and suffix != ".txt" else None


def propose_table(path: Path, val_path: Path | None, target: str | None) -> Proposal | None:
    """A job that predicts one column of the table at ``path`` from the others; None if it has a column ``text`` only.

    The target is the given column, else one that is called as targets are, else the last one. Columns of identifiers,
    of texts that nearly all differ, of dates, and without values are left out. Raises :class:`CommandError` if there
    is no such column.
    """
    file = read_table_file(TableDataConfig(path=str(path), target="?"), str(path), "data.path")
    names = file.table.column_names
    if set(names) == {"text"}:
        return None
    chosen, why_target = _choose_target(path, names, target)
    left_out = _left_out(file, [name for name in names if name != chosen])
    ignored = [name for columns in left_out.values() for name in columns]
    if not set(names) - {chosen, *ignored}:
        raise CommandError(f"{path}: no column is left to predict {chosen!r} from; it has {shorten(names, 20)}")
    data: dict[str, Any] = {"type": "table", "path": str(path), "target": chosen}
    why = [f"{path}: a table of {file.table.num_rows:,} rows and {len(names)} columns", why_target]
    if val_path is not None:
        data["val_path"] = str(val_path)
        why.append(f"validated on {val_path}")
    if ignored:
        data["ignore"] = ignored
    why += [f"left out, since {reason}: {shorten(columns, 10)}" for reason, columns in left_out.items() if columns]
    epochs = epochs_for(file.table.num_rows, 20_000, 10, 40)
    return Proposal(data, {"type": "mlp"}, epochs, [*why, f"epochs: {epochs}, for {file.table.num_rows:,} rows"])


def _choose_target(path: Path, names: list[str], target: str | None) -> tuple[str, str]:
    """The column to predict, and the line that says why."""
    if target is not None:
        if target not in names:
            raise CommandError(f"{path} has no column {target!r} to predict; it has {shorten(names, 20)}")
        return target, f"predicted: {target!r}, as --target says"
    named = [name for wanted in TARGETS for name in names if name.strip().lower() == wanted]
    if named:
        return named[0], f"predicted: {named[0]!r}, because of its name; {PREDICTS}"
    return names[-1], f"predicted: {names[-1]!r}, the last column; {PREDICTS}"


def _left_out(file: TableFile, names: list[str]) -> dict[str, list[str]]:
    """The columns of ``names`` that are left out, by the reason."""
    left_out: dict[str, list[str]] = {
        "their texts or numbers only name the rows": [],
        "dates are not read": [],
        "they have no values": [],
    }
    nameless, dates, empty = left_out.values()
    for name in names:
        column = file.table.column(name)
        if set(column.unique().to_pylist()) <= {None, ""}:
            empty.append(name)
        elif example_date(column, []) is not None:
            dates.append(name)
        elif _says_nothing(file, name):
            nameless.append(name)
    return left_out


def _says_nothing(file: TableFile, name: str) -> bool:
    """Whether a column only names the rows: an identifier whose values all differ, or texts that nearly all differ."""
    import pyarrow as pa

    column = file.table.column(name)
    different = len(column.unique())
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if name.strip().lower() in IDENTIFIERS or name.strip().lower().endswith("_id"):
        return different == len(column) and not pa.types.is_floating(column.type)
    return is_text and different > LARGEST_CATEGORY_COUNT and _is_no_number(column) and not is_index(file, name)


def _is_no_number(column: Any) -> bool:
    """Whether less than half of the first texts are numbers. A column of numbers with odd cells is read as texts."""
    texts = [text for text in column.slice(0, 1000).to_pylist() if text is not None]
    return (
        sum(any(sign.isdigit() for sign in text) and not any(map(str.isalpha, text)) for text in texts) < len(texts) / 2
    )
