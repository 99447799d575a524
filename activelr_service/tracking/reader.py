"""Reading the trainings of an MLflow experiment back."""

from typing import Any, NamedTuple

from activelr_service.errors import TrackingError
from activelr_service.tracking.client import connect, search_runs, talking_to

READ_S = 600  # how long an experiment may take to be read
ENDED = ("FINISHED", "FAILED", "KILLED")


class TrackedRun(NamedTuple):
    """A run as MLflow has it; ``history`` gives the values of every metric by step."""

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
    history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    values = {name: {metric.step: metric.value for metric in metrics} for name, metrics in history.items()}
    return TrackedRun(run.info.run_id, run.info.status, dict(run.data.params), dict(run.data.tags), values)
