"""How MLflow loads a registered model: ``mlflow.pyfunc.load_model("models:/NAME/VERSION").predict(inputs)``."""

from typing import Any

import numpy as np

from activelr_service.export.model import load_model


class PyFuncModel:
    """Wraps the torch module: arrays in, arrays out. ``module`` is the module itself."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def predict(self, inputs: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray | list[dict[str, Any]]:
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


def _load_pyfunc(data_path: str) -> PyFuncModel:
    return PyFuncModel(load_model(data_path))
