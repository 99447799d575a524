"""Images and their classes in a folder of ``datasets.save_to_disk``. Text is read by :mod:`activelr_service.data.text`."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from activelr_service.config.data import HuggingFaceDataConfig
from activelr_service.data.huggingface_splits import Found, Rows, read_splits
from activelr_service.data.image_transforms import (
    evenly,
    image_side,
    train_transform,
    val_transform,
    warn_of_small_images,
)
from activelr_service.data.images import check_images, decode, or_skip
from activelr_service.data.info import DataInfo, describe_classes
from activelr_service.data.listing import LARGEST_COMPARED, Contents, equal_across, find_equal


def inspect(config: HuggingFaceDataConfig) -> DataInfo:
    """Describe the data from the labels. No image is decoded."""
    found = read_splits(config)
    parts = [part for part in (found.train, found.val, found.test) if part is not None]
    num_train, num_val, *num_test = (np.bincount(part.labels, minlength=len(found.classes)) for part in parts)
    notes, warnings = describe_classes(found.classes, num_train, num_val, test=num_test[0] if num_test else None)
    warnings += [*found.warnings, *_equal(config, found), *_small(config, found.train)]
    return DataInfo(
        tasks=("classification",),
        num_train=len(found.train.labels),
        num_val=len(found.val.labels),
        input_shape=(3, image_side(config), image_side(config)),
        num_classes=len(found.classes),
        classes=tuple(found.classes),
        notes=(*found.notes, *notes),
        warnings=tuple(warnings),
        class_counts=tuple(num_train.tolist()),
        num_test=0 if found.test is None else len(found.test.labels),
    )


def prepare(config: HuggingFaceDataConfig, cache: Path) -> HuggingFaceDataConfig:
    """Return the config with the names of the classes in ``classes``: other datasets are matched by these names."""
    return config if config.classes is not None else config.model_copy(update={"classes": read_splits(config).classes})


def build(config: HuggingFaceDataConfig) -> tuple[Any, Any]:
    """Make (train, val) datasets of normalized float32 images and int classes, augmented as those of an image folder."""
    found = read_splits(config)
    train, val = train_transform(config), val_transform(config)
    return ImageRows(config, found.train, train), ImageRows(config, found.val, val)


def build_split(config: HuggingFaceDataConfig, split: str) -> Any:
    """The dataset of a split, "train", "validation" or "test", with center crops. None if there is no such split."""
    found = read_splits(config)
    rows = {"train": found.train, "validation": found.val, "test": found.test}[split]
    return rows and as_dataset(config, rows)


def as_dataset(config: HuggingFaceDataConfig, rows: Rows) -> Any:
    """The dataset of some rows, to measure a model on: images that cannot be decoded are left out and named."""
    return ImageRows(config.model_copy(update={"on_corrupt": "skip"}), rows, val_transform(config))


def check_files(config: HuggingFaceDataConfig, limit: int | None) -> None:
    """Decode at most ``limit`` images of both splits; see :func:`~activelr_service.data.images.check_images`."""
    found = read_splits(config)
    parts = [ImageRows(config, rows, None) for rows in (found.train, found.val)]
    num_train = len(parts[0])

    def load(index: int) -> Any:
        return parts[0].load(index) if index < num_train else parts[1].load(index - num_train)

    check_images(load, num_train + len(parts[1]), limit, config.on_corrupt, "data.path")


class ImageRows:
    """A map-style dataset of images and classes. It decodes images itself, so that a corrupt one is named or skipped."""

    def __init__(self, config: HuggingFaceDataConfig, rows: Rows, transform: Any) -> None:
        from datasets import Image

        self.config, self.rows, self.transform = config, rows, transform
        self.dataset = rows.dataset.cast_column(config.image_column, Image(decode=False))

    def __len__(self) -> int:
        return len(self.rows.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        picture = or_skip(lambda: self.load(index), self.config.on_corrupt)
        return self.transform(picture), int(self.rows.labels[index])

    def load(self, index: int) -> Any:
        """The image of a row, as RGB. Raises ``ValueError`` with the row if it cannot be decoded."""
        image = self.dataset[int(self.rows.numbers[index])][self.config.image_column]
        if image is None or (image["bytes"] is None and image["path"] is None):
            return decode(io.BytesIO(), self._name(index, None), turn=True)
        content = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
        return decode(io.BytesIO(content), self._name(index, image["path"]), turn=True)

    def stored(self, index: int) -> bytes | None:
        """The stored bytes of the image of a row, or None if only a path is stored or nothing."""
        image = self.dataset[int(self.rows.numbers[index])][self.config.image_column]
        return None if image is None else image["bytes"]

    def _name(self, index: int, path: str | None) -> str:
        return f"{self.rows.describe(index)} of {self.config.path} ({path or 'without a file name'})"


def _equal(config: HuggingFaceDataConfig, found: Found) -> list[str]:
    """A warning if an image of another split is among those to train on. Large datasets are not searched."""
    warnings = []
    for split, rows in (("validation", found.val), ("test", found.test)):
        if rows is None or len(found.train.labels) + len(rows.labels) > LARGEST_COMPARED:
            continue
        pairs = find_equal(_contents(config, found.train), _contents(config, rows))
        warnings += equal_across([(rows.describe(one), found.train.describe(other)) for one, other in pairs], split)
    return warnings


def _small(config: HuggingFaceDataConfig, rows: Rows) -> list[str]:
    """A warning if the images are too small for the augmentation."""
    images = ImageRows(config, rows, None)
    stored = [images.stored(index) for index in evenly(len(images))]
    return warn_of_small_images(config, [io.BytesIO(content) for content in stored if content])


def _contents(config: HuggingFaceDataConfig, rows: Rows) -> Contents:
    """The stored bytes of the images. An image that is stored only as a path counts as empty."""
    import pyarrow.compute as pc
    from datasets import Image

    stored = rows.dataset.select_columns([config.image_column]).cast_column(config.image_column, Image(decode=False))
    content = pc.struct_field(stored.with_format("arrow")[:].column(0), "bytes")
    sizes = pc.binary_length(content).fill_null(0).to_numpy()[rows.numbers]
    return Contents(sizes.tolist(), lambda index: content[int(rows.numbers[index])].as_py())
