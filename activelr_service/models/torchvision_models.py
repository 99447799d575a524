"""Models of torchvision: classifiers, and object detectors such as Faster R-CNN with a feature pyramid.

The detectors are described by Ren et al. 2015 and Lin et al. 2017. The names of all models stand here so that a job is
checked without importing torch.
"""

from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from activelr_service.config.base import did_you_mean
from activelr_service.config.model import TorchvisionDetectionModelConfig, TorchvisionModelConfig
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.models import torchvision_weights
from activelr_service.models.pretrained import ImageKeys, check_images, read_weights

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
# fmt: off
# The others in torchvision.models.detection need masks or keypoints to train on.
TORCHVISION_DETECTION_NAMES = (
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2", "fcos_resnet50_fpn", "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16", "ssdlite320_mobilenet_v3_large",
)
# fmt: on
LAYERS = ("layer4", "layer3", "layer2", "layer1", "conv1")  # of a ResNet, in the order in which they are unfrozen
TRAINED_LAYERS = 3  # layers of a pretrained backbone that are trained; torchvision's default
TRAINED_NORMS = (
    "fasterrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn_v2",
)  # whose pretrained backbones keep batch norm


def check_classifier(config: TorchvisionModelConfig, info: DataInfo, precision: str) -> None:
    """Raise :class:`JobError` for a name, a stem or a shape of images that torchvision's classifiers do not have."""
    check_name(config)
    if config.stem == "cifar" and not config.name.startswith(RESNETS):
        raise JobError.at("model.stem", f"only ResNets have a stem for small images, got {config.name!r}")
    check_images(f"torchvision's {config.name}", info)


def check_name(config: TorchvisionModelConfig) -> None:
    """Raise :class:`JobError` for a name that torchvision's classifiers do not have."""
    if config.name not in TORCHVISION_NAMES:
        hint = did_you_mean(config.name, TORCHVISION_NAMES, "see torchvision.models.list_models()")
        raise JobError.at("model.name", f"torchvision has no classifier {config.name!r}; {hint}")


def fetch_weights(config: TorchvisionModelConfig) -> ImageKeys | None:
    """See :func:`activelr_service.models.torchvision_weights.fetch_weights`."""
    check_name(config)
    return torchvision_weights.fetch_weights(config)


def build_classifier(config: TorchvisionModelConfig, info: DataInfo, num_outputs: int | None) -> Any:
    """Make the classifier with random weights. A vision transformer is made for the size of the images."""
    from torchvision.models import get_model

    args = torchvision_weights.arguments(config)
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


def check_detector(config: TorchvisionDetectionModelConfig, info: DataInfo, precision: str) -> None:
    """Raise :class:`JobError` if the detector cannot be built or would not train as the job says. No torch is needed."""
    if config.name not in TORCHVISION_DETECTION_NAMES:
        known = f"known: {', '.join(TORCHVISION_DETECTION_NAMES)}"
        hint = did_you_mean(config.name, TORCHVISION_DETECTION_NAMES, known)
        raise JobError.at("model.name", f"torchvision has no box detector {config.name!r}; {hint}")
    if precision != "float32":
        text = f"{precision} rounds the corners of boxes to two pixels from 256 on; detection needs float32"
        raise JobError.at("precision", text)
    layers = config.args.get("trainable_backbone_layers", TRAINED_LAYERS)
    if config.backbone_weights is None:
        if "trainable_backbone_layers" in config.args:
            text = "without model.backbone_weights all layers are trained; leave trainable_backbone_layers out"
            raise JobError.at("model.args", text)
    elif "resnet50" not in config.name:
        raise JobError.at("model.backbone_weights", f"{config.name} has no resnet50 in it; leave it out")
    elif layers not in range(len(LAYERS) + 1):
        raise JobError.at("model.args", f"trainable_backbone_layers must be 0 to {len(LAYERS)}, got {layers!r}")
    elif not Path(config.backbone_weights).expanduser().is_file():
        raise JobError.at("model.backbone_weights", f"no such file: {config.backbone_weights}")


def build_detector(config: TorchvisionDetectionModelConfig, info: DataInfo, num_outputs: int | None) -> Any:
    """Make the detector for the classes of the data and the background, with random weights. Nothing is downloaded.

    It takes a list of float32 images (3, height, width) in [0, 1]. As in torchvision, a backbone from random weights is
    trained whole. With ``backbone_weights`` only the last ``trainable_backbone_layers`` layers are trained, and the batch
    norms are frozen, except in the ``_v2`` models.
    """
    from torchvision.models import get_model, get_model_builder

    assert info.num_classes is not None
    args = {name: value for name, value in config.args.items() if name != "trainable_backbone_layers"}
    try:
        model = get_model(config.name, weights=None, weights_backbone=None, num_classes=info.num_classes + 1, **args)
    except (TypeError, ValueError) as error:
        raise JobError.at("model.args", f"{config.name}: {error}") from error
    unknown = args.keys() - _parameters(get_model_builder(config.name)) - _parameters(type(model))
    if unknown:
        raise JobError.at("model.args", f"{config.name} has no argument {', '.join(sorted(unknown))}")
    if config.backbone_weights is not None:
        _freeze_layers(model.backbone.body, config.args.get("trainable_backbone_layers", TRAINED_LAYERS))
        if config.name not in TRAINED_NORMS:
            _freeze_norms(model.backbone.body)
    return model


def _parameters(function: Any) -> set[str]:
    """The names of the parameters of a function. torchvision's detectors also take any other name, and ignore it."""
    return {
        name for name, parameter in signature(function).parameters.items() if parameter.kind != Parameter.VAR_KEYWORD
    }


def load_backbone(model: Any, config: TorchvisionDetectionModelConfig) -> None:
    """Load the weights of torchvision's resnet50 into the backbone, if the config names a file. Its classifier is left out.

    Raises :class:`JobError` naming the file if it cannot be read or holds other weights.
    """
    path = config.backbone_weights
    if path is None:
        return
    weights = read_weights(path, "model.backbone_weights", "torchvision's resnet50")
    try:
        odd = model.backbone.body.load_state_dict(
            {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}, strict=False
        )
    except (RuntimeError, TypeError, AttributeError) as error:
        raise _not_a_resnet50(path, " ".join(str(error).splitlines()[:2])[:300]) from error
    missing = [name for name in odd.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or odd.unexpected_keys:
        found = f"{len(missing)} weights are missing and {len(odd.unexpected_keys)} are others"
        raise _not_a_resnet50(path, f"{found}, such as {[*missing, *odd.unexpected_keys][0]}")


def _not_a_resnet50(path: str, reason: str) -> JobError:
    return JobError.at("model.backbone_weights", f"{path} is no state dict of torchvision's resnet50: {reason}")


def _freeze_layers(body: Any, num_trained: int) -> None:
    trained = (*LAYERS[:num_trained], "bn1") if num_trained == len(LAYERS) else LAYERS[:num_trained]
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in trained)


def _freeze_norms(module: Any) -> None:
    from torch import nn
    from torchvision.ops import FrozenBatchNorm2d

    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))
        _freeze_norms(child)
