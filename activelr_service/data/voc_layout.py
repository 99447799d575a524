"""The files of a PASCAL VOC devkit: its years, their image sets, and the image and the annotation of each name."""

import os
from pathlib import Path

from activelr_service.config.data import VOCDataConfig
from activelr_service.errors import JobError


def list_year(config: VOCDataConfig, year: str, name: str) -> list[tuple[Path, Path]]:
    """(image, annotation) paths of an image set of a year. Raises :class:`JobError` if a file is missing."""
    folder = find_year(Path(config.root), year, is_only=set(config.years) == {year})
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


def find_year(root: Path, year: str, is_only: bool) -> Path:
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
