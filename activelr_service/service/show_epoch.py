"""What the driver shows and tracks of a running epoch, and of a run that ended early."""

import itertools
import sys
from collections.abc import Callable

from activelr_service.config import ResolvedJob
from activelr_service.config.task import metrics_of_task
from activelr_service.runs.bar import Bar
from activelr_service.runs.console import Follower, log_to, reading_line
from activelr_service.runs.journal import read_journal
from activelr_service.runs.live import Live, ReadingsReader, read_live, reading_rows
from activelr_service.runs.record import Record, describe_early_stop
from activelr_service.runs.run import Run
from activelr_service.tracking.tracker import Tracker

Log = Callable[[str], None]


def follow_epochs(
    run: Run, job: ResolvedJob, tracker: Tracker, log: Log, bar: Bar | None, epochs: Follower
) -> list[Follower]:
    """Followers, which run already: one logs a line for each reading, one delivers readings to the tracker, and one draws
    the bar. Where the bar stands on standard output, the lines go to the log of the run alone.

    ``epochs`` logs the lines of whole epochs: what comes after such a line waits for it.
    """
    run.live.unlink(missing_ok=True)
    lines = ReadingsReader(run.readings)

    def read(after: int) -> list[tuple[int, Record]]:
        numbered = enumerate(lines.read()[after:], start=after + 1)
        return list(itertools.takewhile(lambda item: item[1].epoch <= epochs.last + 1, numbered))

    show = log_to(run.log, is_printed=False) if bar is not None and sys.stdout.isatty() else log
    followers: list[Follower] = [
        Follower(read, _show(job, show), last=len(lines.read())),
        _Delivery(run, tracker),
    ]
    if bar is not None:
        followers.append(_Drawing(run, bar))
    for follower in followers:
        follower.start()
    return followers


def note_early_stop(run: Run, job: ResolvedJob, log: Log) -> None:
    """If early stopping has ended the run, log why and when, and keep that in its state."""
    history = read_journal(run.journal)
    text = describe_early_stop(history[-1], job, metrics_of_task(job.task, job.metric).val_score) if history else None
    if text is not None and run.state().get("early_stop") != text:
        run.update(early_stop=text)
        log(f"run {run.label}: {text}")


def _show(job: ResolvedJob, log: Log) -> Callable[[Record], None]:
    return lambda reading: log(reading_line(reading, job))


class _Delivery(Follower[list[Record]]):
    """Delivers the readings to the tracker, all new ones in one request. Its number counts the readings up to its end."""

    def __init__(self, run: Run, tracker: Tracker) -> None:
        self.step: int = -1  # of the latest reading that was delivered

        def read(after: int) -> list[tuple[int, list[Record]]]:
            readings = reader.read()
            return [(len(readings), readings[after:])] if len(readings) > after else []

        def deliver(readings: list[Record]) -> None:
            rows = reading_rows(readings, self.step)
            tracker.log_metrics(rows)
            self.step = max(self.step, *(reading.global_step for reading in readings))

        reader = ReadingsReader(run.readings)
        super().__init__(read, deliver, last=0)


class _Drawing(Follower[Live]):
    """Draws the bar whenever the run is somewhere else, and takes it away in the end."""

    def __init__(self, run: Run, bar: Bar) -> None:
        def read(after: int) -> list[tuple[int, Live]]:
            live = read_live(run.live)
            written = 0 if live is None else run.live.stat().st_mtime_ns
            return [(written, live)] if live is not None and written > after else []

        super().__init__(read, bar.show, last=0)
        self.bar = bar

    def finish(self) -> bool:
        self._finish.set()
        self.join()
        self.bar.hide()
        return True
