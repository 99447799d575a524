"""Lists of files and folders, without hidden ones and those of the operating system; and the search for equal files."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from activelr_service.errors import JobError

SYSTEM = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin")
LARGEST_COMPARED = 20_000  # files at most, in a search for equal ones
LARGEST_READ = 2**28  # bytes at most, read in a search for equal files


class Contents(NamedTuple):
    """The sizes of some files in bytes, and the function that reads one by its number."""

    sizes: list[int]
    read: Callable[[int], bytes]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or the system's, such as ``.ipynb_checkpoints``, ``._0.png`` or ``Thumbs.db``."""
    return name.startswith(".") or name.lower() in SYSTEM


def list_folders(folder: str | Path, place: str) -> list[str]:
    """The sorted names of the folders in ``folder``, without hidden ones."""
    return sorted(entry.name for entry in _scan(folder, place) if _is_folder(entry))


def list_files(folder: str | Path, place: str, is_deep: bool = True) -> list[str]:
    """The paths of the files in ``folder`` and, if ``is_deep``, in all folders below it, sorted by folder and name.

    Links are followed. Each folder is read once, so that a link to a folder above does not loop forever. Hidden files and
    folders are left out. Raises :class:`JobError` at ``place`` if a folder cannot be read.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        current = waiting.pop()
        stat = os.stat(current)
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        entries = sorted(_scan(current, place), key=lambda entry: entry.name)
        found += [entry.path for entry in entries if not _is_folder(entry)]
        waiting += [entry.path for entry in reversed(entries) if is_deep and _is_folder(entry)]
    return found


def _scan(folder: str | Path, place: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not is_hidden(entry.name))
    except OSError as error:
        raise JobError.at(place, f"{folder} cannot be listed: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one. A link to itself is not."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def suffix_of(path: str) -> str:
    """The suffix of a file's name in lower case, with its dot."""
    return os.path.splitext(path)[1].lower()


def count_suffixes(paths: Iterable[str]) -> str:
    """Count the files of each suffix, in one line: the most frequent first, each with an example."""
    paths = list(paths)
    counts = Counter(map(suffix_of, paths))
    examples = {suffix_of(path): path for path in reversed(paths)}
    named = [f"{count:,} {suffix or 'without suffix'} ({examples[suffix]})" for suffix, count in counts.most_common(10)]
    return ", ".join(named)


def find_equal(train: Contents, val: Contents) -> list[tuple[int, int]]:
    """Find the pairs (val, train) of files with the same bytes, by their numbers. Only files of equal size are read."""
    if len(train.sizes) + len(val.sizes) > LARGEST_COMPARED:
        return []
    by_size: dict[int, list[int]] = {}
    for number, size in enumerate(train.sizes):
        by_size.setdefault(size, []).append(number)
    digests: dict[int, dict[bytes, int]] = {}
    equal, left = [], LARGEST_READ
    for number, size in enumerate(val.sizes):
        if size not in by_size or not size or left < 0:
            continue
        if size not in digests:
            digests[size] = {_digest(train.read(other)): other for other in reversed(by_size[size])}
            left -= size * len(by_size[size])
        left -= size
        same = digests[size].get(_digest(val.read(number)))
        equal += [(number, same)] if same is not None else []
    return equal


def contents_of(paths: Sequence[str]) -> Contents:
    """The contents of files. A file that does not exist has the size 0."""
    return Contents(
        [os.stat(path).st_size if os.path.exists(path) else 0 for path in paths], lambda i: _bytes(paths[i])
    )


def equal_across(pairs: Sequence[tuple[str, str]], split: str = "validation") -> list[str]:
    """A warning with the first pair of equal images (of ``split``, training), or no warning if there is no pair."""
    text = f"{split} images that are the same, byte for byte, as one to train on: {len(pairs)}, such as"
    return [f"{text} {pairs[0][0]} and {pairs[0][1]}"] if pairs else []


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content).digest()
