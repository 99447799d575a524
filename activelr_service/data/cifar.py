"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) as published: pickle files, from which only arrays are loaded."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from activelr_service.config.data import CIFAR10DataConfig, CIFAR100DataConfig
from activelr_service.data.info import DataInfo, describe_classes
from activelr_service.data.splits import draw_splits
from activelr_service.errors import JobError

Config = CIFAR10DataConfig | CIFAR100DataConfig
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images of CIFAR-10
SHAPE = (3, 32, 32)


class Layout(NamedTuple):
    """The names of the files and keys of a dataset, and the MD5 sums of the published files, which torchvision has too."""

    folder: str
    train: dict[str, str]
    test: dict[str, str]
    meta: str
    labels: str
    names: str


LAYOUTS = {
    "cifar10": Layout(
        folder="cifar-10-batches-py",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        meta="batches.meta",
        labels="labels",
        names="label_names",
    ),
    "cifar100": Layout(
        folder="cifar-100-python",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        meta="meta",
        labels="fine_labels",
        names="fine_label_names",
    ),
}

# The functions that a pickled array calls, under NumPy 1 and 2, with protocols 2 to 5. All others are refused.
ARRAY_PARTS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


def inspect(config: Config) -> DataInfo:
    """Read the files. A file that differs from the published one gets a warning and is used."""
    layout, folder = LAYOUTS[config.type], _find_folder(config)
    read = {split: labels for split, (_, labels) in _read_splits(config).items()}
    names = _read(folder / layout.meta).get(layout.names) if (folder / layout.meta).exists() else None
    num_classes = 10 if config.type == "cifar10" else 100
    for labels in read.values():
        if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
            raise JobError.at("data.root", f"{folder} has labels outside 0 to {num_classes - 1}")
    if names is not None and len(names) != num_classes:
        raise JobError.at("data.root", f"{folder / layout.meta} names {len(names)} classes, not {num_classes}")
    classes = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names or range(num_classes))
    counts = [np.bincount(labels, minlength=num_classes) for labels in read.values()]
    notes, warnings = describe_classes(classes, counts[0], counts[1], "images", counts[2] if "test" in read else None)
    published = ", ".join(layout.test)
    files = [f"to train on: {', '.join(layout.train)} in {folder}", f"validation: {published}"]
    if config.val_fraction is None:
        files[1] += ", the published test images; data.val_fraction keeps them for a test at the end"
    else:
        share = f"{100 * config.val_fraction:g}% of the training images of each class, at random with a fixed seed"
        files[1:] = [f"validation: {share}", f"test: {published}; measured once, at the end"]
    return DataInfo(
        tasks=("classification",),
        num_train=len(read["train"]),
        num_val=len(read["validation"]),
        num_test=len(read.get("test", ())),
        input_shape=SHAPE,
        num_classes=num_classes,
        classes=classes,
        notes=(*files, *notes),
        warnings=(*_unpublished(folder, {**layout.train, **layout.test}), *warnings),
    )


def build(config: Config) -> tuple[Any, Any]:
    """Make (train, val) datasets of normalized float32 images (3, 32, 32) and int64 labels.

    The published test images validate, unless ``val_fraction`` is set. Training images are padded by 4 pixels, cropped at
    random and flipped at random (He et al. 2016, section 4.2), unless ``augment`` is off. "light" leaves the flips out.
    """
    from torchvision.transforms import v2

    crop_and_flip = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()] if config.augment else []
    if config.augment == "light":
        crop_and_flip.pop()
    read = _read_splits(config)
    return _dataset(read["train"], crop_and_flip), _dataset(read["validation"], [])


def build_split(config: Config, split: str) -> Any:
    """The dataset of a split, "train", "validation" or "test", without crops and flips. None if there is no such split."""
    read = _read_splits(config)
    return _dataset(read[split], []) if split in read else None


def _dataset(split: tuple[np.ndarray, np.ndarray], augmentation: list[Any]) -> "ImageArrays":
    from torchvision.transforms import v2

    return ImageArrays(*split, v2.Compose([*augmentation, *_finish()]))


def image_transform() -> Any:
    """Make the transform of an RGB image of PIL to the input of a model: resized to 32 x 32 if it has another size."""
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(SHAPE[1:], antialias=True), v2.PILToTensor(), *_finish()])


def _finish() -> list[Any]:
    import torch
    from torchvision.transforms import v2

    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


class ImageArrays:
    """A map-style dataset of uint8 images (N, 3, H, W) and labels. An image is transformed when it is read."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Any) -> None:
        import torch

        self.images, self.labels, self.transform = torch.from_numpy(images), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images[index]), self.labels[index]


class _ArrayUnpickler(pickle.Unpickler):
    """Load containers, numbers, texts and NumPy arrays. Any other object is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAY_PARTS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"holds {module}.{name}, which is not an array")


def _read(path: Path) -> dict[str, Any]:
    """The dict in a batch file. Its keys are texts, although Python 2 wrote bytes."""
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        return {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
    except Exception as error:
        raise JobError.at("data.root", f"{path} is not a readable CIFAR batch: {error}") from error


def _read_splits(config: Config) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The images (N, 3, 32, 32) uint8 and labels (N,) int64 of each split, in the order train, validation, test."""
    layout = LAYOUTS[config.type]
    (images, labels), published = (_read_files(config, files) for files in (layout.train, layout.test))
    if config.val_fraction is None:
        return {"train": (images, labels), "validation": published}
    drawn = draw_splits(len(labels), config.val_fraction, None, labels)
    train, val = ((images[rows], labels[rows]) for rows in (drawn.train, drawn.val))
    return {"train": train, "validation": val, "test": published}


def _read_files(config: Config, files: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels in some files, one after the other."""
    parts = [_read_batch(_find_folder(config) / name, LAYOUTS[config.type].labels) for name in files]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _read_batch(path: Path, labels_key: str) -> tuple[np.ndarray, np.ndarray]:
    batch = _read(path)
    images, labels = np.asarray(batch.get("data")), np.asarray(batch.get(labels_key))
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072 or labels.shape != images.shape[:1]:
        text = f"uint8 'data' of shape (rows, 3072) and as many {labels_key!r} are wanted"
        raise JobError.at("data.root", f"{path}: {text}, got {images.dtype} {images.shape} and {labels.shape}")
    return images.reshape(-1, *SHAPE), labels.astype(np.int64)


def _find_folder(config: Config) -> Path:
    """``root`` or the published folder in it. Raises :class:`JobError` with the first missing file."""
    layout, root = LAYOUTS[config.type], Path(config.root)
    folder = root / layout.folder if (root / layout.folder).is_dir() else root
    for name in (*layout.train, *layout.test):
        if not (folder / name).is_file():
            raise JobError.at("data.root", f"no such file: {folder / name}; root is what holds {layout.folder}")
    return folder


def _unpublished(folder: Path, md5: dict[str, str]) -> tuple[str, ...]:
    """A warning with the files whose MD5 sum is not that of the published ones, or no warning."""
    sums = {name: hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest() for name in md5}
    differing = [name for name in md5 if sums[name] != md5[name]]
    return (f"not the published files, by MD5: {', '.join(differing)} in {folder}",) if differing else ()
