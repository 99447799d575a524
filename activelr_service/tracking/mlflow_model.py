"""An exported model as an MLflow model: a folder that MLflow loads, describes and serves by itself.

MLflow reads how it is called from its signature, and shows it with an example of its input.
"""

import json
import logging
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RECIPE, EXAMPLE = "recipe.json", "example.parquet"  # what an exported model names them
EXAMPLE_BYTES = 1_000_000  # of the images that MLflow shows as an example; it keeps them as base64, twice
LOADER = "activelr_service.pyfunc"


def save_mlflow_model(folder: Path, path: Path, **ids: str) -> Path:
    """Save the exported model in ``folder`` as a new MLflow model in ``path``, which is returned.

    ``ids`` may be its ``model_id`` and ``run_id`` in MLflow. It loads through :mod:`activelr_service.pyfunc`, from
    safetensors and not from pickle. A model without rows to show, of an older version, has no signature.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    recipe = json.loads((folder / RECIPE).read_text())
    example = read_example(folder)
    mlflow.pyfunc.save_model(
        path=str(path),
        mlflow_model=Model(**ids),
        loader_module=LOADER,
        data_path=str(folder),
        signature=None if example is None else make_signature(recipe, list(example.columns)),
        input_example=None if example is None else _lightest(example),
        metadata={"task": recipe["task"], "columns": _column_kinds(recipe)},
        pip_requirements=[f"activelr-service[train]=={version('activelr-service')}"],
    )
    return path


def server_command(model: Path, host: str, port: int) -> tuple[list[str], dict[str, str]]:
    """What starts MLflow's own server of an MLflow model, and its environment.

    ``mlflow models serve`` starts the same, with the ``uvicorn`` that ``$PATH`` finds; here it is that of this Python.
    """
    from mlflow.pyfunc import scoring_server

    command, environment = scoring_server.get_cmd(str(model), port, host, nworkers=1)
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    return [sys.executable, "-m", *shlex.split(command)], {**environment, **quiet}


def read_example(folder: Path) -> Any:
    """The raw rows that an exported model keeps, as a DataFrame of plain Python values, so that JSON can hold them.

    None if it keeps none.
    """
    import pandas as pd

    if not (folder / EXAMPLE).is_file():
        return None
    table = pd.read_parquet(folder / EXAMPLE).astype(object)
    return pd.DataFrame({name: pd.Series([_plain(cell) for cell in table[name]], dtype=object) for name in table})


def _lightest(example: Any) -> Any:
    """As many of the rows as MLflow can show at once: photographs of a camera have megabytes each. One row at least."""
    sizes = [sum(len(cell) for cell in row if isinstance(cell, bytes)) for row in example.to_numpy()]
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    count = sum(sum(sizes[row] for row in order[:end]) <= EXAMPLE_BYTES for end in range(1, len(order) + 1))
    return example.iloc[sorted(order[: max(1, count)])].reset_index(drop=True)


def _plain(cell: Any) -> Any:
    """A cell without numpy: nested lists for arrays, None for a missing value."""
    import pandas as pd

    if hasattr(cell, "tolist"):  # an array of arrays becomes a list of arrays
        cell = cell.tolist()
    if isinstance(cell, list):
        return [_plain(one) for one in cell]
    return None if pd.isna(cell) else cell


def make_signature(recipe: dict[str, Any], columns: list[str]) -> Any:
    """The columns that the model takes and those that it answers.

    Columns of a table and arrays have the type ``Any``: MLflow's own check of the type ``double`` refuses integers, and
    one bad value would refuse all rows. The model itself reads the values, and answers the good rows.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    kind = (recipe.get("inputs") or {}).get("type")
    types = {} if kind == "table" else {"image": "binary", "text": "string"}
    inputs = [ColSpec(types.get(name, AnyType()), name) for name in columns]
    outputs = [ColSpec(known or AnyType(), name) for name, known in _answers(recipe).items()]
    outputs.append(ColSpec("string", "error", required=False))
    is_text = recipe["task"] == "language_modeling"
    params = ParamSchema([ParamSpec("max_new_tokens", "long", None)]) if is_text else None
    return ModelSignature(Schema(inputs), Schema(outputs), params)


def _answers(recipe: dict[str, Any]) -> dict[str, str | None]:
    """The columns of an answer with their types; None for boxes, and for tokens, which are texts or lists of ids."""
    task, data = recipe["task"], recipe["data"]
    if task == "classification":
        names = data["classes"] or [str(number) for number in range(data["num_classes"] or 0)]
        return {"prediction": "string", **{f"probability_{name}": "double" for name in names}}
    if task == "language_modeling":
        return {"generated": None, "loss": "double", "perplexity": "double"}
    if task == "detection":
        return {"boxes": None}
    several = data.get("num_outputs") or 1
    return dict.fromkeys(["prediction"] if several == 1 else [f"prediction_{i}" for i in range(several)], "double")


def _column_kinds(recipe: dict[str, Any]) -> dict[str, str]:
    """Whether each column of a table holds numbers or categories, for people who read the MLflow model."""
    columns = (recipe.get("inputs") or {}).get("columns") or []
    return {column["name"]: "category" if "categories" in column else "number" for column in columns}
