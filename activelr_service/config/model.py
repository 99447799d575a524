"""What a job's ``model`` may be."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, field_validator, model_validator

from activelr_service.config.base import PositiveInt, StrictConfig

# What transformers takes beside the fields of a config.
RUNS_CODE = ("trust_remote_code", "auto_map", "custom_pipelines", "custom_generate", "code_revision", "use_kernels")
NOT_OF_A_CONFIG = ("local_files_only", "cache_dir", "force_download", "proxies", "revision", "subfolder", "token")


class TorchvisionModelConfig(StrictConfig):
    """A torchvision classifier by name, from random weights."""

    type: Literal["torchvision"] = "torchvision"
    name: str = Field(description="A name of torchvision.models.list_models(), such as resnet18.")
    num_classes: PositiveInt | None = Field(None, description="Derived from the data; given, it must agree with them.")
    stem: Literal["imagenet", "cifar"] = Field(
        "imagenet", description="cifar: a ResNet begins with a 3 x 3 convolution and no pooling, for small images."
    )
    args: dict[str, Any] = Field({}, description="Further keyword arguments of the torchvision constructor.")


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
    config: dict[str, Any] = Field({}, description="Fields of the transformers config that differ from its defaults.")

    @field_validator("config")
    @classmethod
    def runs_no_code_of_a_folder(cls, config: dict[str, Any]) -> dict[str, Any]:
        for key, value in _items(config):
            if key in RUNS_CODE or (key.endswith("attn_implementation") and "/" in str(value)):
                raise ValueError(f"must not have {key}: code that comes with a model is not run; leave it out")
            if key in NOT_OF_A_CONFIG:
                raise ValueError(f"must not have {key}: it says how to load a model, and is no field of its config")
        return config

    @model_validator(mode="after")
    def has_one_source(self) -> Self:
        if (self.name is None) == (self.path is None):
            raise ValueError("give name, for random weights, or path, for those of a local folder")
        return self


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
    args: dict[str, Any] = Field({}, description="Keyword arguments of the callable.")


ModelConfig = Annotated[
    TorchvisionModelConfig | TorchvisionDetectionModelConfig | CausalLMModelConfig | MLPModelConfig | PythonModelConfig,
    Field(discriminator="type"),
]

MODEL_CONFIG: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
