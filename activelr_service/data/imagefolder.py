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
from activelr_service.data.images import check_images, find_empty, load_image, or_skip
from activelr_service.data.info import DataInfo, describe_classes, shorten
from activelr_service.data.listing import (
    LARGEST_COMPARED,
    contents_of,
    count_suffixes,
    equal_across,
    find_equal,
    list_folders,
    suffix_of,
)
from activelr_service.data.splits import check_known, draw_splits
from activelr_service.errors import JobError

SEVERAL_FRAMES = (".gif", ".tif", ".tiff", ".webp", ".apng", ".avif", ".avifs")
SEEN_AS_IMAGES = (".heic", ".heif", ".jxl", ".svg", ".eps", ".cr2", ".nef", ".arw", ".dng", ".npy")  # but not decoded


class Files(NamedTuple):
    """The paths of images and their int64 classes (images,)."""

    paths: list[str]
    labels: np.ndarray


class Found(NamedTuple):
    """The images of each split, and everything that was found in their folders. ``test`` can be empty.

    ``unknown`` counts the test images of each class that is not trained on; they are not in ``test``.
    """

    layout: Layout
    classes: list[str]
    train: Files
    val: Files
    test: Files
    folders: list[Classes]
    unknown: dict[str, int]


def inspect(config: ImageFolderDataConfig) -> DataInfo:
    """Describe the data from the lists of files. No file is decoded."""
    found = _read(config)
    shape = (3, image_side(config), image_side(config))
    sizes, names = (len(found.train.paths), len(found.val.paths)), tuple(found.classes)
    notes, warnings = _describe(config, found)
    info = DataInfo(("classification",), *sizes, shape, num_classes=len(names), classes=names)
    counts = tuple(np.bincount(found.train.labels, minlength=len(names)).tolist())
    return info._replace(notes=notes, warnings=warnings, num_test=len(found.test.paths), class_counts=counts)


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


def build_split(config: ImageFolderDataConfig, split: str) -> Any:
    """The dataset of a split, "train", "validation" or "test", with center crops. None if there is no such split."""
    found = _read(config)
    files = {"train": found.train, "validation": found.val, "test": found.test}[split]
    return as_dataset(config, files) if files.paths else None


def as_dataset(config: ImageFolderDataConfig, files: Files) -> Any:
    """The dataset of some files, to measure a model on: images that cannot be decoded are left out and named."""
    return ImageFiles(files, val_transform(config), "skip")


def check_files(config: ImageFolderDataConfig, limit: int | None) -> None:
    """Decode at most ``limit`` images of both splits, and the empty ones.

    See :func:`~activelr_service.data.images.check_images`.
    """
    found = _read(config)
    paths = found.train.paths + found.val.paths
    empty = find_empty(paths)
    check_images(lambda index: load_image(paths[index], turn=True), len(paths), limit, config.on_corrupt, PLACE, empty)


