"""How MLflow loads a registered model: ``mlflow.pyfunc.load_model("models:/NAME/VERSION").predict(inputs)``."""

from typing import Any

import numpy as np

from activelr_service.export import load_model


class PyFuncModel:
    """Wraps the torch module: arrays in, arrays out. ``module`` is the module itself."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def predict(self, inputs: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Logits, regression values, or for token ids the logits of every next token, of a batch of rows."""
        import torch

        rows = torch.as_tensor(np.asarray(inputs))
        with torch.no_grad():
            if self.module.task == "language_modeling":
                return self.module(input_ids=rows.long()).logits.numpy()
            return self.module(rows.float()).numpy()


def _load_pyfunc(data_path: str) -> PyFuncModel:
    return PyFuncModel(load_model(data_path))
