"""An end to every talk with a server: one that sends a byte now and then never meets a timeout of the network's own."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from activelr_service.errors import DeadlineError

POLL_S = 0.1

_end: ContextVar[float] = ContextVar("end", default=math.inf)
_process_end = math.inf


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """All calls in here together have so many seconds; one inside another cannot give more."""
    token = _end.set(min(_end.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _end.reset(token)


def hurry(seconds: float) -> None:
    """From now on all calls of this process together have so many seconds: it has been asked to end."""
    global _process_end  # noqa: PLW0603 - a signal is for the process
    _process_end = min(_process_end, time.monotonic() + seconds)


def grant(seconds: float) -> None:
    """If this process has been asked to end, all calls together have so many seconds from now on: it did something else
    meanwhile."""
    global _process_end  # noqa: PLW0603 - a signal is for the process
    if _process_end < math.inf:
        _process_end = time.monotonic() + seconds


class TimedClient:
    """A client whose calls end in time, with :class:`DeadlineError`. A call that is given up is left to its thread."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        return lambda *args, **kwargs: timed_call(lambda: call(*args, **kwargs))


def timed_call(function: Callable[[], Any]) -> Any:
    """What the function returns or raises, or :class:`DeadlineError` at the end of the time of :func:`within`."""
    start, end = time.monotonic(), _end.get()
    outcome: list[tuple[Any, Exception | None]] = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        left = min(end, _process_end) - time.monotonic()
        if left <= 0:
            waited = round(time.monotonic() - start)
            raise DeadlineError(
                f"no complete answer within {waited} seconds" if waited else "no time is left to wait for it"
            )
        thread.join(min(POLL_S, left))
    result, error = outcome[0]
    if error is not None:
        raise error
    return result
