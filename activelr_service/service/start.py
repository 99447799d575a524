"""What a job starts from: pretrained weights, the images that they want, and frozen layers; said before the training."""

from typing import Any, NamedTuple, TypeVar

from activelr_service.config import TrainJob
from activelr_service.config.data import ImagesConfig
from activelr_service.config.model import TimmModelConfig, TorchvisionModelConfig, source_of_weights
from activelr_service.data.info import DataInfo
from activelr_service.models import Start, fetch_weights
from activelr_service.models.freeze import PLACE as FREEZE
from activelr_service.models.pretrained import ImageKeys
from activelr_service.service.resolve import Choice

Job = TypeVar("Job", bound=TrainJob)

FEW_IMAGES = 1000  # fewer than these teach little to a model from random weights
KEYS = {"torchvision": "weights", "timm": "pretrained", "transformers_image": "path"}


class Said(NamedTuple):
    """What a person is told of the start: choices with their reasons, and warnings."""

    choices: list[Choice]
    warnings: list[str]


def suit_images(job: Job) -> tuple[Job, Said]:
    """The job whose data prepare images as its pretrained weights want it, unless the job says otherwise.

    What the job asks for by name is downloaded first, unless it is on this machine. Raises
    :class:`~activelr_service.errors.JobError` if it cannot be.
    """
    keys = fetch_weights(job.model)
    if keys is None:
        return job, Said([], [])
    if not isinstance(job.data, ImagesConfig):
        return job, Said([], _other_images(job, keys))
    own = {name: value for name, value in keys.values.items() if getattr(job.data, name) is None}
    choices = [Choice(f"data.{name}", value, keys.source) for name, value in own.items()]
    return job.model_copy(update={"data": job.data.model_copy(update=own)}), Said(choices, [])


def describe_start(job: TrainJob, info: DataInfo, start: Start) -> Said:
    """What is said of the weights that a resolved job starts from, and of its frozen layers."""
    choices, warnings = [], _of_few_images(job, info)
    if start.fit is not None:
        key = f"model.{KEYS[job.model.type]}"
        source = source_of_weights(job.model)
        choices.append(Choice(key, source, start.fit.describe()))
        warnings += start.fit.warnings(f"{key}: {source}" if isinstance(source, str) else key)
    if start.frozen is not None:
        choices.append(Choice(FREEZE, getattr(job.model, "freeze", None), start.frozen.describe()))
    return Said(choices, warnings)


def _other_images(job: TrainJob, keys: ImageKeys) -> list[str]:
    """A warning for data that prepare their images in their own way."""
    values: dict[str, Any] = keys.values
    scaled = f", mean {_rounded(values['mean'])} and std {_rounded(values['std'])}" if "mean" in values else ""
    text = f"the pretrained weights were made with images of side {values['image_size']}{scaled}"
    return [f"{text}; data of type {job.data.type} have a size and a scale of their own, which are kept"]


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]


def _of_few_images(job: TrainJob, info: DataInfo) -> list[str]:
    """A hint at pretrained weights where a model begins from random ones, and there are few images."""
    model, num_train = job.model, info.counted()[0]
    if not isinstance(job.data, ImagesConfig) or num_train >= FEW_IMAGES or source_of_weights(model):
        return []
    if isinstance(model, TorchvisionModelConfig):
        hint = "model.weights: DEFAULT"
    elif isinstance(model, TimmModelConfig):
        hint = "model.pretrained: true"
    else:
        return []
    return [f"{num_train:,} images teach little to a model from random weights; {hint} starts from pretrained ones"]
