"""Object detectors of torchvision, such as Faster R-CNN with a feature pyramid (Ren et al. 2015; Lin et al. 2017)."""

from difflib import get_close_matches
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from activelr_service.config.model import TorchvisionDetectionModelConfig
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError

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


def check(config: TorchvisionDetectionModelConfig, info: DataInfo, precision: str) -> None:
    """Raise :class:`JobError` if the detector cannot be built or would not train as the job says. No torch is needed."""
    if config.name not in TORCHVISION_DETECTION_NAMES:
        close = get_close_matches(config.name, TORCHVISION_DETECTION_NAMES, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(TORCHVISION_DETECTION_NAMES)}"
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


def build(config: TorchvisionDetectionModelConfig, info: DataInfo, num_outputs: int | None) -> Any:
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


def load_pretrained(model: Any, config: TorchvisionDetectionModelConfig) -> None:
    """Load the weights of torchvision's resnet50 into the backbone, if the config names a file. Its classifier is left out.

    Raises :class:`JobError` naming the file if it cannot be read or holds other weights.
    """
    path = config.backbone_weights
    if path is None:
        return
    weights = _read_weights(path)
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


def _read_weights(path: str) -> Any:
    import torch
    from safetensors.torch import load_file

    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise JobError.at("model.backbone_weights", f"{path} cannot be read as weights: {reason}") from error
    if not isinstance(weights, dict):
        raise _not_a_resnet50(path, f"it holds a {type(weights).__name__}")
    return weights


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
