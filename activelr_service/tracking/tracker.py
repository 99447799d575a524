"""One MLflow run, through a client that never waits long for a server that is gone."""

import getpass
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from activelr_service import __version__
from activelr_service.record import Record

REQUEST_TIMEOUT_S = 4
METRICS_PER_REQUEST, RUNS_PER_REQUEST = 1000, 1000  # what MLflow allows, and what it returns at once
ID_TAG, WEIGHTS_TAG = "activelr.run_id", "activelr.weights_sha256"
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class TrackingError(RuntimeError):
    """MLflow could not be reached or refused."""


class RunGoneError(TrackingError):
    """An MLflow run is not there any more."""


class Tracker:
    """The MLflow run of one training. Every method raises :class:`TrackingError`, within seconds, if MLflow fails."""

    def __init__(self, client: Any, uri: str, run_id: str) -> None:
        self._client = client
        self.uri = uri
        self.run_id = run_id

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
        with _tracking_errors(uri):
            experiment_id = _experiment_id(client, experiment, artifacts)
            found = search_runs(client, experiment_id, f"tags.`{ID_TAG}` = '{identity}'") if identity else []
            run = found[0] if found else client.create_run(experiment_id, tags=tags)
        return cls(client, uri, run.info.run_id)

    @classmethod
    def reopen(cls, uri: str, run_id: str) -> "Tracker":
        """A run that was made before, running again."""
        client = connect(uri)
        with _tracking_errors(uri):
            client.update_run(run_id, status="RUNNING")
        return cls(client, uri, run_id)

    def log_params(self, params: dict[str, Any]) -> None:
        """Nested dicts become dotted names. Values that are there already stay as they are."""
        from mlflow.entities import Param

        with _tracking_errors(self.uri):
            known = self._client.get_run(self.run_id).data.params
            new = {key: value for key, value in _flatten(params).items() if key not in known}
            self._client.log_batch(self.run_id, params=[Param(key, value) for key, value in new.items()])

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
            Metric(name, value, int(row["timestamp_ms"]), int(row["epoch"]))
            for row in rows
            for name, value in row.items()
            if name not in ("epoch", "timestamp_ms")
        ]
        with _tracking_errors(self.uri):
            for start in range(0, len(entities), METRICS_PER_REQUEST):
                self._client.log_batch(self.run_id, metrics=entities[start : start + METRICS_PER_REQUEST])

    def child(self, name: str, tags: dict[str, str]) -> "Tracker":
        """A new run under this one."""
        client = self._client
        with _tracking_errors(self.uri):
            experiment_id = client.get_run(self.run_id).info.experiment_id
            tags = {"mlflow.runName": name, "mlflow.parentRunId": self.run_id, "mlflow.user": getpass.getuser(), **tags}
            return Tracker(client, self.uri, client.create_run(experiment_id, tags=tags).info.run_id)

    def children(self, tag: str) -> dict[str, "Tracker"]:
        """The runs under this one, by the value of a tag of theirs."""
        with _tracking_errors(self.uri):
            experiment_id = self._client.get_run(self.run_id).info.experiment_id
            found = search_runs(self._client, experiment_id, f"tags.mlflow.parentRunId = '{self.run_id}'")
            return {run.data.tags[tag]: Tracker(self._client, self.uri, run.info.run_id) for run in found}

    def log_artifacts(self, folder: Path, files: list[Path]) -> None:
        """Files into the run, under their paths relative to ``folder``."""
        with _tracking_errors(self.uri):
            for file in files:
                parent = file.relative_to(folder).parent
                self._client.log_artifact(self.run_id, str(file), None if parent == Path() else str(parent))

    def keeps_files_in(self, root: Path) -> bool:
        """Whether the files of this run go to a folder below ``root``."""
        with _tracking_errors(self.uri):
            place = self._client.get_run(self.run_id).info.artifact_uri
        return place.startswith((f"{root.as_uri()}/", f"{root}/"))

    def log_model(self, folder: Path, name: str, sha256: str) -> str:
        """Register the exported model in ``folder`` under ``name``; returns its URI, ``models:/NAME/VERSION``.

        ``sha256``: of its weights; a version of this run with these weights is not registered again. The MLflow model loads
        through :mod:`activelr_service.pyfunc`, from safetensors: no pickle.
        """
        with _tracking_errors(self.uri):
            for version in self._client.search_model_versions(f"run_id = '{self.run_id}'"):
                if version.name == name and version.tags.get(WEIGHTS_TAG) == sha256:
                    return f"models:/{name}/{version.version}"
        import mlflow.pyfunc
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        with _tracking_errors(self.uri), tempfile.TemporaryDirectory() as temporary:
            experiment_id = self._client.get_run(self.run_id).info.experiment_id
            model = self._client.create_logged_model(
                experiment_id, name=name.replace(".", "_"), source_run_id=self.run_id
            )
            mlflow.pyfunc.save_model(
                path=f"{temporary}/model",
                mlflow_model=Model(model_id=model.model_id, run_id=self.run_id),
                loader_module="activelr_service.pyfunc",
                data_path=str(folder),
                pip_requirements=[f"activelr-service=={__version__}"],
            )
            self._client.log_model_artifacts(model.model_id, f"{temporary}/model")
            self._client.finalize_logged_model(model.model_id, "READY")
            self._client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=0)])
            return f"models:/{name}/{self._register(name, model, sha256)}"

    def _register(self, name: str, model: Any, sha256: str) -> str:
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        version = self._client.create_model_version(
            name,
            source=model.artifact_location,
            run_id=self.run_id,
            model_id=model.model_id,
            tags={WEIGHTS_TAG: sha256},
        )
        return str(version.version)

    def set_tags(self, tags: dict[str, Any]) -> None:
        with _tracking_errors(self.uri):
            for key, value in tags.items():
                self._client.set_tag(self.run_id, key, str(value)[:5000])

    def delete(self) -> None:
        with _tracking_errors(self.uri):
            self._client.delete_run(self.run_id)

    def finish(self, status: str) -> None:
        """``status`` as in a run's state: finished, failed or interrupted."""
        with _tracking_errors(self.uri):
            self._client.set_terminated(self.run_id, STATUSES[status])


