"""The model of a run in MLflow: its files, and a version of a registered model. Each step finds what was done before."""

import tempfile
from pathlib import Path
from typing import Any

from activelr_service import __version__
from activelr_service.tracking.client import talking_to, upload_seconds

WEIGHTS_TAG = "activelr.weights_sha256"


def register_model(client: Any, uri: str, run_id: str, folder: Path, name: str, sha256: str) -> str:
    """Register the exported model in ``folder`` under ``name``; returns its URI, ``models:/NAME/VERSION``.

    ``sha256``: of its weights. What this run has with these weights is neither sent nor registered again; what an upload
    that was cut off has left is deleted. The MLflow model loads through :mod:`activelr_service.pyfunc`, from safetensors:
    no pickle. Raises :class:`~activelr_service.tracking.client.TrackingError`.
    """
    with talking_to(uri):
        version = _find_version(client, run_id, name, sha256)
        model = None if version else _find_model(client, run_id, sha256)
    if version is None:
        seconds = upload_seconds([file for file in folder.rglob("*") if file.is_file()])
        with talking_to(uri, seconds):
            model = model or _upload(client, run_id, folder, name, sha256)
        with talking_to(uri):
            version = _create_version(client, run_id, model, name, sha256)
    return f"models:/{name}/{version.version}"


def _find_version(client: Any, run_id: str, name: str, sha256: str) -> Any:
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    return next((one for one in versions if one.name == name and one.tags.get(WEIGHTS_TAG) == sha256), None)


def _find_model(client: Any, run_id: str, sha256: str) -> Any:
    """The complete model of this run with these weights; None if there is none. Incomplete ones are deleted."""
    from mlflow.entities import LoggedModelStatus

    experiment_id = client.get_run(run_id).info.experiment_id
    found = None
    for model in client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'"):
        if model.status != LoggedModelStatus.READY:
            client.delete_logged_model(model.model_id)
        elif model.tags.get(WEIGHTS_TAG) == sha256:
            found = model
    return found


def _upload(client: Any, run_id: str, folder: Path, name: str, sha256: str) -> Any:
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    experiment_id = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(
        experiment_id, name=name.replace(".", "_"), source_run_id=run_id, tags={WEIGHTS_TAG: sha256}
    )
    with tempfile.TemporaryDirectory() as temporary:
        mlflow.pyfunc.save_model(
            path=f"{temporary}/model",
            mlflow_model=Model(model_id=model.model_id, run_id=run_id),
            loader_module="activelr_service.pyfunc",
            data_path=str(folder),
            pip_requirements=[f"activelr-service=={__version__}"],
        )
        client.log_model_artifacts(model.model_id, f"{temporary}/model")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.finalize_logged_model(model.model_id, "READY")


def _create_version(client: Any, run_id: str, model: Any, name: str, sha256: str) -> Any:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return client.create_model_version(
        name, source=model.artifact_location, run_id=run_id, model_id=model.model_id, tags={WEIGHTS_TAG: sha256}
    )
