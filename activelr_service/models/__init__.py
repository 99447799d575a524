"""The types of model that a job can name.

To add one, write its config class in :mod:`activelr_service.config.model`, a module here, and an entry in ``MODEL_TYPES``.
Importing this package imports no torch, so that a job is checked at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

from activelr_service.config import TrainJob
from activelr_service.config.entry_points import MODELS, find_entry_point, load_entry_point
from activelr_service.config.model import MLPModelConfig, ModelConfig, PythonModelConfig
from activelr_service.config.task import TASK_METRICS
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.models import (
    causal_lm,
    timm_models,
    torchvision_models,
    torchvision_weights,
    transformers_image,
)
from activelr_service.models.freeze import Frozen
from activelr_service.models.pretrained import Fit, ImageKeys


@dataclass(frozen=True)
class ModelType:
    """The functions of one type of model, and the tasks that it suits (None: all).

    ``build(config, info, num_outputs)`` makes the torch module with random weights. A type may have more functions.
    ``check(config, info, precision)`` raises :class:`JobError`; it needs no torch. ``load_pretrained(model, config)``
    replaces the random weights by those that the config names, if it names any, and may say what fits; on the meta device
    it only finds that out. ``exported_config(config)`` returns a config that builds the same module without these files.
    ``fetch_weights(config)`` downloads what the config asks for by name, and says how the weights want their images.
    """

    tasks: tuple[str, ...] | None
    build: Callable[[Any, DataInfo, int | None], Any]
    check: Callable[[Any, DataInfo, str], None] | None = None
    load_pretrained: Callable[[Any, Any], Fit | None] | None = None
    exported_config: Callable[[Any], Any] | None = None
    fetch_weights: Callable[[Any], ImageKeys | None] | None = None


class Start(NamedTuple):
    """What is known of the start of a training before it: which pretrained weights fit, and what is frozen."""

    fit: Fit | None = None
    frozen: Frozen | None = None


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


def fetch_weights(config: ModelConfig) -> ImageKeys | None:
    """Download the weights that the config asks for by name, unless they are on this machine.

    Returns how they want their images, or None if nothing is known of it. Raises :class:`JobError` if there is no net.
    """
    fetch = MODEL_TYPES[config.type].fetch_weights
    return None if fetch is None else fetch(config)


def load_pretrained(config: ModelConfig, model: Any) -> Fit | None:
    """Load the pretrained weights that the config names, if it names any, into a model that was just built.

    Returns which of them fit, or None if that is not found out.
    :func:`build_model` does not do it, because the model of an export is built without these files.
    """
    load = MODEL_TYPES[config.type].load_pretrained
    return None if load is None else load(model, config)


def find_fit(config: ModelConfig, model: Any) -> Fit | None:
    """Which of the pretrained weights fit a model on the meta device; None if that is not known before the training.

    Raises :class:`JobError` if they are those of another model.
    """
    return load_pretrained(config, model) if MODEL_TYPES[config.type].fetch_weights is not None else None


def exported_config(config: ModelConfig) -> ModelConfig:
    """The config that builds the same module on any machine: it names no file that the weights came from."""
    export = MODEL_TYPES[config.type].exported_config
    own = config if export is None else export(config)
    return own.model_copy(update={"freeze": None}) if getattr(own, "freeze", None) is not None else own


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
        _ONE_OUTPUT_PER_TARGET,
        torchvision_models.build_classifier,
        torchvision_models.check_classifier,
        torchvision_weights.load_weights,
        torchvision_weights.exported,
        torchvision_models.fetch_weights,
    ),
    "torchvision_detection": ModelType(
        ("detection",),
        torchvision_models.build_detector,
        torchvision_models.check_detector,
        torchvision_models.load_backbone,
    ),
    "timm": ModelType(
        _ONE_OUTPUT_PER_TARGET,
        timm_models.build,
        timm_models.check,
        timm_models.load_weights,
        timm_models.exported,
        timm_models.fetch_weights,
    ),
    "transformers_image": ModelType(
        _ONE_OUTPUT_PER_TARGET,
        transformers_image.build,
        transformers_image.check,
        transformers_image.load_weights,
        transformers_image.exported,
        transformers_image.fetch_weights,
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
