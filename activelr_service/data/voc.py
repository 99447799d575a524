"""PASCAL VOC object detection (Everingham et al. 2010), in the published folders.

``VOCdevkit/VOC2012`` holds ``ImageSets/Main/SET.txt`` with one image name a line, ``JPEGImages/NAME.jpg`` and
``Annotations/NAME.xml``.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from activelr_service.config.data import VOCDataConfig
from activelr_service.data.images import check_images, load_image, or_skip
from activelr_service.data.info import DataInfo, describe_classes
from activelr_service.errors import JobError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Annotation(NamedTuple):
    """The objects in one image: boxes (xmin, ymin, xmax, ymax) in pixels from 0, labels from 1, and difficult marks."""

    image: Path
    boxes: list[list[float]]
    labels: list[int]
    difficult: list[bool]


class VOCDataset:
    """A map-style dataset of ``(image, target)``. The image is a float32 tensor (3, height, width) in [0, 1].

    The target is a dict of ``boxes`` float32 (n, 4), ``labels`` int64 (n,), ``difficult`` bool (n,) and ``image_id`` int64,
    the index of the sample. Boxes are clipped to the image; boxes that are then less than one pixel wide or high are left
    out. In training, the image is flipped left to right half of the time, and difficult objects are left out, so that they
    count as background. An image without objects has zero boxes. A sample is None if its image is corrupt and skipped.
    """

    def __init__(self, annotations: list[Annotation], on_corrupt: str, is_training: bool) -> None:
        self.annotations = annotations
        self.on_corrupt = on_corrupt
        self.is_training = is_training
        self.transform = transform_of(is_training)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Any:
        import torch
        from torchvision.tv_tensors import BoundingBoxes

        annotation = self.annotations[index]
        image = or_skip(lambda: _load(annotation.image), annotation.image, self.on_corrupt)
        if image is None:
            return None
        boxes = torch.tensor(annotation.boxes, dtype=torch.float32).reshape(-1, 4)
        size = (image.height, image.width)
        image, boxes = self.transform(image, BoundingBoxes(boxes, format="XYXY", canvas_size=size))  # type: ignore[call-overload]
        difficult = torch.tensor(annotation.difficult, dtype=torch.bool)
        kept = (boxes[:, 2:] - boxes[:, :2] >= 1).all(dim=1)
        if self.is_training:
            kept &= ~difficult
        labels = torch.tensor(annotation.labels, dtype=torch.int64)
        target = {"boxes": boxes[kept], "labels": labels[kept], "difficult": difficult[kept]}
        return image, {**target, "image_id": torch.tensor(index)}


def inspect(config: VOCDataConfig) -> DataInfo:
    """Describe the data from the image sets and all annotations. No image is read."""
    train, val = _read_parts(config)
    counts = [np.bincount([label for one in part for label in one.labels], minlength=21)[1:] for part in (train, val)]
    notes, warnings = describe_classes(CLASSES, counts[0], counts[1], "objects")
    for name, part in (("train on", train), ("validate on", val)):
        empty = sum(not annotation.labels for annotation in part)
        difficult = sum(map(sum, (annotation.difficult for annotation in part)))
        notes.append(
            f"{len(part):,} images to {name}: {empty:,} without objects, {difficult:,} objects marked difficult"
        )
    return DataInfo(
        ("detection",),
        len(train),
        len(val),
        (),
        num_classes=len(CLASSES),
        classes=CLASSES,
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


def build(config: VOCDataConfig) -> tuple[Any, Any]:
    """Make (train, val) datasets. Raises :class:`JobError` with the first annotation that cannot be used."""
    train, val = _read_parts(config)
    return VOCDataset(train, config.on_corrupt, is_training=True), VOCDataset(val, config.on_corrupt, is_training=False)


def check_files(config: VOCDataConfig, limit: int | None) -> None:
    """Decode at most ``limit`` images of both sets; see :func:`~activelr_service.data.images.check_images`."""
    images = [image for part in ("train", "val") for image, _ in _list_images(config, part)]
    check_images(lambda index: _load(images[index]), len(images), limit, config.on_corrupt, "data.root")


def _read_parts(config: VOCDataConfig) -> list[list[Annotation]]:
    """The annotations of the training and of the validation images."""
    if config.train_set == "trainval" and config.val_set == "val":
        raise JobError.at("data.val_set", "trainval contains val; train on train, or validate on test")
    listed = {part: _list_images(config, part) for part in ("train", "val")}
    parts = []
    for part, paths in listed.items():
        parts.append([read_annotation(*pair) for pair in paths])
        if all(all(annotation.difficult) for annotation in parts[-1]):
            names = f"{config.train_set if part == 'train' else config.val_set} of {', '.join(config.years)}"
            raise JobError.at("data.root", f"{config.root}: no image of {names} has an object that is not difficult")
    return parts


def _load(path: Path) -> Any:
    """Load the image without turning it: boxes are in pixels of the stored image, whatever its EXIF data say."""
    return load_image(path, turn=False)


def read_annotation(image: Path, path: Path) -> Annotation:
    """Read an annotation file. VOC counts pixels from 1 and includes the last one; here boxes begin at 0.

    An object without ``difficult`` is not difficult. Parts of objects are left out. Raises :class:`JobError` if the file
    cannot be read.
    """
    annotation = Annotation(image, [], [], [])
    try:
        for item in ElementTree.parse(path, ElementTree.XMLParser(target=_NoDoctype())).iterfind("object"):  # noqa: S314
            annotation.labels.append(_label(_text(item, "name")))
            xmin, ymin, xmax, ymax = (float(_text(item, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
            annotation.boxes.append([xmin - 1, ymin - 1, xmax, ymax])
            annotation.difficult.append(item.findtext("difficult", "0").strip() == "1")
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise JobError.at("data.root", f"{path}: {error}") from error
    return annotation


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document type, which annotations do not have, before any of its entities is expanded."""

    def doctype(self, *_: Any) -> None:
        raise ValueError("an annotation must not have a document type")


