"""Registering an exported model in MLflow: its files, what describes it, its metrics, and the alias of the best version."""

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from activelr_service.redact import redact
from activelr_service.tracking.client import talking_to, upload_seconds
from activelr_service.tracking.mlflow_model import save_mlflow_model

WEIGHTS_TAG = "activelr.weights_sha256"
SCORE_TAG, SCORE_NAME_TAG, DATA_TAG = "activelr.score", "activelr.score_name", "activelr.data"
CHAMPION = "champion"
LONGEST_DESCRIPTION = 5000  # characters that MLflow takes


class ModelFacts(NamedTuple):
    """What MLflow shows of a model beside its files.

    ``score_name`` is the metric that chose the best epoch, such as ``val/accuracy``, and ``score`` its value. ``metrics``
    are those of that epoch by split, logged at ``timestamp_ms``. ``datasets`` are the names of the datasets of these
    splits among the inputs of the run, and ``fingerprint`` is their digest. ``card`` is Markdown.
    """

    run: str
    task: str
    epoch: int
    timestamp_ms: int
    score_name: str
    score: float | None
    higher_is_better: bool
    metrics: dict[str, dict[str, float]]
    datasets: dict[str, str]
    fingerprint: str
    card: str

    def tags(self) -> dict[str, str]:
        """The tags of the model and of its version."""
        score = {} if self.score is None else {SCORE_TAG: repr(self.score)}
        return {
            **score,
            SCORE_NAME_TAG: self.score_name,
            DATA_TAG: self.fingerprint,
            "activelr.run": self.run,
            "activelr.task": self.task,
            "activelr.epoch": str(self.epoch),
        }


class Registration(NamedTuple):
    """What is registered where: the model in ``folder``, with weights of this SHA-256, of an MLflow run, under ``name``."""

    run_id: str
    folder: Path
    name: str
    sha256: str


def register_model(
    client: Any, uri: str, what: Registration, facts: ModelFacts, log: Callable[[str], None] = print
) -> str:
    """Register an exported model; returns its URI, ``models:/NAME/VERSION``.

    A model of this run with these weights is neither sent nor registered again; an incomplete upload is deleted. The
    alias ``champion`` is moved if this version has the best score of its name; ``log`` gets a line where it is not
    compared. Raises :class:`~activelr_service.errors.TrackingError`.
    """
    import mlflow.pyfunc  # noqa: F401 - it takes seconds, which are not those of a server

    with talking_to(uri):
        version, model = _find_version(client, what), _find_model(client, what)
    if version is None and model is None:
        seconds = upload_seconds([file for file in what.folder.rglob("*") if file.is_file()])
        with talking_to(uri, seconds):
            model = _upload(client, what)
    with talking_to(uri):
        version = version or _create_version(client, model, what)
        _describe(client, version, facts)
    if model is not None:  # None: somebody deleted it, and the version without its files is what there is
        with talking_to(uri):
            _describe_model(client, version, model.model_id, facts)
    with talking_to(uri):
        _choose_champion(client, version, facts, log)
    return f"models:/{what.name}/{version.version}"


def _find_version(client: Any, what: Registration) -> Any:
    versions = client.search_model_versions(f"run_id = '{what.run_id}'")
    return next((one for one in versions if one.name == what.name and one.tags.get(WEIGHTS_TAG) == what.sha256), None)


def _find_model(client: Any, what: Registration) -> Any:
    """The complete model of this run with these weights; None if there is none. Incomplete ones are deleted."""
    from mlflow.entities import LoggedModelStatus

    experiment_id = client.get_run(what.run_id).info.experiment_id
    found = None
    for model in client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{what.run_id}'"):
        if model.status != LoggedModelStatus.READY:
            client.delete_logged_model(model.model_id)
        elif model.tags.get(WEIGHTS_TAG) == what.sha256:
            found = model
    return found


