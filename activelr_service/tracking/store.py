"""The MLflow store in the folder that the runs are in, for when there is no server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from filelock import FileLock, Timeout

from activelr_service.errors import TrackingError
from activelr_service.redact import without_credentials
from activelr_service.tracking.tracker import Tracker

SCHEME = "sqlite:///"
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
CREATION_S = 120  # how long another process may take to create a store; a slow machine needs 20 seconds


def embedded_store(root: Path) -> str:
    """The URI of the MLflow store in the output directory ``root``.

    SQLAlchemy decodes ``%XX`` in the path and takes ``?`` for the beginning of options, so both are escaped.
    """
    return SCHEME + str(root / DATABASE).replace("%", "%25").replace("?", "%3F")


def tracking_uri(given: str | None, root: Path) -> str:
    """Where to track: at the URI of a job, else at ``$MLFLOW_TRACKING_URI``, else in the store under ``root``.

    Credentials are left out, since the URI is kept with a run; a client finds them in the environment again.
    """
    return given or without_credentials(os.environ.get("MLFLOW_TRACKING_URI", "")) or embedded_store(root)


def is_embedded(uri: str) -> bool:
    """Whether a tracking URI is a store in a file, so that no server decides where the files of a run are kept."""
    return uri.startswith("sqlite:")


def new_tracker(uri: str, experiment: str, name: str, root: Path, identity: str | None = None) -> Tracker:
    """A new MLflow run, or the one that has this ``identity``. An embedded store keeps the files of its runs in ``root``; a
    server decides by itself.

    Raises :class:`TrackingError` if MLflow fails.
    """
    if not is_embedded(uri):
        return Tracker.create(uri, experiment, name, identity=identity)
    root.mkdir(parents=True, exist_ok=True)
    with _alone(uri):
        return Tracker.create(uri, experiment, name, root / ARTIFACTS, identity)


def reopen_tracker(uri: str, run_id: str) -> Tracker:
    """See :meth:`Tracker.reopen`. An embedded store that is gone is created empty."""
    if not is_embedded(uri):
        return Tracker.reopen(uri, run_id)
    with _alone(uri):
        return Tracker.reopen(uri, run_id)


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Keep other processes out while the store may be created: two that migrate one SQLite file at once both fail."""
    database = Path(unquote(uri.removeprefix(SCHEME).partition("?")[0]))
    as_written = Path(uri.removeprefix(SCHEME)).parent  # MLflow makes this folder, without decoding it
    is_stray = as_written != database.parent and not as_written.exists()
    database.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{database}.lock", timeout=CREATION_S)
    try:
        lock.acquire()
    except Timeout:
        text = f"another process has been creating {database} for {CREATION_S} seconds; end it or try again"
        raise TrackingError(f"MLflow at {uri}: {text}") from None
    try:
        yield
    finally:
        lock.release()
        if is_stray:
            with suppress(OSError):
                os.removedirs(as_written)
