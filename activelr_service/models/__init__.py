"""Models by ``type``. A new one is a config class and a function here; users add theirs by pip entry points.

Importing this module imports no torch: :func:`check_model` is part of checking a job.
"""

from difflib import get_close_matches
from itertools import pairwise
from math import prod
from typing import Any

from activelr_service.config import TrainJob
from activelr_service.config.entry_points import MODELS, load_entry_point
from activelr_service.config.model import (
    CausalLMModelConfig,
    MLPModelConfig,
    ModelConfig,
    TorchvisionDetectionModelConfig,
    TorchvisionModelConfig,
)
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.models import causal_lm, detection
from activelr_service.models.torchvision_names import TORCHVISION_NAMES

RESNETS = ("resnet", "resnext", "wide_resnet")
# What each model is for; users' own may be for any task.
_TASKS = {
    "torchvision": ("classification", "regression"),
    "torchvision_detection": ("detection",),
    "causal_lm": ("language_modeling",),
    "mlp": ("classification", "regression"),
}


def check_model(job: TrainJob, info: DataInfo, task: str) -> None:
    """Raise :class:`JobError` if the model cannot suit the data and the task; no torch needed."""
    model = job.model
    if isinstance(model, TorchvisionModelConfig) and model.name not in TORCHVISION_NAMES:
        close = get_close_matches(model.name, TORCHVISION_NAMES, n=1)
        hint = f'did you mean "{close[0]}"?' if close else "see torchvision.models.list_models()"
        raise JobError.at("model.name", f"torchvision has no classifier {model.name!r}; {hint}")
    if isinstance(model, TorchvisionModelConfig) and model.stem == "cifar" and not model.name.startswith(RESNETS):
        raise JobError.at("model.stem", f"only ResNets have a stem for small images, got {model.name!r}")
    if isinstance(model, TorchvisionDetectionModelConfig):
        detection.check(model, job.precision)
    given = getattr(model, "num_classes", None)
    if given is not None and task == "classification" and given != info.num_classes:
        text = f"the data have {info.num_classes} classes, got {given}; leave it out to derive it"
        raise JobError.at("model.num_classes", text)
    if task not in _TASKS.get(model.type, (task,)):
        suited = " or ".join(name for name, tasks in _TASKS.items() if task in tasks)
        text = f"{model.type!r} does not suit the task {task!r} of these data; use {suited}"
        raise JobError.at("model.type", text)
    if isinstance(model, TorchvisionModelConfig):
        _check_images(model, info)
    if isinstance(model, CausalLMModelConfig):
        causal_lm.check(model, info)


def _check_images(model: TorchvisionModelConfig, info: DataInfo) -> None:
    """Raise :class:`JobError` unless rows are images as torchvision's models take them: (3, height, width)."""
    shape = info.input_shape
    if len(shape) == 3 and shape[0] == 3:
        return
    text = f"torchvision's {model.name} takes images of shape (3, height, width), and these rows have shape {shape}"
    if len(shape) < 2 or len(shape) > 4:
        raise JobError.at("model.type", f"{text}; use model: {{type: mlp}}")
    channels = "; repeat the grey channel three times" if len(shape) == 2 or 1 in (shape[0], shape[-1]) else ""
    hint = f"store x as (rows, 3, height, width){channels}, or use model: {{type: mlp}}"
    raise JobError.at("model.type", f"{text}; {hint}")


def build_model(config: ModelConfig, info: DataInfo, task: str) -> Any:
    """The torch module of a checked config, with random weights from torch's current random state."""
    num_outputs = info.num_classes if task == "classification" else info.num_outputs
    if isinstance(config, TorchvisionModelConfig):
        return _build_torchvision(config, info, num_outputs)
    if isinstance(config, TorchvisionDetectionModelConfig):
        return detection.build(config, info)
    if isinstance(config, CausalLMModelConfig):
        return causal_lm.build(config, info)
    if isinstance(config, MLPModelConfig):
        return _build_mlp(config, info, num_outputs)
    factory = load_entry_point(MODELS, config.name, "model.name")
    try:
        return factory(**config.args)
    except TypeError as error:
        raise JobError.at("model.args", f"{config.name}: {error}") from error


def load_pretrained(config: ModelConfig, model: Any) -> None:
    """Give a model that was just built the pretrained weights its config names, if it names any.

    Not part of :func:`build_model`, since a trained model is built again without them.
    """
    if isinstance(config, TorchvisionDetectionModelConfig) and config.backbone_weights is not None:
        detection.load_backbone(model, config.backbone_weights)
    if isinstance(config, CausalLMModelConfig) and config.path is not None:
        causal_lm.load_weights(model, config)


def exported_config(config: ModelConfig) -> ModelConfig:
    """What builds the module again anywhere: the config without the files that its weights came from."""
    if isinstance(config, CausalLMModelConfig):
        return causal_lm.without_folder(config)
    return config


def _build_torchvision(config: TorchvisionModelConfig, info: DataInfo, num_outputs: int | None) -> Any:
    from torchvision.models import get_model

    args = dict(config.args)
    if config.name.startswith("vit_"):
        args.setdefault("image_size", info.input_shape[-1])
    if config.name in ("googlenet", "inception_v3"):
        args = {"aux_logits": False, "init_weights": True, **args}
    try:
        model = get_model(config.name, weights=None, num_classes=num_outputs, **args)
    except (TypeError, ValueError) as error:
        raise JobError.at("model.args", f"{config.name}: {error}") from error
    return _with_cifar_stem(model) if config.stem == "cifar" else model


def _with_cifar_stem(model: Any) -> Any:
    """A torchvision ResNet that keeps the resolution of 32 x 32 images at its start (He et al. 2016, section 4.2)."""
    from torch import nn

    model.conv1 = nn.Conv2d(3, model.conv1.out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def _build_mlp(config: MLPModelConfig, info: DataInfo, num_outputs: int | None) -> Any:
    from torch import nn

    assert num_outputs is not None
    widths = [prod(info.input_shape), *config.hidden]
    layers: list[Any] = [nn.Flatten()]
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_outputs))
