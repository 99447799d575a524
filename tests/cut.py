"""A process that is killed or stopped at one of its file operations, simulated. Of one that is killed nothing more reaches
the disk; one that is stopped by a signal gets ``SystemExit`` there, once."""

import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}


class KilledError(BaseException):
    """No code of ours catches it."""


class _Knife:
    """An audit hook sees every file operation of Python; it cannot be removed, so there is one, which rests."""

    def __init__(self):
        self.root, self.left, self.is_dead, self.done, self.is_signal = None, 0, False, [], False
        sys.addaudithook(self.see)

    def see(self, event, args):
        if self.root is None or not (event in CHANGING or (event == "open" and is_writing(args))):
            return
        if self.is_signal and (self.is_dead or threading.current_thread() is not threading.main_thread()):
            return
        path = absolute(event, args)
        if not path.startswith(self.root):
            return
        if self.is_dead or self.left == 0:
            self.is_dead = True
            raise SystemExit(143) if self.is_signal else KilledError
        self.left -= 1
        self.done.append((event, path.removeprefix(self.root)))


def is_writing(args):
    path, mode, flags = args
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    return any(letter in mode for letter in "wax+") if mode else bool(flags & (os.O_WRONLY | os.O_RDWR))


def absolute(event, args):
    """The path of an operation; those that shutil.rmtree makes are relative to an open folder."""
    folder = args[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
    path = os.fsdecode(args[0])
    return path if folder in (-1, None) or path.startswith("/") else f"{os.readlink(f'/proc/self/fd/{folder}')}/{path}"


KNIFE = _Knife()


@contextmanager
def killed_after(operations: int, root: Path):
    """Inside, the process is killed at the first file operation below ``root`` after so many; yields the list of those that
    were done."""
    KNIFE.root, KNIFE.left, KNIFE.is_dead, KNIFE.done = str(root), operations, False, []
    try:
        yield KNIFE.done
    except KilledError:
        pass
    finally:
        KNIFE.root = None


@contextmanager
def stopped_after(operations: int, root: Path):
    """Inside, a signal stops the process at the file operation below ``root`` after so many of the main thread."""
    KNIFE.is_signal = True
    try:
        with killed_after(operations, root):
            yield
    except SystemExit:
        pass
    finally:
        KNIFE.is_signal = False


def kill_everywhere(root: Path, work, check):
    """Kill ``work()`` at each of its file operations below ``root`` in turn, calling ``check(operations)`` after each; then
    once without a kill. Returns what it does."""
    for operations in range(1000):
        with killed_after(operations, root) as done:
            work()
        check(operations)
        if not KNIFE.is_dead:
            assert operations > 0, "it did nothing below the folder"
            return done
    raise AssertionError("it does not end")
