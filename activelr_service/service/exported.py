"""The trained model that a user names, found; and written as a file of another format."""

import os
from pathlib import Path

from activelr_service.errors import CommandError
from activelr_service.export.formats import ENDINGS, Exported, Format, export_file
from activelr_service.export.model import RECIPE, find_model
from activelr_service.inference.predictor import Predictor
from activelr_service.runs.run import find_run, output_root
from activelr_service.service.finish import check_model
from activelr_service.tracking.store import DATABASE, tracking_uri


def is_mlflow_uri(target: str) -> bool:
    """Whether a model is named as in MLflow: ``models:/NAME/VERSION``, ``models:/NAME@champion`` or ``runs:/ID/model``."""
    return ":/" in target


def find_exported(target: str, output_dir: str) -> Path:
    """The folder of the exported model of a run, in a folder, or of an MLflow URI, which is downloaded.

    A URI is looked up at ``$MLFLOW_TRACKING_URI``, else in the store of the output directory. Raises
    :class:`CommandError` if there is no such model.
    """
    root = output_root(output_dir)
    if is_mlflow_uri(target):
        if "MLFLOW_TRACKING_URI" not in os.environ and not (root / DATABASE).exists():
            text = f"{target} cannot be looked up: there is no MLflow store in {root}"
            raise CommandError(f"{text}; name its folder with --output-dir, or a server in $MLFLOW_TRACKING_URI")
        os.environ.setdefault("MLFLOW_TRACKING_URI", str(tracking_uri(None, root)))
        try:
            return find_model(target)
        except FileNotFoundError as error:
            raise CommandError(str(error)) from error
    if (Path(target) / RECIPE).is_file():
        return Path(target)
    run = find_run(root, target)
    check_model(run)
    return run.model


def export_model(target: str, output_dir: str, kind: Format, output: Path | None, is_half: bool) -> Exported:
    """Write the model that ``target`` names as ONNX or as a program of torch.export; see :func:`export_file`.

    Without an ``output`` the file is ``model.onnx`` or ``model.pt2`` beside the model's folder; for a model from MLflow,
    in the current folder. In half precision its name is ``model-half``.
    """
    folder = find_exported(target, output_dir)
    if output is None:
        place = Path() if is_mlflow_uri(target) else folder.parent
        output = place / f"model{'-half' if is_half else ''}{ENDINGS[kind]}"
    return export_file(Predictor.load(folder), kind, output, is_half)
