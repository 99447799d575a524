"""All images of another folder, to measure a model on them."""

from pathlib import Path

from activelr_service.config.data import ImageFolderDataConfig
from activelr_service.data.imagefolder import as_dataset, label
from activelr_service.data.imagefolder_layout import PLACE, direct_images, holds_classes, is_image, list_classes
from activelr_service.data.info import DataInfo
from activelr_service.data.listing import count_suffixes, list_files, list_folders
from activelr_service.data.splits import one_name_each, split_of
from activelr_service.data.whole import Whole, name_splits
from activelr_service.errors import JobError


def build_whole(config: ImageFolderDataConfig, trained: DataInfo, cache: Path) -> list[Whole]:
    """All images in the class folders below the root, of every split that it has.

    Raises :class:`JobError` for class folders that the model does not know, and if there is no image.
    """
    root = Path(config.root)
    if not root.is_dir():
        raise JobError.at(PLACE, f"no such folder: {config.root}")
    classes = config.classes or list(trained.classes)
    folders, left_out = _find_splits(root, classes)
    parts = [_read(config, split, folder, classes) for split, folder in folders.items()]
    if not any(len(part.dataset) for part in parts):
        found = count_suffixes(list_files(root, PLACE)) or "no file"
        raise JobError.at(PLACE, f"{root} has no image in a folder of a class; it has {found}")
    parts = [part for part in parts if len(part.dataset)]
    return name_splits([parts[0]._replace(left_out={**left_out, **parts[0].left_out}), *parts[1:]])


def _find_splits(root: Path, classes: list[str]) -> tuple[dict[str, Path], dict[str, int]]:
    """The folders of the splits below ``root``, or ``root`` itself as "train", and the numbers of images beside them."""
    names = list_folders(root, PLACE)
    splits = [name for name in names if split_of(name) and holds_classes(root / name, strictly=False)]
    if not splits or set(names) & set(classes):
        return {"train": root}, {}
    folders = {split: root / name for split, name in one_name_each(splits, PLACE, root).items()}
    beside = {f"images in {root / name}, which is no split": root / name for name in names if name not in splits}
    counts = {reason: sum(map(is_image, list_files(folder, PLACE))) for reason, folder in beside.items()}
    counts[f"images directly in {root}"] = len(direct_images(root))
    return folders, {reason: count for reason, count in counts.items() if count}


def _read(config: ImageFolderDataConfig, split: str, folder: Path, classes: list[str]) -> Whole:
    found = list_classes(folder)
    left_out = {f"images in no class folder of {folder}": len(found.strays)}
    left_out["files that are no images that can be decoded"] = len(found.others)
    dataset = as_dataset(config, label(folder, found, classes))
    kept = {reason: count for reason, count in left_out.items() if count}
    return Whole(split, str(folder), dataset, kept, found.warnings)
