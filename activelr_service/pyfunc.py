"""How MLflow loads a registered model: ``mlflow.pyfunc.load_model("models:/NAME/VERSION").predict(rows)``."""

import base64
import os
from typing import Any

import numpy as np

from activelr_service.errors import InputError
from activelr_service.inference.predictor import Predictor, load_module_or_predictor

SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"  # MLflow's server sets it to "true"


class PyFuncModel:
    """Takes raw rows and answers with a DataFrame. ``module`` is the torch module itself.

    ``predictor`` reads the rows. It is None for a model of an earlier version, which takes and returns arrays.
    """

    def __init__(self, module: Any, predictor: Predictor | None = None) -> None:
        self.module, self.predictor = module, predictor

    def predict(self, inputs: Any, params: dict[str, Any] | None = None) -> Any:
        """The answers to raw rows, as a DataFrame of one row for each; see :class:`Predictor`.

        ``inputs`` are a DataFrame, a dict of columns, a list of dicts, or the cells of the only column that the model
        takes: a Series, a list or an array of them. Rows of a table may also be an array in the order of the columns.
        ``params`` may have ``max_new_tokens`` for texts, and ``batch_size``.
        """
        if self.predictor is None:
            return self._predict_arrays(inputs)
        if os.environ.get(SERVING) == "true":
            return _serve(self.predictor, inputs, params or {})
        answers = self.predictor.predict(_to_frame(self.predictor, inputs), **(params or {}))
        is_there = answers.notna()
        return answers if is_there.all(axis=None) else answers.astype(object).where(is_there, None)  # JSON has no NaN

    def _predict_arrays(self, inputs: Any) -> Any:
        """Logits, regression values, or for token ids the logits of every next token, of a batch of rows.

        Integers are divided by what the training divided them by: pixels of 0 to 255 in a .npz file of uint8 by 255.
        Floating-point numbers are taken as the model sees them.

        Of a batch of images (n, 3, height, width) in [0, 1] for detection, n dicts: ``boxes`` (found, 4) as xmin, ymin,
        xmax, ymax in pixels, ``labels`` (found,), of which label k is ``module.classes[k - 1]``, and ``scores`` (found,).
        """
        import torch

        rows = torch.as_tensor(np.asarray(inputs))
        with torch.no_grad():
            if self.module.task == "language_modeling":
                return self.module(input_ids=rows.long()).logits.numpy()
            if self.module.task == "detection":
                images = self.module(list(rows.float()))
                return [{name: tensor.numpy() for name, tensor in image.items()} for image in images]
            scale = 1.0 if rows.is_floating_point() else self.module.input_scale
            return self.module(rows.float() / scale).numpy()


def _serve(predictor: Predictor, inputs: Any, params: dict[str, Any]) -> Any:
    """The answers as MLflow's server sends them: JSON has null and no NaN. An error of the input is its answer."""
    from mlflow.exceptions import MlflowException

    try:
        frame = _to_frame(predictor, inputs)
        if predictor.kind == "image" and "image" in frame.columns:
            frame = frame.assign(image=[_without_path(cell) for cell in frame["image"]])
        answers = predictor.predict(frame, **params)
    except InputError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error
    return answers.astype(object).where(answers.notna(), None)


def _without_path(cell: Any) -> Any:
    """A text as the bytes that it encodes: who asks a server must not read the files of its machine."""
    if not isinstance(cell, str):
        return cell
    try:
        return base64.b64decode(cell, validate=True)
    except ValueError:
        return b""


def _to_frame(predictor: Predictor, inputs: Any) -> Any:
    """The raw rows as a DataFrame. Raises :class:`InputError` for what cannot be rows of this model."""
    import pandas as pd

    if isinstance(inputs, pd.DataFrame):
        return inputs
    if isinstance(inputs, dict):
        is_one = not any(isinstance(value, list | tuple | np.ndarray | pd.Series) for value in inputs.values())
        return pd.DataFrame([inputs] if is_one else inputs)
    names = predictor.columns
    if isinstance(inputs, str | bytes):
        inputs = [inputs]
    if isinstance(inputs, list) and inputs and all(isinstance(row, dict) for row in inputs):
        return pd.DataFrame(inputs)
    if len(names) == 1:
        return pd.DataFrame({names[0]: list(inputs)})
    rows = list(inputs)
    if any(np.shape(row) != (len(names),) for row in rows):
        text = f"rows of {len(names)} values are needed, in the order of the columns {', '.join(map(repr, names[:5]))}"
        raise InputError(f"{text}{', ...' if len(names) > 5 else ''}; a DataFrame may have them in any order")
    return pd.DataFrame(rows, columns=names)


def _load_pyfunc(data_path: str) -> PyFuncModel:
    return PyFuncModel(*load_module_or_predictor(data_path))