def connect(uri: str) -> Any:
    """An MLflow client for ``uri``, which answers; raises :class:`TrackingError` within 15 seconds if it does not."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_S))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with _tracking_errors(uri):
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
        return client


def search_runs(client: Any, experiment_id: str, filter_string: str = "") -> list[Any]:
    """All runs of an experiment that a filter finds, page by page."""
    runs, token = [], None
    while True:
        page = client.search_runs([experiment_id], filter_string, max_results=RUNS_PER_REQUEST, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def download_model(uri: str) -> Path:
    """The files of ``models:/NAME/VERSION`` or ``runs:/ID/model`` at $MLFLOW_TRACKING_URI, in a temporary folder."""
    import mlflow.artifacts

    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))


class _tracking_errors:  # noqa: N801 - reads as a statement
    """Turns whatever MLflow raises into :class:`TrackingError` with one line that names the server."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, TrackingError):
            text = " ".join(str(error).split())[:300]
            raise TrackingError(f"MLflow at {self.uri}: {text}") from error


def _experiment_id(client: Any, name: str, artifacts: Path | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts.as_uri() if artifacts else None)
        except Exception:  # another job made it in between: MLflow has no create-if-missing
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if artifacts is not None and not _is_below(found.artifact_location, artifacts):
        return _experiment_id(
            client, _next_name(name), artifacts
        )  # the store was moved: its files would go to where it was
    if found.lifecycle_stage == "deleted":
        raise TrackingError(f"the experiment {name!r} is deleted; restore it in MLflow or set tracking.experiment")
    return found.experiment_id


def _is_below(location: str, artifacts: Path) -> bool:
    return location.rstrip("/") in (artifacts.as_uri(), str(artifacts))


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
            flat[prefix + key] = (value if isinstance(value, str) else json.dumps(value))[:5000]
    return flat
