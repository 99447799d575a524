"""Images in one folder per class, decoded by torchvision as they are needed."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from activelr_service.config import JobError
from activelr_service.config.data import ImageFolderDataConfig
from activelr_service.data.images import classification_transforms, load_image_or_skip
from activelr_service.data.info import DataInfo, split_sizes

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's ImageFolder


def inspect(config: ImageFolderDataConfig) -> DataInfo:
    root = Path(config.root)
    if not root.is_dir():
        raise JobError.at("data.root", f"no such folder: {config.root}")
    train = _count_images(root / "train" if _is_split(root) else root)
    if _is_split(root):
        val = _count_images(root / "val")
        if train.keys() != val.keys():
            odd = ", ".join(sorted(train.keys() ^ val.keys()))
            raise JobError.at("data.root", f"train and val under {root} have different class folders: {odd}")
        sizes = sum(train.values()), sum(val.values())
    else:
        sizes = split_sizes(sum(train.values()), config.val_fraction)
    shape = (3, config.image_size, config.image_size)
    return DataInfo(("classification",), *sizes, shape, num_classes=len(train), classes=tuple(sorted(train)))


def build(config: ImageFolderDataConfig) -> tuple[Any, Any]:
    """(train, val) datasets of normalised float32 images: random crops and flips to train on, centre crops to validate.

    A file that cannot be decoded raises ``ValueError`` when it is read; with ``on_corrupt`` "skip" its input is None.
    """
    import torch
    from torch.utils.data import Subset
    from torchvision.datasets import ImageFolder

    root, transforms = Path(config.root), classification_transforms(config.image_size)
    folders = [root / "train", root / "val"] if _is_split(root) else [root, root]
    load = partial(load_image_or_skip, on_corrupt=config.on_corrupt)
    train, val = (
        ImageFolder(str(folder), transform, loader=load) for folder, transform in zip(folders, transforms, strict=True)
    )
    if _is_split(root):
        return train, val
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    num_train, _ = split_sizes(len(train), config.val_fraction)
    return Subset(train, order[:num_train]), Subset(val, order[num_train:])


def _is_split(root: Path) -> bool:
    return (root / "train").is_dir() and (root / "val").is_dir()


def _count_images(folder: Path) -> dict[str, int]:
    """Images per class folder; raises :class:`JobError` where there is none."""
    counts = {}
    for entry in os.scandir(folder):
        if entry.is_dir():
            files = (name for _, _, names in os.walk(entry.path, followlinks=True) for name in names)
            counts[entry.name] = sum(name.lower().endswith(EXTENSIONS) for name in files)
    if len(counts) < 2:
        raise JobError.at("data.root", f"{folder} has {len(counts)} class folders; at least 2 are needed")
    empty = sorted(name for name, count in counts.items() if count == 0)
    if empty:
        raise JobError.at("data.root", f"class folders without an image under {folder}: {', '.join(empty)}")
    return counts
