"""The splits, the class folders and the other files in a folder of images."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from activelr_service.data.images import formats
from activelr_service.data.info import shorten
from activelr_service.data.listing import count_suffixes, list_files, list_folders, suffix_of
from activelr_service.data.splits import one_name_each, split_of
from activelr_service.errors import JobError

PLACE = "data.root"


class Layout(NamedTuple):
    """The folders of the training, of the validation and of the test images; the last two are None if there are none."""

    train: Path
    val: Path | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    test: Path | None = None


class Classes(NamedTuple):
    """``images`` of each class folder, ``others`` that are no images, and ``strays``: images outside of class folders."""

    images: dict[str, list[str]]
    others: list[str]
    strays: list[str]
    warnings: tuple[str, ...]


@cache
def extensions() -> frozenset[str]:
    """The suffixes of the images that the installed Pillow decodes."""
    from PIL import Image

    decoded = formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in decoded)


def is_image(path: str) -> bool:
    return suffix_of(path) in extensions()


def find_layout(root: Path, hold_out_test: bool = False) -> Layout:
    """Find the split folders below ``root``. A folder named like a split can also be a class.

    It is a class if it holds images itself and other folders lie beside it. It is a split if it holds class folders. With
    ``hold_out_test`` a test folder never validates. Raises :class:`JobError` if neither is clear.
    """
    names = list_folders(root, PLACE)
    splits, others = [name for name in names if split_of(name)], [name for name in names if not split_of(name)]
    with_classes = [name for name in splits if holds_classes(root / name, strictly=bool(others))]
    if not splits or (others and not with_classes):
        note = f"{shorten(splits)} under {root}: taken as a class, since it holds images and lies among other classes"
        return Layout(root, None, warnings=(note,) if splits else ())
    if others and not _are_splits(root, with_classes, others):
        text = f"{root} has folders called as splits ({shorten(with_classes)}) among others ({shorten(others)}); if all are"
        text += f" classes, rename {shorten(with_classes)}; if not, call the validation folder val, or move others away"
        raise JobError.at(PLACE, text)
    left = [f"left out: {shorten(others)} under {root}, beside the splits {shorten(with_classes)}"] if others else []
    if direct := direct_images(root):
        left.append(f"left out: {len(direct)} images beside the splits, such as {direct[0]}")
    layout = _of_splits(root, splits, with_classes, hold_out_test)
    return layout._replace(warnings=(*layout.warnings, *left))


def holds_classes(folder: Path, strictly: bool) -> bool:
    """Whether the folder holds folders and, if ``strictly``, no images beside them."""
    return bool(list_folders(folder, PLACE)) and not (strictly and direct_images(folder))


def direct_images(folder: Path) -> list[str]:
    return [path for path in list_files(folder, PLACE, is_deep=False) if is_image(path)]


def _are_splits(root: Path, with_classes: list[str], others: list[str]) -> bool:
    """Whether folders are splits: train and another one are; train alone is if no other folder holds images."""
    kinds = {split_of(name) for name in with_classes}
    if "train" in kinds and len(kinds) > 1:
        return True
    return kinds == {"train"} and not any(is_image(path) for name in others for path in list_files(root / name, PLACE))


def _of_splits(root: Path, names: list[str], with_classes: list[str], hold_out_test: bool) -> Layout:
    splits = one_name_each(names, PLACE, root)
    if "train" not in splits:
        text = f"{root} has {shorten(names)} and no folder train; name a folder that holds train, or one that holds classes"
        raise JobError.at(PLACE, text)
    for split in ("train", "validation"):
        if split in splits and splits[split] not in with_classes:
            text = f"{root / splits[split]} has no class folders; put its images into one folder for each class"
            raise JobError.at(PLACE, text + (", or take it away" if split == "validation" else ""))
    warnings = []
    if "test" in splits and splits["test"] not in with_classes:
        warnings.append(f"left out: {root / splits.pop('test')}, which has no class folders")
    folders = {split: root / name for split, name in splits.items()}
    val, test = folders.get("validation"), folders.get("test")
    if val is None and not hold_out_test:
        val, test = test, None
    notes = []
    if val is not None:
        reason = "" if "validation" in splits else ", since there is no validation folder"
        keep = "" if "validation" in splits else "; data.hold_out_test: true keeps it for a test at the end"
        notes.append(f"validation: the folder {val}{reason}{keep}")
    if test is not None:
        notes.append(f"test: the folder {test}; measured once, at the end")
    return Layout(folders["train"], val, tuple(notes), tuple(warnings), test)


def list_classes(folder: Path) -> Classes:
    """List the class folders of ``folder`` and the images in each, at any depth."""
    names = list_folders(folder, PLACE)
    images, others = {}, []
    for name in names:
        files = list_files(folder / name, PLACE)
        images[name] = [path for path in files if is_image(path)]
        others += [path for path in files if not is_image(path)]
    direct = list_files(folder, PLACE, is_deep=False)
    others += [path for path in direct if not is_image(path)]
    return Classes(images, others, [path for path in direct if is_image(path)], _nested_splits(folder, names))


def _nested_splits(folder: Path, names: list[str]) -> tuple[str, ...]:
    inside = [list_folders(folder / name, PLACE) for name in names]
    nested = {name for inner in inside for name in inner if split_of(name)}
    if len({split_of(name) for name in nested}) > 1:
        text = (
            f"class folders under {folder} hold folders {shorten(sorted(nested))}: all their images are taken together"
        )
        return (f"{text}; move them to {folder}/SPLIT/CLASS to keep them apart",)
    is_same = len(names) > 1 and len(inside[0]) > 1 and all(inner == inside[0] for inner in inside)
    if not is_same or any(direct_images(folder / name) for name in names):
        return ()
    text = f"{shorten(names)} under {folder} are taken as classes, and hold the same folders: {shorten(inside[0])}"
    return (f"{text}; if those are the classes, call the folders above them train and val",)


def check_classes(folder: Path, found: Classes, smallest: int) -> None:
    """Raise :class:`JobError` if there are too few class folders, or if one has no image."""
    empty = sorted(name for name, paths in found.images.items() if not paths)
    if len(found.images) >= smallest and not empty:
        return
    held = f"; left out: {count_suffixes(found.others)}" if found.others else ""
    if empty and len(found.images) >= smallest:
        raise JobError.at(PLACE, f"class folders without an image under {folder}: {shorten(empty)}{held}")
    text = f"{folder} has {len(found.images)} class folders; at least {smallest} are needed"
    inner = [name for name in found.images if len(list_folders(folder / name, PLACE)) > 1]
    hint = f"; did you mean {folder / inner[0]}?" if inner else ""
    direct = f"; {len(found.strays)} images lie directly in it, and their classes are not known" if found.strays else ""
    raise JobError.at(PLACE, f"{text}{hint}{direct}{held}")