def _upload(client: Any, what: Registration) -> Any:
    from mlflow.entities import LoggedModelOutput

    experiment_id = client.get_run(what.run_id).info.experiment_id
    name, tags = what.name.replace(".", "_"), {WEIGHTS_TAG: what.sha256}
    model = client.create_logged_model(experiment_id, name=name, source_run_id=what.run_id, tags=tags)
    with tempfile.TemporaryDirectory() as temporary:
        path = save_mlflow_model(what.folder, Path(temporary, "model"), model_id=model.model_id, run_id=what.run_id)
        client.log_model_artifacts(model.model_id, str(path))
    client.log_outputs(what.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.finalize_logged_model(model.model_id, "READY")


def _create_version(client: Any, model: Any, what: Registration) -> Any:
    if not client.search_registered_models(f"name = '{what.name}'"):
        client.create_registered_model(what.name)
    tags = {WEIGHTS_TAG: what.sha256}
    return client.create_model_version(
        what.name, source=model.artifact_location, run_id=what.run_id, model_id=model.model_id, tags=tags
    )


def _describe(client: Any, version: Any, facts: ModelFacts) -> None:
    """The tags and the description of a version; the description is that of the name as well."""
    description = redact(shorten(facts.card))
    for key, value in facts.tags().items():
        client.set_model_version_tag(version.name, version.version, key, value)
    client.update_model_version(version.name, version.version, description)
    client.update_registered_model(version.name, description)


def _describe_model(client: Any, version: Any, model_id: str, facts: ModelFacts) -> None:
    """The tags of a model, and the metrics of its epoch with the datasets that they were measured on.

    Each call can be repeated: MLflow keeps one of two equal metrics, also of those that the run has already.
    """
    from mlflow.entities import Metric

    versions = json.dumps([{"name": version.name, "version": int(version.version)}])
    notes = {
        "mlflow.note.content": redact(shorten(facts.card)),
        "mlflow.modelVersions": versions,
    }  # as MLflow's own registration
    client.set_logged_model_tags(model_id, {**facts.tags(), **notes})
    metrics = [
        Metric(
            *(name, value, facts.timestamp_ms, facts.epoch, model_id, facts.datasets[split], facts.fingerprint),
            run_id=version.run_id,
        )
        for split, values in facts.metrics.items()
        for name, value in values.items()
    ]
    client.log_batch(version.run_id, metrics=metrics)


def shorten(card: str) -> str:
    """The beginning of a text, whole lines, as much of it as MLflow takes for a description."""
    if len(card) <= LONGEST_DESCRIPTION:
        return card
    mark = "\n\n(cut here: the file README.md of the model is whole)"
    return card[: LONGEST_DESCRIPTION - len(mark)].rpartition("\n")[0] + mark


def _choose_champion(client: Any, version: Any, facts: ModelFacts, log: Callable[[str], None]) -> None:
    """Give the alias to the version with the best score. Its holder keeps it if no other is better."""
    name = version.name
    aliased = client.get_registered_model(name).aliases.get(CHAMPION)
    holder = None if aliased is None else int(aliased)  # a store has numbers here, and a server texts
    versions = {int(one.version): one for one in client.search_model_versions(f"name = '{name}'")}
    scores = {number: _score(one, facts) for number, one in versions.items()}
    known = {number: score for number, score in scores.items() if score is not None}
    if holder is not None and holder not in known:
        text = f"it has no {facts.score_name} to compare"
        log(f"the alias {CHAMPION!r} of the model {name} stays on version {holder}: {text}")
        return
    if not known:
        return
    sign = 1 if facts.higher_is_better else -1
    best = max(known, key=lambda number: (sign * known[number], number == holder, -number))
    if best != holder:
        client.set_registered_model_alias(name, CHAMPION, str(best))
    if len({versions[number].tags.get(DATA_TAG) for number in known}) > 1:
        log(f"the versions of the model {name} were measured on different data; {CHAMPION!r} is version {best}")


def _score(version: Any, facts: ModelFacts) -> float | None:
    """The score of a version; None if it was measured by another metric or not at all."""
    if version.tags.get(SCORE_NAME_TAG) != facts.score_name or SCORE_TAG not in version.tags:
        return None
    score = float(version.tags[SCORE_TAG])
    return score if math.isfinite(score) else None
