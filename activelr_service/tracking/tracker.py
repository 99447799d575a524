"""What a run tells its tracker, in five verbs: a tracker of one MLflow run, and one that tracks nothing."""

import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from activelr_service.redact import redact
from activelr_service.tracking.client import search_runs, talking_to, upload_seconds
from activelr_service.tracking.names import tracked_metric, tracked_name
from activelr_service.tracking.registry import ModelFacts, Registration, register_model

METRICS_PER_REQUEST, PARAMS_PER_REQUEST = 1000, 100  # what MLflow allows
LONGEST_PARAM, LONGEST_TAG = 6000, 8000  # characters that MLflow takes
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class Dataset(NamedTuple):
    """Data that a run reads: ``digest`` is a hash of the content, of at most 36 characters; ``path`` is None for data that a
    package brings; ``context`` is training, validation or test."""

    name: str
    digest: str
    path: str | None
    context: str
    num_rows: int


class Tracker(Protocol):
    """Where one run is tracked. Each call can be repeated: what is there already is neither changed nor doubled.

    ``uri`` and ``run_id`` are None where nothing is tracked. ``child``, ``children`` and ``delete`` are for studies, whose
    trials are runs under the run of the study.
    """

    uri: str | None
    run_id: str | None

    def log_params(self, params: dict[str, Any], tags: dict[str, Any] | None = None) -> None:
        """Nested dicts of parameters become dotted names. A parameter that is there keeps its value; a tag is replaced."""

    def log_metrics(self, rows: list[dict[str, float]]) -> None:
        """The metrics of epochs: each row has its ``epoch`` and its ``timestamp_ms``. Within an epoch it has a ``step`` too,
        against which its metrics are logged."""

    def log_inputs(self, datasets: list[Dataset]) -> None:
        """The data that the run reads."""

    def log_artifacts(self, folder: Path, files: list[Path]) -> None:
        """Files, under their paths relative to ``folder``."""

    def log_model(self, folder: Path, name: str, sha256: str, facts: ModelFacts) -> str | None:
        """Register the exported model in ``folder``, whose weights have this SHA-256; returns its URI, if it has one."""

    def end(self, status: str) -> None:
        """``status`` as in the state of a run: finished, failed or interrupted."""

    def child(self, name: str, tags: dict[str, str]) -> "Tracker":
        """The tracker of a new run under this one."""

    def children(self, tag: str) -> "dict[str, Tracker]":
        """The trackers of the runs under this one, by the value of one of their tags."""

    def delete(self) -> None:
        """Delete the run from what tracks it."""


class NoTracker:
    """Tracks nothing: ``tracking: {backend: none}``."""

    uri: str | None = None
    run_id: str | None = None

    def log_params(self, params: dict[str, Any], tags: dict[str, Any] | None = None) -> None:
        pass

    def log_metrics(self, rows: list[dict[str, float]]) -> None:
        pass

    def log_inputs(self, datasets: list[Dataset]) -> None:
        pass

    def log_artifacts(self, folder: Path, files: list[Path]) -> None:
        pass

    def log_model(self, folder: Path, name: str, sha256: str, facts: ModelFacts) -> str | None:
        return None

    def end(self, status: str) -> None:
        pass

    def child(self, name: str, tags: dict[str, str]) -> Tracker:
        return self

    def children(self, tag: str) -> dict[str, Tracker]:
        return {}

    def delete(self) -> None:
        pass


