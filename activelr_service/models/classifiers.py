"""Classifiers of torchvision. Their names stand here so that a job is checked without importing torch."""

from difflib import get_close_matches
from typing import Any

from activelr_service.config.model import TorchvisionModelConfig
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError

# fmt: off
TORCHVISION_NAMES = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "densenet121",
    "densenet161", "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2",
    "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7",
    "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large",
    "mobilenet_v3_small", "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf",
    "regnet_x_800mf", "regnet_x_8gf", "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf",
    "regnet_y_3_2gf", "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf", "resnet101", "resnet152", "resnet18",
    "resnet34", "resnet50", "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d", "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "squeezenet1_0", "squeezenet1_1", "swin_b",
    "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16",
    "vgg16_bn", "vgg19", "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32",
    "wide_resnet101_2", "wide_resnet50_2",
)
# fmt: on

RESNETS = ("resnet", "resnext", "wide_resnet")


def check(config: TorchvisionModelConfig, info: DataInfo, precision: str) -> None:
    """Raise :class:`JobError` for a name, a stem or a shape of images that torchvision's classifiers do not have."""
    if config.name not in TORCHVISION_NAMES:
        close = get_close_matches(config.name, TORCHVISION_NAMES, n=1)
        hint = f'did you mean "{close[0]}"?' if close else "see torchvision.models.list_models()"
        raise JobError.at("model.name", f"torchvision has no classifier {config.name!r}; {hint}")
    if config.stem == "cifar" and not config.name.startswith(RESNETS):
        raise JobError.at("model.stem", f"only ResNets have a stem for small images, got {config.name!r}")
    _check_images(config, info)


def build(config: TorchvisionModelConfig, info: DataInfo, num_outputs: int | None) -> Any:
    """Make the classifier with random weights. A vision transformer is made for the size of the images."""
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
    """Replace the first layers of a ResNet so that small images keep their resolution (He et al. 2016, section 4.2)."""
    from torch import nn

    model.conv1 = nn.Conv2d(3, model.conv1.out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def _check_images(config: TorchvisionModelConfig, info: DataInfo) -> None:
    """Raise :class:`JobError` unless the samples are images of shape (3, height, width)."""
    shape = info.input_shape
    if len(shape) == 3 and shape[0] == 3:
        return
    text = f"torchvision's {config.name} takes images of shape (3, height, width), and these samples have shape {shape}"
    if len(shape) < 2 or len(shape) > 4:
        raise JobError.at("model.type", f"{text}; use model: {{type: mlp}}")
    channels = "; repeat the gray channel three times" if len(shape) == 2 or 1 in (shape[0], shape[-1]) else ""
    hint = f"store x as (rows, 3, height, width){channels}, or use model: {{type: mlp}}"
    raise JobError.at("model.type", f"{text}; {hint}")
