"""The journal of a run: one line of JSON for every committed epoch, in order."""

import json
import os
from pathlib import Path

from activelr_service.errors import RunDamagedError
from activelr_service.runs.files import append_line, write_text
from activelr_service.runs.record import Record


class JournalReader:
    """Reads a journal that grows, each line once. A journal that was replaced is read again from its start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = (0, 0)  # inode and bytes read
        self._records: list[Record] = []

    def read(self) -> list[Record]:
        """All complete records so far; a line that is still being written is left for the next call.

        Raises :class:`RunDamagedError` naming the first line that is not a record.
        """
        try:
            return self._read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunDamagedError(f"{self.path} cannot be read: {error.strerror}; restore it, or remove it") from error

    def _read(self) -> list[Record]:
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            inode, offset = self._file
            if status.st_ino != inode or status.st_size < offset:
                offset, self._records = 0, []
            file.seek(offset)
            complete = file.read().rpartition(b"\n")[0]
        lines = complete.split(b"\n") if complete else []
        self._records += [_parse(line, self.path, len(self._records) + n) for n, line in enumerate(lines, 1) if line]
        self._file = (status.st_ino, offset + len(complete) + bool(complete))
        return self._records


def read_journal(path: Path) -> list[Record]:
    """All complete records. Raises :class:`RunDamagedError` naming the first line that is not a record."""
    return JournalReader(path).read()


def is_journal_whole(path: Path) -> bool:
    """Whether there are records, and every line is one."""
    try:
        return bool(read_journal(path))
    except RunDamagedError:
        return False


def salvage_journal(path: Path) -> list[Record]:
    """The records of a journal that may be damaged, by epoch; a line that cannot be read is left out."""
    found: dict[int, Record] = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            record = _parse(line, path, 0)
        except RunDamagedError:
            continue
        found[record.epoch] = record
    return [found[epoch] for epoch in sorted(found)]


def write_journal(path: Path, history: list[Record]) -> None:
    """Replace the journal by these records, at once or not at all."""
    write_text(path, "".join(json.dumps(record.to_json()) + "\n" for record in history))


def append_journal(path: Path, record: Record) -> None:
    append_line(path, json.dumps(record.to_json()))


def _parse(line: bytes, path: Path, number: int) -> Record:
    try:
        return Record.from_json(json.loads(line))
    except (ValueError, TypeError) as error:
        remedy = "resuming the run writes it anew from its checkpoints"
        raise RunDamagedError(f"line {number} of {path} is damaged: {str(error)[:100]}; {remedy}") from error
