"""Text on disk, in the formats people have it in, as a stream of pieces.

WikiText's token files and other plain text, parquet files as on the Hugging Face Hub, folders of ``datasets.save_to_disk``.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from activelr_service.config import JobError
from activelr_service.config.data import TextDataConfig

PIECE = 1024  # characters: what is encoded at once, and the grain of a held-out share
SPLITS = {"train": "train", "valid": "validation", "validation": "validation", "val": "validation", "test": "test"}
SUFFIXES = (".txt", ".tokens", ".raw", ".parquet")
SAVED = ("dataset_dict.json", "state.json")  # what datasets.save_to_disk writes of several splits and of one


def find_splits(config: TextDataConfig) -> dict[str, list[Path]]:
    """The files, or the folder of a saved dataset, of each split: ``train``, and where they are, ``validation``, ``test``.

    Files are told apart by the word train, val, valid, validation or test in their names. Where no name has one, all are
    for training. Raises :class:`JobError` naming what is missing.
    """
    root = Path(config.root)
    if not root.exists():
        raise JobError.at("data.root", f"no such file or folder: {root}")
    if any((root / name).is_file() for name in SAVED):
        return _saved_splits(root)
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES)
    files = [path for path in files if path.suffix == ".parquet"] or files
    splits: dict[str, list[Path]] = {}
    for path in files:
        words = [SPLITS[word] for word in re.split(r"[^a-z]+", path.name.lower()) if word in SPLITS]
        splits.setdefault(words[0] if words else "", []).append(path)
    unnamed = splits.pop("", [])
    if not splits:
        splits = {"train": unnamed}
    if not splits.get("train"):
        found = ", ".join(path.name for path in files[:5]) or f"no file that ends with {', '.join(SUFFIXES)}"
        raise JobError.at("data.root", f"{root} has no text to train on; found: {found}")
    return splits


def read_pieces(config: TextDataConfig, paths: list[Path]) -> Iterator[str | None]:
    """The text of a split in order, in pieces of about 1,024 characters that end with a line; None ends a document.

    A file of text is one document. A row of a table is one, unless it is empty or ends with a line break: then it is a
    line of a longer one, as in WikiText's parquet files.
    """
    for path in paths:
        if path.is_dir():
            rows = _read_saved(config, path)
        elif path.suffix == ".parquet":
            rows = _read_parquet(config, path)
        else:
            yield from _join(_read_lines(path))
            yield None
            continue
        yield from _end_documents(rows)


def _end_documents(rows: Iterable[str]) -> Iterator[str | None]:
    pending: list[str] = []
    for row in rows:
        pending.append(row)
        if row and not row.endswith("\n"):
            yield from _join(pending)
            yield None
            pending.clear()
        elif sum(map(len, pending)) >= PIECE:
            yield from _join(pending)
            pending.clear()
    yield from _join(pending)
    yield None


def _join(lines: Iterable[str]) -> Iterator[str]:
    """Lines joined to pieces of at least :data:`PIECE` characters, but for the last."""
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


def _read_lines(path: Path) -> Iterator[str]:
    """Lines, or parts of very long ones. CRLF is read as a line break, a byte order mark is not text."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from iter(lambda: file.readline(1 << 16), "")
    except UnicodeDecodeError as error:
        raise JobError.at("data.root", f"{path} is not UTF-8: byte {_first_invalid_byte(path)} is not text") from error


def _first_invalid_byte(path: Path) -> int:
    decoder, seen = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                return seen - pending + error.start
            seen += len(block)
    return seen  # cut off inside its last character


def _read_parquet(config: TextDataConfig, path: Path) -> Iterator[str]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _check_column(config, path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=1000, columns=[config.text_column]):
                yield from (str(text) for text in batch.column(0).to_pylist() if text is not None)
    except (pa.ArrowException, OSError) as error:
        raise JobError.at("data.root", f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _read_saved(config: TextDataConfig, path: Path) -> Iterator[str]:
    from datasets import load_from_disk

    try:
        dataset: Any = load_from_disk(str(path))
    except Exception as error:
        raise JobError.at("data.root", f"{path} is not a dataset saved by datasets: {error}") from error
    _check_column(config, path, dataset.column_names)
    for batch in dataset.select_columns([config.text_column]).iter(batch_size=1000):
        yield from (str(text) for text in batch[config.text_column] if text is not None)


def _check_column(config: TextDataConfig, path: Path, names: list[str]) -> None:
    if config.text_column not in names:
        text = f"{path} has no column {config.text_column!r}; it has {', '.join(names)}"
        raise JobError.at("data.text_column", text)


def _saved_splits(root: Path) -> dict[str, list[Path]]:
    folders = [root] if (root / SAVED[1]).is_file() else sorted(path for path in root.iterdir() if path.is_dir())
    splits = {SPLITS.get(folder.name, "train" if folder == root else folder.name): [folder] for folder in folders}
    if "train" not in splits:
        raise JobError.at("data.root", f"{root} has no split train; it has {', '.join(sorted(splits)) or 'none'}")
    return splits
