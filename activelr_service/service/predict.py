"""Answering raw input with the model of a run, of a folder, or of MLflow."""

import json
from pathlib import Path

from activelr_service.data.raw_inputs import describe_inputs
from activelr_service.errors import CommandError, InputError
from activelr_service.export.model import RECIPE
from activelr_service.inference.predictor import Predictor
from activelr_service.inference.run import Answered, Options, predict_file
from activelr_service.runs.run import Run
from activelr_service.service.exported import find_exported


def predict(target: str, output_dir: str, source: str, output: Path, device: str | None, options: Options) -> Answered:
    """Answer raw input with the model that ``target`` names; see :func:`predict_file`.

    ``device`` None means a GPU if there is one.
    """
    check_before(source, output, options)
    folder = find_exported(target, output_dir)
    inputs = None
    if "inputs" not in json.loads((folder / RECIPE).read_text()) and (folder.parent / "resolved.yaml").exists():
        inputs = describe_inputs(Run(folder.parent).job().data)  # of a run of an earlier version
    return predict_file(Predictor.load(folder, find_device(device), inputs), source, output, options)


def find_device(name: str | None) -> str:
    """The device to compute on. Raises :class:`CommandError` if torch does not have it here."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"--device: there is no device {name!r} here: {str(error).splitlines()[0]}") from error
    return name


def check_before(source: str, output: Path, options: Options) -> None:
    """Raise :class:`InputError` for what needs no model to be seen."""
    from activelr_service.inference.output import check_output

    check_output(output, source, options.overwrite)
    if options.batch_size is not None and options.batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, got {options.batch_size}")