class MlflowTracker:
    """One MLflow run. Every method raises :class:`~activelr_service.errors.TrackingError`, within seconds, if MLflow fails.

    Names and values that MLflow does not take are changed; ``log`` gets one line for each name, once.
    """

    def __init__(
        self, client: Any, uri: str, run_id: str, log: Callable[[str], None] = print, logged: set[str] | None = None
    ) -> None:
        self._client = client
        self.uri: str | None = uri
        self.run_id: str | None = run_id
        self.log = log
        self._logged = set() if logged is None else logged

    def log_params(self, params: dict[str, Any], tags: dict[str, Any] | None = None) -> None:
        from mlflow.entities import Param

        with talking_to(self.uri):
            known = self._client.get_run(self.run_id).data.params if params else {}
            flat = {
                self._name(key): self._cut(key, redact(text), LONGEST_PARAM)
                for key, text in _flatten(
                    params
                ).items()  # each text by itself: a column of a table may be named password
            }
            new = [Param(key, text) for key, text in flat.items() if key not in known]
            for start in range(0, len(new), PARAMS_PER_REQUEST):
                self._client.log_batch(self.run_id, params=new[start : start + PARAMS_PER_REQUEST])
        with talking_to(self.uri):
            for key, value in (tags or {}).items():
                self._client.set_tag(self.run_id, self._name(key), self._cut(key, redact(str(value)), LONGEST_TAG))

    def log_metrics(self, rows: list[dict[str, float]]) -> None:
        from mlflow.entities import Metric

        entities = [
            Metric(
                self._name(tracked_metric(name)), value, int(row["timestamp_ms"]), int(row.get("step", row["epoch"]))
            )
            for row in rows
            for name, value in row.items()
            if name not in ("epoch", "step", "timestamp_ms")
        ]
        for start in range(0, len(entities), METRICS_PER_REQUEST):
            with talking_to(self.uri):
                self._client.log_batch(self.run_id, metrics=entities[start : start + METRICS_PER_REQUEST])

    def log_inputs(self, datasets: list[Dataset]) -> None:
        with talking_to(self.uri):
            self._client.log_inputs(self.run_id, [_dataset_input(dataset) for dataset in datasets])

    def log_artifacts(self, folder: Path, files: list[Path]) -> None:
        with talking_to(self.uri, upload_seconds(files)):
            for file in files:
                parent = file.relative_to(folder).parent
                self._client.log_artifact(self.run_id, str(file), None if parent == Path() else str(parent))

    def log_model(self, folder: Path, name: str, sha256: str, facts: ModelFacts) -> str | None:
        metrics = {split: {self._name(key): one for key, one in some.items()} for split, some in facts.metrics.items()}
        facts = facts._replace(metrics=metrics)
        what = Registration(str(self.run_id), folder, name, sha256)
        return register_model(self._client, str(self.uri), what, facts, self.log)

    def end(self, status: str) -> None:
        with talking_to(self.uri):
            self._client.set_terminated(self.run_id, STATUSES[status])

    def child(self, name: str, tags: dict[str, str]) -> Tracker:
        client = self._client
        with talking_to(self.uri):
            experiment_id = client.get_run(self.run_id).info.experiment_id
            tags = {
                "mlflow.runName": name,
                "mlflow.parentRunId": str(self.run_id),
                "mlflow.user": getpass.getuser(),
                **tags,
            }
            return self._beside(client.create_run(experiment_id, tags=tags).info.run_id)

    def children(self, tag: str) -> dict[str, Tracker]:
        with talking_to(self.uri):
            experiment_id = self._client.get_run(self.run_id).info.experiment_id
            found = search_runs(self._client, experiment_id, f"tags.mlflow.parentRunId = '{self.run_id}'")
            return {run.data.tags[tag]: self._beside(run.info.run_id) for run in found}

    def delete(self) -> None:
        with talking_to(self.uri):
            self._client.delete_run(self.run_id)

    def keeps_files_in(self, root: Path) -> bool:
        """Whether the files of this run go to a folder below ``root``."""
        with talking_to(self.uri):
            place = self._client.get_run(self.run_id).info.artifact_uri
        return place.startswith((f"{root.as_uri()}/", f"{root}/"))

    def _beside(self, run_id: str) -> Tracker:
        """The tracker of another run at the same server. It does not repeat the lines that this one has logged."""
        return MlflowTracker(self._client, str(self.uri), run_id, self.log, self._logged)

    def _name(self, name: str) -> str:
        tracked = tracked_name(name)
        if tracked != name:
            self._log_once(f"MLflow does not take the name {name!r}: it is {tracked!r} there")
        return tracked

    def _cut(self, name: str, text: str, longest: int) -> str:
        if len(text) > longest:
            self._log_once(
                f"MLflow takes {longest:,} characters of a value: {name} is cut there, and whole in the job's file"
            )
        return cut(text, longest)

    def _log_once(self, line: str) -> None:
        if line not in self._logged:
            self._logged.add(line)
            self.log(redact(line))


def _dataset_input(dataset: Dataset) -> Any:
    """The number of rows is a tag: MLflow keeps one description of a dataset for all runs, whatever share each one reads."""
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag

    source_type = "local" if dataset.path else "code"
    source = json.dumps({"uri": dataset.path} if dataset.path else {"tags": {}})
    entity = DatasetEntity(dataset.name, dataset.digest, source_type, source)
    tags = [InputTag("mlflow.data.context", dataset.context), InputTag("num_rows", str(dataset.num_rows))]
    return DatasetInput(entity, tags)


def cut(text: str, longest: int) -> str:
    """The text, or its beginning up to ``longest`` characters, with a mark that says how long it is."""
    if len(text) <= longest:
        return text
    mark = f"... ({len(text):,} characters in all)"
    return text[: longest - len(mark)] + mark


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat
