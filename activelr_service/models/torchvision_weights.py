"""Pretrained weights of torchvision's classifiers: those it publishes, by name, or those of a file."""

import re
from pathlib import Path
from typing import Any

from activelr_service.config.base import did_you_mean
from activelr_service.config.model import TorchvisionModelConfig, names_a_file
from activelr_service.errors import JobError
from activelr_service.models.downloads import torch_file
from activelr_service.models.pretrained import (
    Fit,
    ImageKeys,
    check_fit,
    head_names,
    keys_of_export,
    load_fitting,
    read_weights,
)

PLACE = "model.weights"
PORTED = ("googlenet", "inception_v3")  # from TensorFlow: they scale their inputs again
# Published files of densenets have names such as denselayer1.norm.1.weight, and the models denselayer1.norm1.weight.
DENSENET_NAME = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\..*)")


def fetch_weights(config: TorchvisionModelConfig) -> ImageKeys | None:
    """Download the weights unless they are here, and return how they want their images; None without weights.

    Raises :class:`JobError` if they are not here and cannot be downloaded.
    """
    if config.weights is None:
        return None
    if not _find_file(config).is_file():
        hint = "DEFAULT stands for the weights that torchvision publishes"
        raise JobError.at(PLACE, f"no such file: {config.weights}; {hint}")
    is_file = names_a_file(config, "weights")
    if is_file and (keys := keys_of_export(config.weights)) is not None:
        return keys
    published = _published(config, "DEFAULT" if is_file else config.weights)
    transforms = published.transforms()
    (side,), (length,) = transforms.crop_size, transforms.resize_size
    source = f"torchvision's {published.name} of {config.name}"
    values = {
        "image_size": side,
        "crop_share": side / length,
        "squash": False,
        "interpolation": transforms.interpolation.value,
        "mean": list(transforms.mean),
        "std": list(transforms.std),
    }
    return ImageKeys(values, f"assumed, as for {source}" if is_file else f"for {source}")


def load_weights(model: Any, config: TorchvisionModelConfig) -> Fit | None:
    """Load the weights that the config names, if it names any; into a model on the meta device nothing is loaded.

    The position embedding of a vision transformer is interpolated to the size of the model's images. Raises
    :class:`JobError` for a file that cannot be read or belongs to another model.
    """
    if config.weights is None:
        return None
    weights = read_weights(str(_find_file(config)), PLACE, f"torchvision's {config.name}")
    if config.name.startswith("densenet"):
        weights = {DENSENET_NAME.sub(r"\1\2", name): tensor for name, tensor in weights.items()}
    if config.name.startswith("vit_"):
        weights = _interpolate(model, weights)
    fit = load_fitting(model, weights, head_names(model))
    check_fit(fit, PLACE, config.weights, f"torchvision's {config.name}")
    return fit


def exported(config: TorchvisionModelConfig) -> TorchvisionModelConfig:
    """The config that builds the same module without the weights."""
    return config.model_copy(update={"weights": None, "args": arguments(config)})


def arguments(config: TorchvisionModelConfig) -> dict[str, Any]:
    """The arguments of the constructor, with those that belong to pretrained weights."""
    ported = {"transform_input": True} if config.weights is not None and config.name in PORTED else {}
    return {**ported, **config.args}


def _find_file(config: TorchvisionModelConfig) -> Path:
    if names_a_file(config, "weights"):
        return Path(config.weights or "").expanduser()
    return torch_file(_published(config, config.weights).url, PLACE)


def _published(config: TorchvisionModelConfig, name: str | None) -> Any:
    from torchvision.models import get_model_weights

    known, name = get_model_weights(config.name), str(name).rpartition(".")[2]
    if name not in known.__members__:
        names = [*known.__members__, "DEFAULT"]
        hint = did_you_mean(name, names, f"use {' or '.join(dict.fromkeys(names))}, or the path of a file")
        raise JobError.at(PLACE, f"torchvision has no weights {name!r} of {config.name}; {hint}")
    return known[name]


def _interpolate(model: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """The weights with their position embedding in the size of the model's."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    name = "encoder.pos_embedding"
    embedding = weights.get(name)
    if embedding is None or embedding.ndim != 3 or embedding.shape == model.state_dict()[name].shape:
        return weights
    return dict(interpolate_embeddings(model.image_size, model.patch_size, weights))  # type: ignore[arg-type]
