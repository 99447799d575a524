"""The bar of a running epoch, in a terminal."""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from activelr_service.runs.console import duration
from activelr_service.runs.live import Live


class Bar:
    """The bar on ``console``. It is drawn by whoever calls it, and by no thread of its own: loader processes are forked."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("epoch {task.fields[epoch]}"), BarColumn(), TextColumn("{task.fields[rest]}")
        self.progress = Progress(
            *columns,
            console=console,
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.task = self.progress.add_task("", epoch=0, rest="")
        self._lock = threading.RLock()
        self._is_shown = False

    def show(self, live: Live) -> None:
        """Draw the bar, or draw it anew."""
        with self._lock:
            self.progress.update(
                self.task, completed=live.step, total=live.steps, epoch=live.epoch, rest=describe_live(live)
            )
            if not self._is_shown:
                self.progress.start()
                self._is_shown = True
            self.progress.refresh()

    def hide(self) -> None:
        """Take the bar away, until it is shown again."""
        with self._lock:
            if self._is_shown:
                self._is_shown = False
                with suppress(OSError):  # the terminal is gone, and the training goes on
                    self.progress.stop()

    def above(self, log: Callable[[str], None]) -> Callable[[str], None]:
        """The function ``log``, whose lines then stand above the bar."""

        def log_above(line: str) -> None:
            with self._lock:
                self.hide()
                log(line)

        return log_above


def terminal_bar() -> Bar | None:
    """A bar on standard output or else on standard error; None if neither is a terminal."""
    console = Console(stderr=not sys.stdout.isatty(), highlight=False)
    return Bar(console) if console.is_terminal and not console.is_dumb_terminal else None


def describe_live(live: Live) -> str:
    """``120/500  loss 0.4213  1,234 samples/s  1m20s left``."""
    shown = [f"{live.step:,}/{live.steps:,}"]
    if live.loss is not None:
        shown.append(f"loss {live.loss:.4f}")
    return "  ".join([*shown, f"{live.samples_per_sec:,.0f} samples/s", f"{duration(live.seconds_left)} left"])
