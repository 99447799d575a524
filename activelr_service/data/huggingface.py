"""Images and their classes in a folder of ``datasets.save_to_disk``. For text there is :mod:`activelr_service.data.text`."""

import io
from pathlib import Path
from typing import Any

from activelr_service.config import JobError
from activelr_service.config.data import HuggingFaceDataConfig
from activelr_service.data.images import classification_transforms, decode_or_skip
from activelr_service.data.info import DataInfo, split_sizes

VAL_SPLITS = ("validation", "val", "valid", "test")  # the first that is there is held out


def inspect(config: HuggingFaceDataConfig) -> DataInfo:
    """Loads the tables' descriptions: rows are read when they are trained on."""
    train, val = _load_splits(config)
    names = tuple(train.features[config.label_column].names)
    shape = (3, config.image_size, config.image_size)
    return DataInfo(("classification",), len(train), len(val), shape, num_classes=len(names), classes=names)


def build(config: HuggingFaceDataConfig) -> tuple[Any, Any]:
    """(train, val) datasets of normalised float32 images and int classes, augmented as those of an image folder."""
    pairs = zip(_load_splits(config), classification_transforms(config.image_size), strict=True)
    train, val = (ImageRows(config, dataset, transform) for dataset, transform in pairs)
    return train, val


class ImageRows:
    """A map-style dataset: images are decoded here and not by ``datasets``, so that a corrupt one is named or skipped."""

    def __init__(self, config: HuggingFaceDataConfig, dataset: Any, transform: Any) -> None:
        self.config, self.dataset, self.transform = config, dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        row = self.dataset[index]
        image = row[self.config.image_column]
        content = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
        name = f"row {index} of {self.config.path} ({image['path'] or 'without a file name'})"
        picture = decode_or_skip(io.BytesIO(content), name, self.config.on_corrupt)
        return self.transform(picture), row[self.config.label_column]


def _load_splits(config: HuggingFaceDataConfig) -> tuple[Any, Any]:
    from datasets import Image, load_from_disk

    if not Path(config.path).is_dir():
        raise JobError.at("data.path", f"no such folder: {config.path}")
    try:
        loaded: Any = load_from_disk(config.path)
    except Exception as error:
        raise JobError.at("data.path", f"{config.path} is not a dataset saved by datasets: {error}") from error
    splits = loaded if isinstance(loaded, dict) else {"train": loaded}
    if "train" not in splits:
        raise JobError.at("data.path", f"{config.path} has no split train; it has {', '.join(splits)}")
    _check_columns(config, splits["train"].features)
    held_out = next((splits[name] for name in VAL_SPLITS if name in splits), None)
    train, val = (splits["train"], held_out) if held_out is not None else _hold_out(config, splits["train"])
    return tuple(part.cast_column(config.image_column, Image(decode=False)) for part in (train, val))  # type: ignore[return-value]


def _hold_out(config: HuggingFaceDataConfig, dataset: Any) -> tuple[Any, Any]:
    _, num_val = split_sizes(len(dataset), config.val_fraction)
    parts = dataset.train_test_split(test_size=num_val, seed=0)
    return parts["train"], parts["test"]


def _check_columns(config: HuggingFaceDataConfig, features: Any) -> None:
    wanted = {"image_column": (config.image_column, "Image"), "label_column": (config.label_column, "ClassLabel")}
    for field, (name, kind) in wanted.items():
        found = type(features[name]).__name__ if name in features else None
        if found != kind:
            have = ", ".join(f"{column} ({type(feature).__name__})" for column, feature in features.items())
            text = f"{config.path} has no column {name!r} of type {kind}; it has {have}"
            raise JobError.at(f"data.{field}", text)
