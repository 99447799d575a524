"""PASCAL VOC object detection (Everingham et al. 2010), in the published folders.

``VOCdevkit/VOC2012`` holds ``ImageSets/Main/SET.txt`` with one image name a line, ``JPEGImages/NAME.jpg`` and
``Annotations/NAME.xml``. The classes are the 20 of VOC, or those of the annotations where these have others.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from activelr_service.config.data import VOCDataConfig
from activelr_service.data.images import check_images, find_empty, load_image, or_skip
from activelr_service.data.info import DataInfo, describe_classes, shorten
from activelr_service.data.splits import draw_splits
from activelr_service.data.voc_layout import find_year, list_year
from activelr_service.errors import JobError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Annotation(NamedTuple):
    """The objects in one image: boxes (xmin, ymin, xmax, ymax) in pixels from 0, names of classes, and difficult marks."""

    image: Path
    boxes: list[list[float]]
    names: list[str]
    difficult: list[bool]


class VOCDataset:
    """A map-style dataset of ``(image, target)``. The image is a float32 tensor (3, height, width) in [0, 1].

    The target is a dict of ``boxes`` float32 (n, 4), ``labels`` int64 (n,), which count the classes from 1, ``difficult``
    bool (n,) and ``image_id`` int64, the index of the sample. Boxes are clipped to the image; boxes that are then less than
    one pixel wide or high are left out. In training, the image is flipped left to right half of the time, and difficult
    objects are left out, so that they count as background. An image without objects has zero boxes. A sample is None if its
    image is corrupt and skipped.
    """

    def __init__(
        self, annotations: list[Annotation], classes: Sequence[str], on_corrupt: str, is_training: bool
    ) -> None:
        self.annotations = annotations
        self.labels = {name: label for label, name in enumerate(classes, start=1)}
        self.on_corrupt = on_corrupt
        self.is_training = is_training
        self.transform = transform_of(is_training)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Any:
        import torch
        from torchvision.tv_tensors import BoundingBoxes

        annotation = self.annotations[index]
        image = or_skip(lambda: _load(annotation.image), self.on_corrupt)
        if image is None:
            return None
        boxes = torch.tensor(annotation.boxes, dtype=torch.float32).reshape(-1, 4)
        size = (image.height, image.width)
        image, boxes = self.transform(image, BoundingBoxes(boxes, format="XYXY", canvas_size=size))  # type: ignore[call-overload]
        difficult = torch.tensor(annotation.difficult, dtype=torch.bool)
        kept = (boxes[:, 2:] - boxes[:, :2] >= 1).all(dim=1)
        if self.is_training:
            kept &= ~difficult
        labels = torch.tensor([self.labels[name] for name in annotation.names], dtype=torch.int64)
        target = {"boxes": boxes[kept], "labels": labels[kept], "difficult": difficult[kept]}
        return image, {**target, "image_id": torch.tensor(index)}


def inspect(config: VOCDataConfig) -> DataInfo:
    """Describe the data from the image sets and all annotations. No image is read."""
    parts, warned = _read_parts(config)
    classes = classes_of(parts)
    counts = [_count(part, classes) for part in parts.values()]
    test = counts[2] if "test" in parts else None
    notes, warnings = describe_classes(classes, counts[0], counts[1], "objects", test)
    if classes != CLASSES:
        notes.insert(0, f"the classes are those of the annotations, not the 20 of VOC: {shorten(classes, 20)}")
    for name, part in parts.items():
        empty = sum(not annotation.names for annotation in part)
        difficult = sum(map(sum, (annotation.difficult for annotation in part)))
        use = {"train": "train on", "val": "validate on", "test": "measure once, at the end"}[name]
        notes.append(
            f"{len(part):,} images to {use}: {empty:,} without objects, {difficult:,} objects marked difficult"
        )
    return DataInfo(
        ("detection",),
        len(parts["train"]),
        len(parts["val"]),
        (),
        num_classes=len(classes),
        classes=classes,
        notes=tuple(notes),
        warnings=(*warned, *warnings),
        num_test=len(parts.get("test", ())),
    )


def build(config: VOCDataConfig) -> tuple[Any, Any]:
    """Make (train, val) datasets. Raises :class:`JobError` with the first annotation that cannot be used."""
    parts, _ = _read_parts(config)
    classes = classes_of(parts)
    val = VOCDataset(parts["val"], classes, config.on_corrupt, is_training=False)
    return VOCDataset(parts["train"], classes, config.on_corrupt, is_training=True), val


def build_split(config: VOCDataConfig, split: str) -> Any:
    """The dataset of a split, "train", "validation" or "test", without flips. None if there is no such split.

    Images that cannot be decoded are left out and named.
    """
    parts, _ = _read_parts(config)
    part = parts.get({"validation": "val"}.get(split, split))
    return part and VOCDataset(part, classes_of(parts), "skip", is_training=False)


def check_files(config: VOCDataConfig, limit: int | None) -> None:
    """Decode at most ``limit`` images of both sets, and the empty ones.

    See :func:`~activelr_service.data.images.check_images`.
    """
    images = [image for part in ("train", "val") for image, _ in _list_images(config, part)]
    empty = find_empty(images)
    check_images(lambda index: _load(images[index]), len(images), limit, config.on_corrupt, "data.root", empty)


def _read_parts(config: VOCDataConfig) -> tuple[dict[str, list[Annotation]], list[str]]:
    """The annotations of the images in each part, "train", "val" and maybe "test", and warnings."""
    if config.train_set == "trainval" and config.val_set == "val":
        raise JobError.at("data.val_set", "trainval contains val; train on train, or validate on test")
    parts = {part: [read_annotation(*pair) for pair in _list_images(config, part)] for part in ("train", "val")}
    if config.test_fraction is not None:
        drawn = draw_splits(len(parts["train"]), None, config.test_fraction)
        parts["test"] = [parts["train"][row] for row in drawn.test]
        parts["train"] = [parts["train"][row] for row in drawn.train]
    for part, annotations in parts.items():
        if all(all(annotation.difficult) for annotation in annotations):
            names = f"{config.val_set if part == 'val' else config.train_set} of {', '.join(config.years)}"
            raise JobError.at("data.root", f"{config.root}: no image of {names} has an object that is not difficult")
    if config.test_fraction is not None or not _has_test(config):
        return parts, []
    try:
        test = [read_annotation(*pair) for pair in list_year(config, "2007", "test")]
    except JobError as error:
        return parts, [f"the image set test of 2007 is not measured: {error}"]
    return {**parts, "test": test}, []


def classes_of(parts: dict[str, list[Annotation]]) -> tuple[str, ...]:
    """The 20 classes of VOC, or all names of the annotations, sorted, where one of them is not among the 20."""
    names = {name for part in parts.values() for annotation in part for name in annotation.names}
    return CLASSES if names <= set(CLASSES) else tuple(sorted(names))


def _count(part: list[Annotation], classes: Sequence[str]) -> Any:
    """The objects of each class, int64 (classes,)."""
    found = Counter(name for annotation in part for name in annotation.names)
    return np.array([found[name] for name in classes])


def _has_test(config: VOCDataConfig) -> bool:
    """Whether the published test set of 2007 is there, and does not validate."""
    if config.val_set == "test" or "2007" not in config.years:
        return False
    folder = find_year(Path(config.root), "2007", is_only=set(config.years) == {"2007"})
    return (folder / "ImageSets" / "Main" / "test.txt").is_file()


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
            annotation.names.append(_text(item, "name"))
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


def _text(item: ElementTree.Element, name: str) -> str:
    text = item.findtext(name)
    if text is None or not text.strip():
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
    return [paths for year in dict.fromkeys(years) for paths in list_year(config, year, name)]


def transform_of(is_training: bool) -> Any:
    """The transform of a PIL image and its boxes. The model resizes and normalizes (GeneralizedRCNNTransform)."""
    import torch
    from torchvision.transforms import v2

    flip = [v2.RandomHorizontalFlip()] if is_training else []
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()]
    return v2.Compose([v2.ClampBoundingBoxes(), *flip, *finish])
