"""The split of each text file, found from its name."""

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from activelr_service.config.data import TextDataConfig
from activelr_service.data.info import shorten
from activelr_service.data.listing import count_suffixes, list_files
from activelr_service.data.saved_datasets import is_saved, list_splits
from activelr_service.data.splits import WORDS, one_name_each, split_of
from activelr_service.data.text_files import SUFFIXES, format_of
from activelr_service.errors import JobError

PLACE = "data.root"
NUMBERING = {"of", "part", "shard"}  # as in train-00000-of-00002


class TextSplits(NamedTuple):
    """The files of each split, or the folder of a saved dataset. Only ``train`` is always there."""

    files: dict[str, list[Path]]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def find_splits(config: TextDataConfig) -> TextSplits:
    """Find the splits from the names of the files. Raises :class:`JobError` if there is no text to train on."""
    root = _root(config)
    if root.is_dir() and is_saved(root):
        return _saved_splits(root)
    if root.is_file():
        as_plain = "" if format_of(root) else ", read as plain text, since its suffix is not known"
        return TextSplits({"train": [root]}, (f"text to train on: {root}{as_plain}",))
    listed = [Path(path) for path in list_files(root, PLACE)]
    files = [path for path in listed if format_of(path) is not None]
    others = [str(path) for path in listed if format_of(path) is None]
    notes = [f"left out, since they are no text that is read: {count_suffixes(others)}"] if others else []
    files, warnings = _of_one_format(files)
    named = _told_by_names(root, files)
    found = _with_training_text(root, files, named, warnings)
    titles = [path.name for path in files if path not in named and set(_words(path)) & WORDS.keys()]
    if titles:
        notes.append(f"taken as titles, not as splits: {shorten(titles)}")
    notes += [f"text of the {split} split: {_count(paths)}" for split, paths in found.items()]
    return TextSplits(found, tuple(notes), tuple(warnings))


def find_all(config: TextDataConfig) -> TextSplits:
    """All files of text by their splits, "" for files whose names tell none. No split needs to be there.

    Raises :class:`JobError` if there is no text.
    """
    root = _root(config)
    if root.is_dir() and is_saved(root):
        return TextSplits({split_of(name) or name: [folder] for name, folder in list_splits(root, PLACE).items()})
    if root.is_file():
        return TextSplits({"": [root]})
    files, warnings = _of_one_format([path for path in map(Path, list_files(root, PLACE)) if format_of(path)])
    if not files:
        raise JobError.at(PLACE, f"{root} has no file that ends with {', '.join(SUFFIXES)}")
    named = _told_by_names(root, files)
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(named.get(path, ""), []).append(path)
    return TextSplits(splits, warnings=tuple(warnings))


def _root(config: TextDataConfig) -> Path:
    root = Path(config.root)
    if not root.exists():
        raise JobError.at(PLACE, f"no such file or folder: {root}")
    return root


def _count(paths: list[Path]) -> str:
    return f"{len(paths)} files ({shorten([path.name for path in paths])})" if len(paths) > 1 else str(paths[0])


def _of_one_format(files: list[Path]) -> tuple[list[Path], list[str]]:
    """Keep the parquet files, or else the JSON lines, or else the plain text. The others often only describe them."""
    for name in ("parquet", "lines", "plain"):
        kept = [path for path in files if format_of(path) == name]
        left = [str(path) for path in files if format_of(path) != name]
        if kept:
            warning = f"left out, beside files of another format: {count_suffixes(left)}"
            return kept, [warning] if left else []
    return files, []


def _with_training_text(
    root: Path, files: list[Path], named: dict[Path, str], warnings: list[str]
) -> dict[str, list[Path]]:
    """The files of each split. Files without a split become the train split if there is none; else they are left out."""
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(named.get(path, ""), []).append(path)
    unnamed = splits.pop("", [])
    if unnamed and "train" in splits:
        warnings.append(f"left out, since their names tell no split beside others: {_count(unnamed)}")
    elif unnamed:
        if splits:
            warnings.append(f"taken as text to train on, since no name tells the train split: {_count(unnamed)}")
        splits = {"train": unnamed, **splits}
    if not splits.get("train"):
        found = ", ".join(path.name for path in files[:5])
        found += f", by their names of the {' and '.join(splits)} split; rename them if they are not" if files else ""
        found = found or f"no file that ends with {', '.join(SUFFIXES)}"
        raise JobError.at(PLACE, f"{root} has no text to train on; found: {found}")
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def _told_by_names(root: Path, files: list[Path]) -> dict[Path, str]:
    """The split of each file that has one. There are three rules.

    1. The whole name of a folder below ``root``, or of the file without its numbers, means a split.
    2. One word of the file's name means a split, and another file beside it has the same name with the word of another
       split, such as wiki.train.tokens and wiki.valid.tokens.
    3. One word of the name means a split, the name has no spaces, and either some file matched rule 2, or every file has
       such a name and they mean different splits.
    """
    told = {path: split for path in files if (split := _by_whole_name(root, path)) is not None}
    rest = {path: split for path in files if path not in told and (split := _by_one_word(path)) is not None}
    alike: dict[tuple[Path, tuple[str, ...]], dict[Path, str]] = defaultdict(dict)
    for path, split in rest.items():
        words = tuple("" if word in WORDS else word for word in _words(path))
        alike[path.parent, words][path] = split
    for group in alike.values():
        if len(set(group.values())) > 1:
            told |= group
    compact = {path: split for path, split in rest.items() if " " not in path.name}
    if told.keys() & rest.keys() or (len(compact) == len(files) and len(set(compact.values())) > 1):
        told |= compact
    return told


def _by_whole_name(root: Path, path: Path) -> str | None:
    folders = [split for part in path.relative_to(root).parts[:-1] if (split := split_of(part)) is not None]
    words = [word for word in _words(path) if word not in NUMBERING]
    return folders[0] if folders else split_of(" ".join(words)) if words else None


def _by_one_word(path: Path) -> str | None:
    splits = [WORDS[word] for word in _words(path) if word in WORDS]
    return splits[0] if len(splits) == 1 else None


def _words(path: Path) -> list[str]:
    """The words of a file's name without its suffixes, in lower case and without numbers."""
    name = path.name.lower().removesuffix(".gz")
    stem = name.removesuffix(next((suffix for suffix in SUFFIXES if name.endswith(suffix)), ""))
    return [word for word in re.split(r"[\W\d_]+", stem) if word]


def _saved_splits(root: Path) -> TextSplits:
    folders = list_splits(root, PLACE)
    names = one_name_each(folders, PLACE, root)
    if "train" not in names:
        raise JobError.at(PLACE, f"{root} has no split train; it has {', '.join(sorted(folders)) or 'none'}")
    notes = [f"text of the {split} split: the saved split {name}" for split, name in names.items()]
    if others := sorted(folders.keys() - set(names.values())):
        notes.append(f"left out: the saved splits {shorten(others)}")
    return TextSplits({split: [folders[name]] for split, name in names.items()}, tuple(notes))
