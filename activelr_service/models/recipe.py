"""The recipe of an exported model: what is needed to build its module again, as plain JSON."""

from typing import Any

from activelr_service.config.model import MODEL_CONFIG, ModelConfig
from activelr_service.data.info import DataInfo
from activelr_service.models import build_model, exported_config


def make_recipe(config: ModelConfig, info: DataInfo, task: str) -> dict[str, Any]:
    """The config of the model, a description of its data, and its task. What was read and left out stays with the run."""
    data = info._replace(notes=(), warnings=())._asdict()
    return {"model": exported_config(config).model_dump(mode="json"), "task": task, "data": data}


def build_from_recipe(recipe: dict[str, Any]) -> tuple[Any, DataInfo]:
    """The module with random weights, and the description of the data that it was built for.

    Raises pydantic's ``ValidationError``, :class:`~activelr_service.errors.JobError` for what cannot be built here, and
    ``ValueError`` for a recipe that refers to a folder.
    """
    info, config = DataInfo.from_json(recipe["data"]), MODEL_CONFIG.validate_python(recipe["model"])
    if getattr(config, "path", None) is not None:
        raise ValueError("its recipe refers to a folder of another place, and an exported model never does")
    return build_model(config, info, recipe["task"]), info
