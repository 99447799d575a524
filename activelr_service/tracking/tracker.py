"""One MLflow run, through a client that never waits long for a server that is gone."""

import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from activelr_service import __version__
from activelr_service.errors import RunGoneError, TrackingError
from activelr_service.redact import redact
from activelr_service.runs.record import Record
from activelr_service.tracking.client import connect, download_model, search_runs, talking_to, upload_seconds
from activelr_service.tracking.names import LONGEST_PARAM, LONGEST_TAG, cut, tracked_name
from activelr_service.tracking.registry import register_model

__all__ = ["RunGoneError", "Tracker", "TrackingError", "connect", "download_model", "search_runs"]

METRICS_PER_REQUEST, PARAMS_PER_REQUEST = 1000, 100  # what MLflow allows
ID_TAG = "activelr.run_id"
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class Tracker:
    """The MLflow run of one training. Every method raises :class:`TrackingError`, within seconds, if MLflow fails.

    What MLflow does not take as it is, it gets changed; ``say`` tells so, once for each name.
    """

    def __init__(self, client: Any, uri: str, run_id: str, said: set[str] | None = None) -> None:
        self._client = client
        self.uri = uri
        self.run_id = run_id
        self.say: Callable[[str], None] = print
        self._said = set() if said is None else said

    @classmethod
    def create(
        cls, uri: str, experiment: str, name: str, artifacts: Path | None = None, identity: str | None = None
    ) -> "Tracker":
        """A new run called ``name``. ``artifacts``: where an experiment made now keeps files; None lets a server decide.

        ``identity``: what the run is known by. If there is a run with it, that one is taken up: a process that was cut off
        just after it made the run is made up for.
        """
        client = connect(uri)
        tags = {
            **({ID_TAG: identity} if identity else {}),
            "mlflow.runName": name,
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": "activelr train",
            "mlflow.source.type": "JOB",
            "activelr.version": __version__,
        }
        with talking_to(uri):
            experiment_id = _experiment_id(client, experiment, artifacts)
            found = search_runs(client, experiment_id, f"tags.`{ID_TAG}` = '{identity}'") if identity else []
            run = found[0] if found else client.create_run(experiment_id, tags=tags)
        return cls(client, uri, run.info.run_id)

    @classmethod
    def reopen(cls, uri: str, run_id: str) -> "Tracker":
        """A run that was made before, running again. Raises :class:`RunGoneError` if MLflow has it no more."""
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
            raise RunGoneError(
                f"MLflow at {uri}: the run {run_id} is deleted; restored in MLflow it would be continued"
            )
        with talking_to(uri):
            client.update_run(run_id, status="RUNNING")
        return cls(client, uri, run_id)

    def log_params(self, params: dict[str, Any]) -> None:
        """Nested dicts become dotted names. Values that are there already stay as they are."""
        from mlflow.entities import Param

        with talking_to(self.uri):
            known = self._client.get_run(self.run_id).data.params
            flat = {
                self._name(key): self._cut(key, redact(text), LONGEST_PARAM)
                for key, text in _flatten(params).items()  # by its texts: a column of a table may be named password
            }
            new = [Param(key, text) for key, text in flat.items() if key not in known]
            for start in range(0, len(new), PARAMS_PER_REQUEST):
                self._client.log_batch(self.run_id, params=new[start : start + PARAMS_PER_REQUEST])

    def log_record(self, record: Record) -> None:
        """The metrics of one epoch, in one request; logging it again changes nothing."""
        self.log_records([record])

    def log_records(self, records: list[Record]) -> None:
        """The metrics of epochs, in as few requests as MLflow allows; logging them again changes nothing."""
        self.log_rows(
            [
                {
                    "epoch": record.epoch,
                    "timestamp_ms": record.timestamp_ms,
                    **record.metrics,
                    "global_step": float(record.global_step),
                }
                for record in records
            ]
        )

    def log_rows(self, rows: list[dict[str, float]]) -> None:
        """The metrics of epochs, each row with its ``epoch`` and ``timestamp_ms``; logging them again changes nothing."""
        from mlflow.entities import Metric

        entities = [
            Metric(self._name(name), value, int(row["timestamp_ms"]), int(row["epoch"]))
            for row in rows
            for name, value in row.items()
            if name not in ("epoch", "timestamp_ms")
        ]
        for start in range(0, len(entities), METRICS_PER_REQUEST):
            with talking_to(self.uri):
                self._client.log_batch(self.run_id, metrics=entities[start : start + METRICS_PER_REQUEST])

    def child(self, name: str, tags: dict[str, str]) -> "Tracker":
        """A new run under this one."""
        client = self._client
        with talking_to(self.uri):
            experiment_id = client.get_run(self.run_id).info.experiment_id
            tags = {"mlflow.runName": name, "mlflow.parentRunId": self.run_id, "mlflow.user": getpass.getuser(), **tags}
            return self._beside(client.create_run(experiment_id, tags=tags).info.run_id)

    def children(self, tag: str) -> dict[str, "Tracker"]:
        """The runs under this one, by the value of a tag of theirs."""
        with talking_to(self.uri):
            experiment_id = self._client.get_run(self.run_id).info.experiment_id
            found = search_runs(self._client, experiment_id, f"tags.mlflow.parentRunId = '{self.run_id}'")
            return {run.data.tags[tag]: self._beside(run.info.run_id) for run in found}

    def _beside(self, run_id: str) -> "Tracker":
        """The tracker of another run at the same server, which says nothing that this one has said."""
        return Tracker(self._client, self.uri, run_id, self._said)

    def log_artifacts(self, folder: Path, files: list[Path]) -> None:
        """Files into the run, under their paths relative to ``folder``."""
        with talking_to(self.uri, upload_seconds(files)):
            for file in files:
                parent = file.relative_to(folder).parent
                self._client.log_artifact(self.run_id, str(file), None if parent == Path() else str(parent))

    def keeps_files_in(self, root: Path) -> bool:
        """Whether the files of this run go to a folder below ``root``."""
        with talking_to(self.uri):
            place = self._client.get_run(self.run_id).info.artifact_uri
        return place.startswith((f"{root.as_uri()}/", f"{root}/"))

    def log_model(self, folder: Path, name: str, sha256: str) -> str:
        """See :func:`~activelr_service.tracking.registry.register_model`."""
        return register_model(self._client, self.uri, self.run_id, folder, name, sha256)

    def set_tags(self, tags: dict[str, Any]) -> None:
        with talking_to(self.uri):
            for key, value in tags.items():
                self._client.set_tag(self.run_id, self._name(key), self._cut(key, redact(str(value)), LONGEST_TAG))

    def _name(self, name: str) -> str:
        tracked = tracked_name(name)
        if tracked != name:
            self._say_once(f"MLflow does not take the name {name!r}: it is {tracked!r} there")
        return tracked

    def _cut(self, name: str, text: str, longest: int) -> str:
        if len(text) > longest:
            self._say_once(
                f"MLflow takes {longest:,} characters of a value: {name} is cut there, and whole in the job's file"
            )
        return cut(text, longest)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.say(redact(line))

    def delete(self) -> None:
        with talking_to(self.uri):
            self._client.delete_run(self.run_id)

    def finish(self, status: str) -> None:
        """``status`` as in a run's state: finished, failed or interrupted."""
        with talking_to(self.uri):
            self._client.set_terminated(self.run_id, STATUSES[status])


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


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat
