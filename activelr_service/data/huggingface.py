"""Images and their classes in a folder of ``datasets.save_to_disk``. Text is read by :mod:`activelr_service.data.text`."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from activelr_service.config.data import HuggingFaceDataConfig
from activelr_service.data.image_transforms import (
    evenly,
    image_side,
    train_transform,
    val_transform,
    warn_of_small_images,
)
from activelr_service.data.images import check_images, decode, or_skip
from activelr_service.data.info import DataInfo, describe_classes, shorten
from activelr_service.data.listing import LARGEST_COMPARED, Contents, equal_across, find_equal
from activelr_service.data.saved_datasets import (
    check_columns,
    class_names,
    is_unlabeled,
    list_splits,
    load_split,
    read_labels,
)
from activelr_service.data.splits import one_name_each, train_val_split
from activelr_service.errors import JobError


class Rows(NamedTuple):
    """Some rows of a split: their numbers in the saved dataset and their int64 classes, both of shape (rows,)."""

    split: str
    dataset: Any
    numbers: np.ndarray
    labels: np.ndarray

    def describe(self, index: int) -> str:
        return f"row {self.numbers[index]} of the split {self.split}"


class Found(NamedTuple):
    """The training and validation rows, the names of the classes, and notes and warnings about them."""

    train: Rows
    val: Rows
    classes: list[str]
    notes: list[str]
    warnings: list[str]


def inspect(config: HuggingFaceDataConfig) -> DataInfo:
    """Describe the data from the labels. No image is decoded."""
    found = _read(config)
    counts = [np.bincount(part.labels, minlength=len(found.classes)) for part in (found.train, found.val)]
    notes, warnings = describe_classes(found.classes, counts[0], counts[1])
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
    )


def prepare(config: HuggingFaceDataConfig, cache: Path) -> HuggingFaceDataConfig:
    """Return the config with the names of the classes in ``classes``: other datasets are matched by these names."""
    return config if config.classes is not None else config.model_copy(update={"classes": _read(config).classes})


def build(config: HuggingFaceDataConfig) -> tuple[Any, Any]:
    """Make (train, val) datasets of normalized float32 images and int classes, augmented as those of an image folder."""
    found = _read(config)
    train, val = train_transform(config), val_transform(config)
    return ImageRows(config, found.train, train), ImageRows(config, found.val, val)


def check_files(config: HuggingFaceDataConfig, limit: int | None) -> None:
    """Decode at most ``limit`` images of both splits; see :func:`~activelr_service.data.images.check_images`."""
    found = _read(config)
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
        picture = or_skip(lambda: self.load(index), self._name(index, None), self.config.on_corrupt)
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


def _read(config: HuggingFaceDataConfig) -> Found:
    if not Path(config.path).is_dir():
        text = (
            f"no such folder: {config.path}; load_dataset(NAME).save_to_disk(FOLDER) makes one of a dataset of the Hub"
        )
        raise JobError.at("data.path", text)
    folders = list_splits(Path(config.path), "data.path")
    names = one_name_each(folders, "data.path", config.path)
    if "train" not in names:
        raise JobError.at("data.path", f"{config.path} has no split train; it has {', '.join(folders)}")
    loaded = {split: load_split(folders[name], "data.path") for split, name in names.items()}
    train = loaded["train"]
    if train is None:
        raise JobError.at("data.path", f"the split {names['train']} of {config.path} has no rows")
    check_columns(config, train, names["train"])
    classes = config.classes or class_names(config, train)
    labels = read_labels(config, train, names["train"], classes)
    warnings: list[str] = []
    split = _find_val_split(config, loaded, names, warnings)
    notes = _notes(config, list(folders), names, split)
    if split is not None:
        their_labels = read_labels(config, loaded[split], names[split], classes)
        ours, theirs = _all(names["train"], train, labels), _all(names[split], loaded[split], their_labels)
        return Found(ours, theirs, classes, notes, warnings)
    ours, theirs = _split(config, _all(names["train"], train, labels))
    return Found(ours, theirs, classes, notes, warnings)


def _notes(config: HuggingFaceDataConfig, all_names: list[str], names: dict[str, str], split: str | None) -> list[str]:
    """Notes on the validation split and on the splits that are not used."""
    used = {names["train"], names[split] if split else ""}
    share = f"{100 * config.val_fraction:g}% of the rows of each class, at random with a fixed seed"
    left = [name for name in all_names if name not in used]
    source = f"the split {names[split]}" if split else share
    return [f"validation: {source}", *([f"left out: the splits {shorten(left)}"] if left else [])]


def _find_val_split(
    config: HuggingFaceDataConfig, loaded: dict[str, Any], names: dict[str, str], warnings: list[str]
) -> str | None:
    """The validation split, else the test split, or None. A split without labels is not used; many test splits have none."""
    for split in (split for split in ("validation", "test") if split in loaded):
        dataset = loaded[split]
        if split == "validation":
            if dataset is None:
                text = f"the split {names[split]} of {config.path} has no rows; fill it, or save the dataset without it"
                raise JobError.at("data.path", text)
            check_columns(config, dataset, names[split])
        if dataset is None:
            warnings.append(f"the split {names[split]} has no rows and is not used")
        elif config.label_column not in dataset.features or is_unlabeled(config, dataset):
            warnings.append(f"the split {names[split]} has no labels and is not used")
        else:
            check_columns(config, dataset, names[split])
            return split
    return None


def _all(split: str, dataset: Any, labels: np.ndarray) -> Rows:
    return Rows(split, dataset, np.arange(len(labels)), labels)


def _split(config: HuggingFaceDataConfig, rows: Rows) -> list[Rows]:
    if np.bincount(rows.labels).max() < 2:
        text = f"{config.path} has {len(rows.labels)} rows and no class with two, one of them for validation; add rows"
        raise JobError.at("data.path", text)
    parts = train_val_split(len(rows.labels), config.val_fraction, rows.labels)
    return [rows._replace(numbers=chosen, labels=rows.labels[chosen]) for chosen in parts]


def _equal(config: HuggingFaceDataConfig, found: Found) -> list[str]:
    """A warning if an image is in both splits. Large datasets are not searched."""
    if len(found.train.labels) + len(found.val.labels) > LARGEST_COMPARED:
        return []
    pairs = find_equal(*(_contents(config, rows) for rows in (found.train, found.val)))
    return equal_across([(found.val.describe(val), found.train.describe(train)) for val, train in pairs])


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
