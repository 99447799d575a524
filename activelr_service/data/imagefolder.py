"""Images in one folder for each class. Each is decoded when it is read."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from activelr_service.config.data import ImageFolderDataConfig
from activelr_service.data.image_transforms import (
    evenly,
    image_side,
    train_transform,
    val_transform,
    warn_of_small_images,
)
from activelr_service.data.imagefolder_layout import PLACE, Classes, Layout, check_classes, find_layout, list_classes
from activelr_service.data.images import check_images, load_image, or_skip
from activelr_service.data.info import DataInfo, describe_classes
from activelr_service.data.listing import (
    LARGEST_COMPARED,
    contents_of,
    count_suffixes,
    equal_across,
    find_equal,
    list_folders,
    suffix_of,
)
from activelr_service.data.splits import check_known, train_val_split
from activelr_service.errors import JobError

SEVERAL_FRAMES = (".gif", ".tif", ".tiff", ".webp", ".apng", ".avif", ".avifs")
SEEN_AS_IMAGES = (".heic", ".heif", ".jxl", ".svg", ".eps", ".cr2", ".nef", ".arw", ".dng", ".npy")  # but not decoded


class Files(NamedTuple):
    """The paths of images and their int64 classes (images,)."""

    paths: list[str]
    labels: np.ndarray


class Found(NamedTuple):
    """The training and validation images, and everything that was found in their folders."""

    layout: Layout
    classes: list[str]
    train: Files
    val: Files
    folders: list[Classes]


def inspect(config: ImageFolderDataConfig) -> DataInfo:
    """Describe the data from the lists of files. No file is decoded."""
    found = _read(config)
    shape = (3, image_side(config), image_side(config))
    sizes, names = (len(found.train.paths), len(found.val.paths)), tuple(found.classes)
    notes, warnings = _describe(config, found)
    return DataInfo(
        ("classification",), *sizes, shape, num_classes=len(names), classes=names, notes=notes, warnings=warnings
    )


def prepare(config: ImageFolderDataConfig, cache: Path) -> ImageFolderDataConfig:
    """Return the config with the names of the class folders in ``classes``: other folders are matched by these names."""
    if config.classes is not None:
        return config
    train = find_layout(_root(config)).train
    classes = list_folders(train, PLACE)
    if len(classes) < 2:
        check_classes(train, list_classes(train), smallest=2)
    return config.model_copy(update={"classes": classes})


def build(config: ImageFolderDataConfig) -> tuple[Any, Any]:
    """Make (train, val) datasets of normalized float32 images: augmented ones train, center crops validate.

    A file that cannot be decoded raises ``ValueError`` when it is read; with ``on_corrupt`` "skip" its input is None.
    """
    found = _read(config)
    train = ImageFiles(found.train, train_transform(config), config.on_corrupt)
    return train, ImageFiles(found.val, val_transform(config), config.on_corrupt)


def check_files(config: ImageFolderDataConfig, limit: int | None) -> None:
    """Decode at most ``limit`` images of both splits; see :func:`~activelr_service.data.images.check_images`."""
    found = _read(config)
    paths = found.train.paths + found.val.paths
    check_images(lambda index: load_image(paths[index], turn=True), len(paths), limit, config.on_corrupt, PLACE)


class ImageFiles:
    """A map-style dataset of (image, class). It decodes, turns upright and transforms an image when it is read."""

    def __init__(self, files: Files, transform: Any, on_corrupt: str) -> None:
        self.files, self.transform, self.on_corrupt = files, transform, on_corrupt

    def __len__(self) -> int:
        return len(self.files.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path = self.files.paths[index]
        image = or_skip(lambda: load_image(path, turn=True), path, self.on_corrupt)
        return self.transform(image), int(self.files.labels[index])


def _root(config: ImageFolderDataConfig) -> Path:
    root = Path(config.root)
    if not root.is_dir():
        raise JobError.at(PLACE, f"no such folder: {config.root}")
    return root


def _read(config: ImageFolderDataConfig) -> Found:
    layout = find_layout(_root(config))
    train = list_classes(layout.train)
    check_classes(layout.train, train, smallest=2 if config.classes is None else 1)
    classes = sorted(train.images) if config.classes is None else config.classes
    files = _label(layout.train, train, classes)
    if layout.val is None:
        if np.bincount(files.labels).max() < 2:
            text = f"no class under {layout.train} has two images, so that one can be a validation sample; add images"
            raise JobError.at(PLACE, text)
        parts = train_val_split(len(files.labels), config.val_fraction, files.labels)
        ours, theirs = (Files([files.paths[row] for row in rows], files.labels[rows]) for rows in parts)
        return Found(layout, classes, ours, theirs, [train])
    val = list_classes(layout.val)
    val_part = _label(layout.val, val, classes)
    if not val_part.paths:
        raise JobError.at(PLACE, f"{layout.val} has class folders without any image; fill or remove it")
    return Found(layout, classes, files, val_part, [train, val])


def _label(folder: Path, found: Classes, classes: list[str]) -> Files:
    check_known((name for name, paths in found.images.items() if paths), classes, PLACE, folder)
    number = {name: label for label, name in enumerate(classes)}
    paths = [(path, number[name]) for name in sorted(found.images) for path in found.images[name]]
    return Files([path for path, _ in paths], np.array([label for _, label in paths], dtype=np.int64))


def _describe(config: ImageFolderDataConfig, found: Found) -> tuple[tuple[str, ...], tuple[str, ...]]:
    counts = [np.bincount(part.labels, minlength=len(found.classes)) for part in (found.train, found.val)]
    notes, warnings = describe_classes(found.classes, counts[0], counts[1], "images")
    suffixes = Counter(suffix_of(path) for part in (found.train, found.val) for path in part.paths)
    notes.insert(0, "images by format: " + ", ".join(f"{count:,} {name}" for name, count in suffixes.most_common()))
    notes += found.layout.notes
    if found.layout.val is None:
        share = f"{100 * config.val_fraction:g}% of the images of each class, at random with a fixed seed"
        notes.append(f"validation: {share}")
    if frames := sorted(suffixes.keys() & set(SEVERAL_FRAMES)):
        notes.append(f"of an image of several frames or pages only the first is read ({', '.join(frames)})")
    notes += _left_out([path for folder in found.folders for path in folder.others], warnings)
    if strays := [path for folder in found.folders for path in folder.strays]:
        warnings.append(f"left out: {len(strays)} images in no class folder, such as {strays[0]}")
    if len(found.train.paths) + len(found.val.paths) > LARGEST_COMPARED:
        notes.append(f"more than {LARGEST_COMPARED:,} files: not searched for equal ones across the split")
    else:
        pairs = find_equal(contents_of(found.train.paths), contents_of(found.val.paths))
        warnings += equal_across([(found.val.paths[val], found.train.paths[train]) for val, train in pairs])
    warnings += warn_of_small_images(config, [found.train.paths[index] for index in evenly(len(found.train.paths))])
    warnings += found.layout.warnings
    warnings += [text for folder in found.folders for text in folder.warnings]
    return tuple(notes), tuple(warnings)


def _left_out(others: list[str], warnings: list[str]) -> list[str]:
    """A note on files that are no images. Images in a format that is not read get a warning."""
    if not others:
        return []
    if unread := [path for path in others if suffix_of(path) in SEEN_AS_IMAGES]:
        warnings.append(f"images in formats that cannot be decoded are left out: {count_suffixes(unread)}")
    return [f"left out, since they are no images that can be decoded: {count_suffixes(others)}"]
