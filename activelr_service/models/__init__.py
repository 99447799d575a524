"""The types of model that a job can name.

To add one, write its config class in :mod:`activelr_service.config.model`, a module here, and an entry in ``MODEL_TYPES``.
Importing this package imports no torch, so that a job is checked at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

from activelr_service.config import TrainJob
from activelr_service.config.entry_points import MODELS, find_entry_point, load_entry_point
from activelr_service.config.model import MLPModelConfig, ModelConfig, PythonModelConfig
from activelr_service.config.task import TASK_METRICS
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.models import causal_lm, torchvision_models


@dataclass(frozen=True)
class ModelType:
    """The functions of one type of model, and the tasks that it suits (None: all).

    ``build(config, info, num_outputs)`` makes the torch module with random weights. A type may have three more
    functions. ``check(config, info, precision)`` raises :class:`JobError`; it needs no torch.
    ``load_pretrained(model, config)`` replaces the random weights by those that the config names, if it names any.
    ``exported_config(config)`` returns a config that builds the same module without these files.
    """

    tasks: tuple[str, ...] | None
    build: Callable[[Any, DataInfo, int | None], Any]
    check: Callable[[Any, DataInfo, str], None] | None = None
    load_pretrained: Callable[[Any, Any], None] | None = None
    exported_config: Callable[[Any], Any] | None = None


def check_model(job: TrainJob, info: DataInfo, task: str) -> None:
    """Raise :class:`JobError` if the model does not suit the data and the task. No torch is needed."""
    kind, model = MODEL_TYPES[job.model.type], job.model
    given = getattr(model, "num_classes", None)
    if given is not None and task == "classification" and given != info.num_classes:
        text = f"the data have {info.num_classes} classes, got {given}; leave it out to derive it"
        raise JobError.at("model.num_classes", text)
    if kind.tasks is not None and task in TASK_METRICS and task not in kind.tasks:
        suited = " or ".join(name for name, other in MODEL_TYPES.items() if task in (other.tasks or ()))
        text = f"{model.type!r} does not suit the task {task!r} of these data; use {suited}"
        raise JobError.at("model.type", text)
    if kind.check is not None:
        kind.check(model, info, job.precision)


def build_model(config: ModelConfig, info: DataInfo, task: str) -> Any:
    """Make the torch module of a checked config. Its random weights come from torch's current random state.

    It has one output for each class, or for each number of the target; for a task of one's own, as the data have them.
    """
    by_class = task == "classification" or (task not in TASK_METRICS and info.num_outputs is None)
    num_outputs = info.num_classes if by_class else info.num_outputs
    return MODEL_TYPES[config.type].build(config, info, num_outputs)


def load_pretrained(config: ModelConfig, model: Any) -> None:
    """Load the pretrained weights that the config names, if it names any, into a model that was just built.

    :func:`build_model` does not do it, because the model of an export is built without these files.
    """
    load = MODEL_TYPES[config.type].load_pretrained
    if load is not None:
        load(model, config)


def exported_config(config: ModelConfig) -> ModelConfig:
    """The config that builds the same module on any machine: it names no file that the weights came from."""
    export = MODEL_TYPES[config.type].exported_config
    return config if export is None else export(config)


def _build_mlp(config: MLPModelConfig, info: DataInfo, num_outputs: int | None) -> Any:
    from torch import nn

    if num_outputs is None:
        raise JobError.at("model.type", "an mlp needs data with classes or with numbers to predict")
    widths = [prod(info.input_shape), *config.hidden]
    layers: list[Any] = [nn.Flatten()]
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_outputs))


def _check_entry_point(config: PythonModelConfig, info: DataInfo, precision: str) -> None:
    """Raise :class:`JobError` if no installed package offers the model. Nothing of the package is imported."""
    find_entry_point(MODELS, config.name, "model.name")


def _build_entry_point(config: PythonModelConfig, info: DataInfo, num_outputs: int | None) -> Any:
    factory = load_entry_point(MODELS, config.name, "model.name")
    try:
        return factory(**config.args)
    except TypeError as error:
        raise JobError.at("model.args", f"{config.name}: {error}") from error


_ONE_OUTPUT_PER_TARGET = ("classification", "regression")
MODEL_TYPES = {
    "torchvision": ModelType(
        _ONE_OUTPUT_PER_TARGET, torchvision_models.build_classifier, torchvision_models.check_classifier
    ),
    "torchvision_detection": ModelType(
        ("detection",),
        torchvision_models.build_detector,
        torchvision_models.check_detector,
        torchvision_models.load_backbone,
    ),
    "causal_lm": ModelType(
        ("language_modeling",),
        causal_lm.build,
        causal_lm.check,
        causal_lm.load_pretrained,
        causal_lm.exported_config,
    ),
    "mlp": ModelType(_ONE_OUTPUT_PER_TARGET, _build_mlp),
    "python": ModelType(None, _build_entry_point, _check_entry_point),
}
