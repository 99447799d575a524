"""Opening the tracker of a run: at an MLflow server, in an MLflow store beside the runs, or nowhere."""

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from filelock import FileLock, Timeout

from activelr_service.errors import RunGoneError, TrackingError
from activelr_service.redact import without_credentials
from activelr_service.tracking.client import connect, search_runs, talking_to
from activelr_service.tracking.tracker import MlflowTracker, NoTracker, Tracker

SCHEME = "sqlite:///"
ID_TAG = "activelr.run_id"
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
CREATION_S = 120  # how long another process may take to create a store; a slow machine needs 20 seconds


def embedded_store(root: Path) -> str:
    """The URI of the MLflow store in the output directory ``root``.

    SQLAlchemy decodes ``%XX`` in the path and takes ``?`` for the beginning of options, so both are escaped.
    """
    return SCHEME + str(root / DATABASE).replace("%", "%25").replace("?", "%3F")


def tracking_uri(given: str | None, root: Path, backend: str = "mlflow") -> str | None:
    """Where to track: at the URI of a job, else at ``$MLFLOW_TRACKING_URI``, else in the store under ``root``. With the
    backend ``none``: None.

    Credentials are left out, since the URI is kept with a run; a client finds them in the environment again.
    """
    if backend == "none":
        return None
    return given or without_credentials(os.environ.get("MLFLOW_TRACKING_URI", "")) or embedded_store(root)


def is_embedded(uri: str | None) -> bool:
    """Whether a tracking URI is a store in a file, so that no server decides where the files of a run are kept."""
    return uri is not None and uri.startswith("sqlite:")


def open_tracker(
    uri: str | None,
    experiment: str,
    name: str,
    root: Path,
    *,
    run_id: str | None = None,
    identity: str | None = None,
    log: Callable[[str], None] = print,
) -> Tracker:
    """The tracker of the MLflow run ``run_id``; of a new run called ``name``, if there is none or if it was deleted.

    Without a ``uri`` nothing is tracked. The new run keeps ``identity`` as a tag, by which the next attempt finds it if this
    process is killed at once. An embedded store keeps the files of its runs in ``root``; a server decides by itself.
    ``log`` gets a line where a deleted run is replaced. Raises :class:`TrackingError` if MLflow fails.
    """
    if uri is None:
        return NoTracker()
    with _alone(uri) if is_embedded(uri) else nullcontext():
        if run_id is not None:
            try:
                return _reopen(uri, run_id, root, log)
            except RunGoneError as error:
                log(f"{error}; a new MLflow run is begun, with all epochs")
        return _create(uri, experiment, name, root, identity, log)


def _create(
    uri: str, experiment: str, name: str, root: Path, identity: str | None, log: Callable[[str], None]
) -> MlflowTracker:
    """A new run, or the one that has this ``identity``."""
    client = connect(uri)
    tags = {
        **({ID_TAG: identity} if identity else {}),
        "mlflow.runName": name,
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": "activelr train",
        "mlflow.source.type": "JOB",
        "activelr.version": version("activelr-service"),
    }
    artifacts = root / ARTIFACTS if is_embedded(uri) else None
    with talking_to(uri):
        experiment_id = _experiment_id(client, experiment, artifacts)
        found = search_runs(client, experiment_id, f"tags.`{ID_TAG}` = '{identity}'") if identity else []
        run = found[0] if found else client.create_run(experiment_id, tags=tags)
    return MlflowTracker(client, uri, run.info.run_id, log)


def _reopen(uri: str, run_id: str, root: Path, log: Callable[[str], None]) -> MlflowTracker:
    """A run that was created before, with the status RUNNING. Raises :class:`RunGoneError` if MLflow does not have it."""
    try:
        client = connect(uri)
    except TrackingError as error:
        hint = "if the server has another address now, `activelr resume RUN --set tracking.uri=URI` names it"
        raise TrackingError(f"{error}; {hint}") from None
    try:
        with talking_to(uri):
            run = client.get_run(run_id)
    except TrackingError as error:
        if getattr(error.__cause__, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            raise RunGoneError(f"MLflow at {uri} has no run {run_id}: it or its store was deleted") from None
        raise
    if run.info.lifecycle_stage == "deleted":
        raise RunGoneError(f"MLflow at {uri}: the run {run_id} is deleted; restored in MLflow it would be continued")
    with talking_to(uri):
        client.update_run(run_id, status="RUNNING")
    tracker = MlflowTracker(client, uri, run_id, log)
    if is_embedded(uri) and not tracker.keeps_files_in(root):
        raise RunGoneError(f"MLflow run {run_id} keeps its files where the output directory was before")
    return tracker


def _experiment_id(client: Any, name: str, artifacts: Path | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts.as_uri() if artifacts else None)
        except Exception:  # another job made it in between: MLflow has no create-if-missing
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if artifacts is not None and not _keeps_files_in(found, artifacts):
        return _experiment_id(client, _next_name(name), artifacts)
    if found.lifecycle_stage == "deleted":
        raise TrackingError(f"the experiment {name!r} is deleted; restore it in MLflow or set tracking.experiment")
    return found.experiment_id


def _keeps_files_in(experiment: Any, artifacts: Path) -> bool:
    """False for an experiment of a store that was moved: its files would go to where the store was before."""
    return experiment.artifact_location.rstrip("/") in (artifacts.as_uri(), str(artifacts))


def _next_name(name: str) -> str:
    """``activelr-2`` after ``activelr``, ``activelr-3`` after that."""
    stem, _, number = name.rpartition("-")
    return f"{stem}-{int(number) + 1}" if stem and number.isdigit() else f"{name}-2"


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Lock the store while it may be created: two processes that migrate one SQLite file at the same time both fail."""
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