def _label(name: str) -> int:
    if name not in CLASSES:
        raise ValueError(f"{name!r} is none of the 20 classes of VOC")
    return CLASSES.index(name) + 1


def _text(item: ElementTree.Element, name: str) -> str:
    text = item.findtext(name)
    if text is None:
        raise ValueError(f"an object without {name}")
    return text.strip()


def _list_images(config: VOCDataConfig, part: str) -> list[tuple[Path, Path]]:
    """(image, annotation) paths of the "train" or "val" part of the data, over its years."""
    name = config.train_set if part == "train" else config.val_set
    years = [year for year in config.years if name != "test" or year == "2007"]
    if not years:
        raise JobError.at(
            "data.val_set", "the boxes of test are published for 2007 only; use val, or add 2007 to years"
        )
    return [paths for year in dict.fromkeys(years) for paths in _list_year(config, year, name)]


def _list_year(config: VOCDataConfig, year: str, name: str) -> list[tuple[Path, Path]]:
    folder = _find_year(Path(config.root), year, is_only=set(config.years) == {year})
    image_set = folder / "ImageSets" / "Main" / f"{name}.txt"
    names = _read_names(image_set)
    columns = []
    for part, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        if not (folder / part).is_dir():
            raise JobError.at("data.root", f"no such folder: {folder / part}")
        there = set(os.listdir(folder / part))
        missing = [name for name in names if name + suffix not in there]
        if missing:
            text = (
                f"{folder / part / missing[0]}{suffix} is missing; {image_set} names {len(missing)} that are not there"
            )
            raise JobError.at("data.root", text)
        columns.append([folder / part / (name + suffix) for name in names])
    return list(zip(*columns, strict=True))


def _find_year(root: Path, year: str, is_only: bool) -> Path:
    """The folder of a year: below ``root`` or, if it is the only year asked for, ``root`` itself."""
    if not root.is_dir():
        raise JobError.at("data.root", f"no such folder: {root}")
    candidates = [root / "VOCdevkit" / f"VOC{year}", root / f"VOC{year}"]
    is_other_year = root.name.startswith("VOC2") and root.name != f"VOC{year}"
    if is_only and not is_other_year:
        candidates.append(root)
    for folder in candidates:
        if (folder / "ImageSets" / "Main").is_dir():
            return folder
    text = f"neither {root}/VOCdevkit/VOC{year} nor {root}/VOC{year} has a folder ImageSets/Main; see data.years"
    raise JobError.at("data.root", text)


def _read_names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError.at("data.root", f"the image set {path} cannot be read: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise JobError.at("data.root", f"the image set {path} is empty")
    return names


def transform_of(is_training: bool) -> Any:
    """The transform of a PIL image and its boxes. The model resizes and normalizes (GeneralizedRCNNTransform)."""
    import torch
    from torchvision.transforms import v2

    flip = [v2.RandomHorizontalFlip()] if is_training else []
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()]
    return v2.Compose([v2.ClampBoundingBoxes(), *flip, *finish])
