"""What a job's ``model`` may be."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, model_validator

from activelr_service.config.base import PositiveInt, StrictConfig

# What transformers takes beside the fields of a config.
RUNS_CODE = ("trust_remote_code", "auto_map", "custom_pipelines", "custom_generate", "code_revision", "use_kernels")
NAME_OF_WEIGHTS = r"(\w+_Weights\.)?[A-Z][A-Z0-9_]*"  # of torchvision, such as IMAGENET1K_V2
HUB_NAME = r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?"
NOT_OF_A_CONFIG = ("local_files_only", "cache_dir", "force_download", "proxies", "revision", "subfolder", "token")


Freeze = Annotated[
    list[str] | None,
    Field(
        description="Patterns of names of parameters that are not trained: `layer1` and `layer1.*` are all in layer1, "
        "`*` is all, and `!fc.*` excepts. Batch norms whose parameters are frozen keep their statistics."
    ),
]


def _is_no_code(config: dict[str, Any]) -> dict[str, Any]:
    for key, value in _items(config):
        if key in RUNS_CODE or (key.endswith("attn_implementation") and "/" in str(value)):
            raise ValueError(f"must not have {key}: code that comes with a model is not run; leave it out")
        if key in NOT_OF_A_CONFIG:
            raise ValueError(f"must not have {key}: it says how to load a model, and is no field of its config")
    return config


TransformersConfig = Annotated[
    dict[str, Any],
    AfterValidator(_is_no_code),
    Field(description="Fields of the transformers config that differ from its defaults."),
]


class TorchvisionModelConfig(StrictConfig):
    """A torchvision classifier by name, from random or from pretrained weights."""

    type: Literal["torchvision"] = "torchvision"
    name: str = Field(description="A name of torchvision.models.list_models(), such as resnet18.")
    weights: str | None = Field(
        None,
        description="Where the training starts: DEFAULT or another name of torchvision's weights, such as "
        "IMAGENET1K_V2, which are downloaded; or a .safetensors file or a torch state dict. Left out: random weights.",
    )
    num_classes: PositiveInt | None = Field(None, description="Derived from the data; given, it must agree with them.")
    stem: Literal["imagenet", "cifar"] = Field(
        "imagenet", description="cifar: a ResNet begins with a 3 x 3 convolution and no pooling, for small images."
    )
    freeze: Freeze = None
    args: dict[str, Any] = Field({}, description="Further keyword arguments of the torchvision constructor.")


class TimmModelConfig(StrictConfig):
    """A model of timm by name, from random or from pretrained weights. It needs the extra ``timm``."""

    type: Literal["timm"] = "timm"
    name: str = Field(
        description="A name of timm.list_models(), such as convnext_tiny, also with a tag of its weights."
    )
    pretrained: bool | str = Field(
        False,
        description="Where the training starts: true for the weights of timm, which are downloaded; or a .safetensors "
        "file or a torch state dict. false: random weights.",
    )
    num_classes: PositiveInt | None = Field(None, description="Derived from the data; given, it must agree with them.")
    freeze: Freeze = None
    args: dict[str, Any] = Field({}, description="Further keyword arguments of timm.create_model.")


class TransformersImageModelConfig(StrictConfig):
    """A transformers image classifier: ``path`` for pretrained weights, ``name`` for random ones."""

    type: Literal["transformers_image"] = "transformers_image"
    name: str | None = Field(None, description="A transformers model_type, such as vit.")
    path: str | None = Field(
        None,
        description="A folder with config.json and safetensors, as save_pretrained writes it, or a name of the Hugging "
        "Face Hub, such as google/vit-base-patch16-224, which is downloaded.",
    )
    config: TransformersConfig = Field({})
    freeze: Freeze = None

    @model_validator(mode="after")
    def has_one_source(self) -> Self:
        _check_one_source(self.name, self.path, "a folder or of the Hugging Face Hub")
        return self


class TorchvisionDetectionModelConfig(StrictConfig):
    """A torchvision object detector by name, from random weights or with a pretrained backbone from a local file."""

    type: Literal["torchvision_detection"] = "torchvision_detection"
    name: str = Field(
        "fasterrcnn_resnet50_fpn",
        description="A box detector of torchvision.models.detection, such as fasterrcnn_resnet50_fpn.",
    )
    backbone_weights: str | None = Field(
        None,
        description="A .safetensors file or a torch state dict of torchvision's resnet50. With it the backbone's batch "
        "norms are frozen and its first layers too, as torchvision does; without it all of it is trained.",
    )
    freeze: Freeze = None
    args: dict[str, Any] = Field(
        {},
        description="Further keyword arguments of the constructor: min_size, max_size, trainable_backbone_layers, ...",
    )


class CausalLMModelConfig(StrictConfig):
    """A transformers causal language model: ``name`` for random weights, ``path`` to train those of a local folder on."""

    type: Literal["causal_lm"] = "causal_lm"
    name: str | None = Field(None, description="A transformers model_type, such as gpt2.")
    path: str | None = Field(
        None, description="A folder with config.json and safetensors, as save_pretrained writes it."
    )
    config: TransformersConfig = Field({})
    freeze: Freeze = None

    @model_validator(mode="after")
    def has_one_source(self) -> Self:
        _check_one_source(self.name, self.path, "a local folder")
        return self


def _check_one_source(name: str | None, path: str | None, place: str) -> None:
    if (name is None) == (path is None):
        raise ValueError(f"give name, for random weights, or path, for those of {place}")


def _items(config: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values at any depth."""
    for key, value in config.items() if isinstance(config, dict) else ():
        yield key, value
        yield from _items(value)
    for value in config if isinstance(config, list) else ():
        yield from _items(value)


