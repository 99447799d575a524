"""A connection to MLflow that never waits long for a server that is gone: reading runs, and downloading models."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from activelr_service.errors import TrackingError
from activelr_service.redact import redact, without_credentials
from activelr_service.tracking.deadline import TimedClient, within
from activelr_service.tracking.names import journal_metric

REQUEST_TIMEOUT_S = 4
CONNECT_S, TALK_S = 13, 12  # the first answer of a server; one exchange with it
BYTES_PER_S = 1_000_000  # a file may take a second more for each of these
RUNS_PER_REQUEST = 1000  # what MLflow returns at once
READ_S = 600  # how long an experiment may take to be read
BY_STEP = "_by_step"  # ends the names of metrics that are logged against the optimizer step
NOT_BY_EPOCH = ("best/", "test/", "system/")  # metrics of a whole run, or by another clock
ENDED = ("FINISHED", "FAILED", "KILLED")


def connect(uri: str) -> Any:
    """An MLflow client for ``uri``, which answers; raises :class:`TrackingError` within 15 seconds if it does not.

    Credentials are never part of ``uri``: they are taken from ``$MLFLOW_TRACKING_URI`` if it names the same server.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_S))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with talking_to(uri, CONNECT_S):
        client = MlflowClient(tracking_uri=uri_with_credentials(uri))
        if uri.startswith("http"):
            client = TimedClient(client)
        client.search_experiments(max_results=1)
        return client


@contextmanager
def talking_to(uri: str | None, seconds: float = TALK_S) -> Iterator[None]:
    """Allow all calls inside together so many ``seconds``. What MLflow raises becomes a :class:`TrackingError` of one line
    that names the server."""
    try:
        with within(seconds):
            yield
    except TrackingError:
        raise
    except Exception as error:
        raise TrackingError(redact(f"MLflow at {uri}: {' '.join(str(error).split())[:300]}")) from error


def upload_seconds(files: list[Path]) -> float:
    """How long files may take to be sent."""
    return TALK_S + sum(file.stat().st_size for file in files) / BYTES_PER_S


def search_runs(client: Any, experiment_id: str, filter_string: str = "") -> list[Any]:
    """All runs of an experiment that a filter finds, page by page."""
    runs, token = [], None
    while True:
        page = client.search_runs([experiment_id], filter_string, max_results=RUNS_PER_REQUEST, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


class TrackedRun(NamedTuple):
    """A run as MLflow has it; ``history`` gives the values of every metric by epoch, under the names of the journal."""

    run_id: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    history: dict[str, dict[int, float]]


def read_experiment(uri: str, name: str) -> list[TrackedRun]:
    """The trainings of an experiment that have ended: runs that name their optimizer. Raises :class:`TrackingError` if
    there is none."""
    client = connect(uri)
    with talking_to(uri, READ_S):
        return _read(client, uri, name)


def _read(client: Any, uri: str, name: str) -> list[TrackedRun]:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        known = ", ".join(sorted(found.name for found in client.search_experiments()))
        raise TrackingError(f"no experiment {name!r} at {uri}; it has {known}")
    runs = [run for run in search_runs(client, experiment.experiment_id) if run.info.status in ENDED]
    runs = [run for run in runs if "optimizer.type" in run.data.params]
    if not runs:
        raise TrackingError(f"the experiment {name!r} at {uri} has no training that has ended")
    return [_tracked(client, run) for run in runs]


def _tracked(client: Any, run: Any) -> TrackedRun:
    names = [name for name in run.data.metrics if not name.startswith(NOT_BY_EPOCH) and not name.endswith(BY_STEP)]
    history: dict[str, dict[int, float]] = {}
    for name in names:  # a run that an older version began has some metrics under two names
        points = client.get_metric_history(run.info.run_id, name)
        history.setdefault(journal_metric(name), {}).update({point.step: point.value for point in points})
    return TrackedRun(run.info.run_id, run.info.status, dict(run.data.params), dict(run.data.tags), history)


def download_model(uri: str) -> Path:
    """The files of ``models:/NAME/VERSION`` or ``runs:/ID/model`` at $MLFLOW_TRACKING_URI, in a temporary folder.

    Raises ``FileNotFoundError`` if MLflow has no such model.
    """
    import mlflow.artifacts

    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (mlflow.MlflowException, ValueError) as error:
        raise FileNotFoundError(redact(f"MLflow has no model {uri}: {' '.join(str(error).split())[:300]}")) from error


def uri_with_credentials(uri: str) -> str:
    """The URI to connect to. MLflow's servers get user and password from the environment, databases in the URI."""
    full = os.environ.get("MLFLOW_TRACKING_URI", "")
    if full == uri or without_credentials(full) != uri:
        return uri
    if not uri.startswith("http"):
        return full if "://" in full else uri
    user, _, password = urlsplit(full).netloc.rpartition("@")[0].partition(":")
    os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(user))
    os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(password))
    return uri
