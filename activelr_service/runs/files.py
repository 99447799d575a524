"""Writing files: each appears whole or not at all and survives a power cut. And locks on files."""

import os
import threading
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock


def write_text(path: Path, text: str) -> None:
    """Replace the file at ``path``, at once or not at all.

    Two processes may write the same file: each writes a temporary file of its own first. Raises ``OSError`` if the disk is
    full, and leaves what was there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file. If a killed process left the last line incomplete, that line is ended first."""
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def take_lock(path: Path, timeout_s: float) -> AcquireReturnProxy:
    """Take the lock at ``path``, which the system releases when this process dies. Leaving the returned context releases it.

    Raises ``TimeoutError`` if another process has it for ``timeout_s`` seconds, ``OSError`` if the file cannot be opened.
    """
    return FileLock(path).acquire(timeout=timeout_s)


def sync(path: Path) -> None:
    """Have the system write a file, or the list of files of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