class MLPModelConfig(StrictConfig):
    """A multilayer perceptron with ReLU on flattened inputs."""

    type: Literal["mlp"] = "mlp"
    hidden: list[PositiveInt] = Field([64, 64], description="Widths of the hidden layers.")
    num_classes: PositiveInt | None = Field(None, description="Derived from the data; given, it must agree with them.")


class PythonModelConfig(StrictConfig):
    """Your own model: a callable in the pip entry point group ``activelr.models``, returning a torch.nn.Module."""

    type: Literal["python"] = "python"
    name: str = Field(description="Name of the entry point.")
    freeze: Freeze = None
    args: dict[str, Any] = Field({}, description="Keyword arguments of the callable.")


ModelConfig = Annotated[
    TorchvisionModelConfig
    | TorchvisionDetectionModelConfig
    | TimmModelConfig
    | TransformersImageModelConfig
    | CausalLMModelConfig
    | MLPModelConfig
    | PythonModelConfig,
    Field(discriminator="type"),
]


def source_of_weights(config: ModelConfig) -> str | bool | None:
    """What the config of a model for images says of its pretrained weights; None or False for random ones."""
    if isinstance(config, TransformersImageModelConfig):
        return config.path
    return getattr(config, "weights", None) or getattr(config, "pretrained", None)


def names_a_file(config: ModelConfig, key: str) -> bool:
    """Whether the value of ``key`` is a path on this machine, and not a name of published weights."""
    value = getattr(config, key, None)
    return isinstance(value, str) and not is_published(config.type, key, value)


def is_published(kind: str | None, key: str, value: str) -> bool:
    """Whether the value of a key of a model of type ``kind`` is a name of torchvision's weights or of a model on the
    Hugging Face Hub."""
    if kind == "transformers_image" and key == "path":
        return re.fullmatch(HUB_NAME, value) is not None and not Path(value).expanduser().exists()
    return kind == "torchvision" and key == "weights" and re.fullmatch(NAME_OF_WEIGHTS, value) is not None


MODEL_CONFIG: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
