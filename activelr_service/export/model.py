"""A trained model as files that need no pickle: ``model.safetensors`` and ``recipe.json``, how to build the module again."""

import hashlib
import json
from pathlib import Path
from typing import Any

from activelr_service.errors import JobError, naming_missing_packages
from activelr_service.models import recipe as recipes

WEIGHTS, RECIPE = "model.safetensors", "recipe.json"


def write_recipe(
    folder: Path,
    model: Any,
    info: Any,
    task: str,
    sha256: str,
    inputs: dict[str, Any] | None = None,
    temperature: float = 1.0,
) -> None:
    """Write how to build the model again, and the SHA-256 of its weights.

    ``model`` is its config, ``info`` a :class:`~activelr_service.data.info.DataInfo`. ``inputs`` say how raw input is read,
    as :func:`activelr_service.data.raw_inputs.describe_inputs` makes them. Probabilities are the softmax of the logits
    divided by ``temperature``.
    """
    recipe = {**recipes.make_recipe(model, info, task), "sha256": sha256}
    if inputs is not None:
        recipe |= {"inputs": inputs, "temperature": temperature}
    (folder / RECIPE).write_text(json.dumps(recipe, indent=1))


@naming_missing_packages("activelr_service.load_model")
def load_model(source: str | Path) -> Any:
    """The trained torch module, in eval mode on the CPU, with ``task``, ``classes`` and ``input_scale`` as attributes.

    ``source`` is a run folder's ``model``, or an MLflow URI such as ``models:/digits/1`` (at $MLFLOW_TRACKING_URI).
    Reads safetensors and JSON only. Raises ``FileNotFoundError`` if there is no model, ``ValueError`` if its recipe cannot
    be read or its weights are not those that were exported.
    """
    from pydantic import ValidationError
    from safetensors import SafetensorError

    folder = find_model(source)
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"no exported model in {folder}: there is no {WEIGHTS}")
    try:
        return _load(folder)
    except (JobError, ValidationError):  # they say what is wrong
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ValueError(
            f"the model in {folder} is damaged or not of this package; export it again ({reason})"
        ) from error


def _load(folder: Path) -> Any:
    from safetensors.torch import load_model as load_weights

    if not is_export_of(folder, None):
        raise ValueError(f"{WEIGHTS} is not what {RECIPE} says")
    module, info = build_from_recipe(folder)
    load_weights(module, str(folder / WEIGHTS))
    module.task, module.classes = json.loads((folder / RECIPE).read_text())["task"], info.classes
    module.input_scale = info.input_scale
    return module.eval()


def is_export_of(folder: Path, sha256: str | None) -> bool:
    """Whether ``folder`` holds a complete model with the weights of this SHA-256, or, for None, of that in its recipe.

    A recipe of version 0.1.0 has none: then the weights only have to be there.
    """
    if not (folder / RECIPE).exists() or not (folder / WEIGHTS).exists():
        return False
    try:
        written = json.loads((folder / RECIPE).read_text()).get("sha256")
    except (ValueError, AttributeError):
        return False
    if sha256 is None and written is None:
        return True
    return written == (sha256 or written) and sha256_of(folder / WEIGHTS) == written


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build_from_recipe(folder: Path) -> tuple[Any, Any]:
    """The module that the recipe in ``folder`` describes, with random weights, and the description of its data."""
    return recipes.build_from_recipe(json.loads((folder / RECIPE).read_text()))


def find_model(source: str | Path) -> Path:
    """The local folder of an exported model, downloaded first if ``source`` is an MLflow URI."""
    folder = Path(source)
    if ":/" in str(source):
        from activelr_service.tracking.client import download_model

        folder = download_model(str(source))
    found = sorted(folder.rglob(RECIPE))
    if not found:
        raise FileNotFoundError(f"no exported model in {source}: there is no {RECIPE}")
    return found[0].parent