class ImageFiles:
    """A map-style dataset of (image, class). It decodes, turns upright and transforms an image when it is read."""

    def __init__(self, files: Files, transform: Any, on_corrupt: str) -> None:
        self.files, self.transform, self.on_corrupt = files, transform, on_corrupt

    def __len__(self) -> int:
        return len(self.files.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path = self.files.paths[index]
        image = or_skip(lambda: load_image(path, turn=True), self.on_corrupt)
        return self.transform(image), int(self.files.labels[index])


def _root(config: ImageFolderDataConfig) -> Path:
    root = Path(config.root)
    if not root.is_dir():
        raise JobError.at(PLACE, f"no such folder: {config.root}")
    return root


def _read(config: ImageFolderDataConfig) -> Found:
    layout = find_layout(_root(config), config.hold_out_test)
    train = list_classes(layout.train)
    check_classes(layout.train, train, smallest=2 if config.classes is None else 1)
    classes = sorted(train.images) if config.classes is None else config.classes
    files = label(layout.train, train, classes)
    if layout.val is None and np.bincount(files.labels).max() < 2:
        text = f"no class under {layout.train} has two images, so that one can be a validation sample; add images"
        raise JobError.at(PLACE, text)
    if layout.test is not None and config.test_fraction is not None:
        raise JobError.at("data.test_fraction", f"there is a test folder already, {layout.test}; leave it out")
    val_fraction = config.val_fraction if layout.val is None else None
    parts = draw_splits(len(files.labels), val_fraction, config.test_fraction, files.labels)
    ours, theirs, kept = (Files([files.paths[row] for row in rows], files.labels[rows]) for rows in parts)
    found = Found(layout, classes, ours, theirs, kept, [train], {})
    if layout.val is not None:
        val = list_classes(layout.val)
        found = found._replace(val=label(layout.val, val, classes), folders=[train, val])
        if not found.val.paths:
            raise JobError.at(PLACE, f"{layout.val} has class folders without any image; fill or remove it")
    return found if layout.test is None else _with_test(found, layout.test)


def _with_test(found: Found, folder: Path) -> Found:
    """What was found, with the test images. Those of classes that are not trained on are only counted."""
    test = list_classes(folder)
    unknown = {name: len(paths) for name, paths in test.images.items() if paths and name not in found.classes}
    known = test._replace(images={name: paths for name, paths in test.images.items() if name in found.classes})
    part = label(folder, known, found.classes)
    return found._replace(test=part, folders=[*found.folders, test], unknown=unknown)


def label(folder: Path, found: Classes, classes: list[str]) -> Files:
    """The images of a folder with their classes. Raises :class:`JobError` for a class that is not in ``classes``."""
    check_known((name for name, paths in found.images.items() for _ in paths), classes, PLACE, folder)
    number = {name: label for label, name in enumerate(classes)}
    paths = [(path, number[name]) for name in sorted(found.images) for path in found.images[name]]
    return Files([path for path, _ in paths], np.array([label for _, label in paths], dtype=np.int64))


def _describe(config: ImageFolderDataConfig, found: Found) -> tuple[tuple[str, ...], tuple[str, ...]]:
    parts = [found.train, found.val, *([found.test] if found.test.paths else [])]
    num_train, num_val, *num_test = (np.bincount(part.labels, minlength=len(found.classes)) for part in parts)
    test = num_test[0] if num_test else None
    notes, warnings = describe_classes(found.classes, num_train, num_val, "images", test)
    suffixes = Counter(suffix_of(path) for part in parts for path in part.paths)
    notes.insert(0, "images by format: " + ", ".join(f"{count:,} {name}" for name, count in suffixes.most_common()))
    notes += [*found.layout.notes, *_drawn(config, found)]
    if frames := sorted(suffixes.keys() & set(SEVERAL_FRAMES)):
        notes.append(f"of an image of several frames or pages only the first is read ({', '.join(frames)})")
    notes += _left_out([path for folder in found.folders for path in folder.others], warnings)
    if strays := [path for folder in found.folders for path in folder.strays]:
        warnings.append(f"left out: {len(strays)} images in no class folder, such as {strays[0]}")
    if found.unknown:
        text = f"{sum(found.unknown.values()):,} test images are not measured: their classes are not trained on"
        warnings.append(f"{text}: {shorten(found.unknown, 10)}")
    if sum(len(part.paths) for part in parts) > LARGEST_COMPARED:
        notes.append(f"more than {LARGEST_COMPARED:,} files: not searched for equal ones across the split")
    else:
        for split, part in (("validation", found.val), ("test", found.test)):
            pairs = find_equal(contents_of(found.train.paths), contents_of(part.paths))
            warnings += equal_across([(part.paths[one], found.train.paths[other]) for one, other in pairs], split)
    warnings += warn_of_small_images(config, [found.train.paths[index] for index in evenly(len(found.train.paths))])
    warnings += found.layout.warnings
    warnings += [text for folder in found.folders for text in folder.warnings]
    return tuple(notes), tuple(warnings)


def _drawn(config: ImageFolderDataConfig, found: Found) -> list[str]:
    """Notes on the splits that were drawn."""
    share = "of the images of each class, at random with a fixed seed"
    notes = [f"validation: {100 * config.val_fraction:g}% {share}"] if found.layout.val is None else []
    if config.test_fraction is not None:
        notes.insert(0, f"test: {100 * config.test_fraction:g}% {share}; measured once, at the end")
        notes[1:] = [note.replace("of the images", "of the other images") for note in notes[1:]]
    return notes


def _left_out(others: list[str], warnings: list[str]) -> list[str]:
    """A note on files that are no images. Images in a format that is not read get a warning."""
    if not others:
        return []
    if unread := [path for path in others if suffix_of(path) in SEEN_AS_IMAGES]:
        warnings.append(f"images in formats that cannot be decoded are left out: {count_suffixes(unread)}")
    return [f"left out, since they are no images that can be decoded: {count_suffixes(others)}"]
