"""A fingerprint of the data of a run. When the run is continued, it shows whether the data have changed.

The names, sizes and modification times of all files are compared first, which is quick even for a million files. Then the
content is compared. A small amount of data is read whole. Of a large amount, blocks of a sample of the files are read, and
only if the times differ, as they do after a copy.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

FIELDS = ("root", "path", "val_path", "test_path")  # the keys of data configs that name files
READ_WHOLE = 256 * 2**20  # bytes that are read whole at most
READ_FILES = 10_000
SAMPLE_FILES = 256
BLOCK = 64 * 2**10
BLOCKS = 16  # of each file of a sample


class Fingerprint(NamedTuple):
    """Hashes of the files: ``listing`` of their names and sizes, ``times`` of their modification times, ``content`` of
    their bytes. ``is_sample``: ``content`` covers a sample of the bytes. ``newest``: the last modification time, in
    nanoseconds since 1970."""

    files: int
    bytes: int
    listing: str
    times: str
    newest: int
    content: str
    is_sample: bool

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Make a fingerprint from ``_asdict()``."""
        return cls(**data)

    def describe(self) -> str:
        """A text such as ``12 files, 34,567 bytes``."""
        return f"{self.files:,} {'file' if self.files == 1 else 'files'}, {self.bytes:,} bytes"


class Comparison(NamedTuple):
    """``change`` says how the files differ, ``doubt`` why it is not certain that they are equal. Each can be empty."""

    change: str = ""
    doubt: str = ""


class _File(NamedTuple):
    name: str
    path: str
    size: int
    time: int


def take_fingerprint(config: Any) -> Fingerprint | None:
    """The fingerprint of the files that a data config names, or None if it names none."""
    files = _list_files(config)
    if not files:
        return None
    content, is_sample = _hash_content(files)
    return Fingerprint(
        files=len(files),
        bytes=sum(file.size for file in files),
        listing=_hash_listing(files),
        times=_hash_times(files),
        newest=max(file.time for file in files),
        content=content,
        is_sample=is_sample,
    )


def compare_data(config: Any, before: Fingerprint) -> Comparison:
    """Compare the files of a data config with those that ``before`` was taken of."""
    files = _list_files(config)
    if _hash_listing(files) != before.listing:
        return Comparison(_describe_listing(files, before))
    if before.is_sample and _hash_times(files) == before.times:
        return Comparison()  # only data that are read whole are compared by content here: a copy can keep the times
    modified = sum(file.time > before.newest for file in files)
    if before.is_sample and 0 < modified < len(files):
        return Comparison(f"{modified:,} of {len(files):,} files were modified since")
    if _hash_content(files)[0] != before.content:
        return Comparison("the files have the same names and sizes and hold something else")
    doubt = "the files were written again; a sample of what they hold is the same as before"
    return Comparison(doubt=doubt if before.is_sample else "")


def _describe_listing(files: list[_File], before: Fingerprint) -> str:
    if not files:
        return f"there were {before.describe()}, and there is none now"
    now = before._replace(files=len(files), bytes=sum(file.size for file in files))
    if now.describe() == before.describe():
        return "files have other names or sizes"
    return f"there were {before.describe()}; now there are {now.describe()}"


def _list_files(config: Any) -> list[_File]:
    """All files that a config names, sorted by their names below the folder. Hidden files are left out, and so are the files
    that the library ``datasets`` caches beside its own."""
    files = []
    for field in FIELDS:
        value = getattr(config, field, None)
        if value is not None and os.path.exists(value):
            files += [file._replace(name=f"{field}/{file.name}") for file in _walk(value, "")]
    return sorted(files)


def _walk(path: str, name: str) -> Iterator[_File]:
    if not os.path.isdir(path):
        status = os.stat(path)
        yield _File(name, path, status.st_size, status.st_mtime_ns)
        return
    pending, seen = [(path, name)], set()
    while pending:
        folder, prefix = pending.pop()
        if (real := os.path.realpath(folder)) in seen:
            continue  # a link to a folder above it
        seen.add(real)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", "cache-")):
                    continue
                if entry.is_dir():
                    pending.append((entry.path, f"{prefix}{entry.name}/"))
                elif entry.is_file():
                    status = entry.stat()
                    yield _File(f"{prefix}{entry.name}", entry.path, status.st_size, status.st_mtime_ns)


def _hash_listing(files: list[_File]) -> str:
    return _digest(f"{file.name}\0{file.size}\n".encode(errors="surrogateescape") for file in files)


def _hash_times(files: list[_File]) -> str:
    return _digest(f"{file.time}\n".encode() for file in files)


def _hash_content(files: list[_File]) -> tuple[str, bool]:
    """The hash of the content, and whether it covers only a sample."""
    is_sample = sum(file.size for file in files) > READ_WHOLE or len(files) > READ_FILES
    if not is_sample:
        return _digest(block for file in files for block in _blocks(file, file.size)), False
    count = min(SAMPLE_FILES, len(files))
    sample = [files[index * (len(files) - 1) // max(1, count - 1)] for index in range(count)]
    return _digest(block for file in sample for block in _blocks(file, BLOCKS * BLOCK)), True


def _blocks(file: _File, limit: int) -> Iterator[bytes]:
    """Read ``limit`` bytes of a file in blocks that are evenly spaced from its start to its end, or the whole file."""
    count = max(1, -(-min(limit, file.size) // BLOCK))
    with Path(file.path).open("rb") as opened:
        for index in range(count):
            if file.size > limit:
                opened.seek(index * (file.size - BLOCK) // max(1, count - 1))
            yield opened.read(BLOCK)


def _digest(parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]
