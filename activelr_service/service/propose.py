"""Looks at a file or folder of data and proposes a job that trains on it: ``activelr train PATH`` without a YAML file."""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median_low
from typing import Any

from activelr_service.config.job import TAKEN_NAMES
from activelr_service.config.yaml_file import dump_yaml
from activelr_service.data.imagefolder_layout import is_image
from activelr_service.data.listing import count_suffixes, list_files, list_folders
from activelr_service.data.saved_datasets import is_saved, list_splits, load_split
from activelr_service.data.splits import split_of
from activelr_service.data.text_files import format_of
from activelr_service.errors import CommandError, JobError
from activelr_service.runs.files import write_text
from activelr_service.runs.run import output_root
from activelr_service.service.propose_table import Proposal, epochs_for, propose_table, table_suffix

IMAGES_LOOKED_AT = 64
SMALL_SIDE = 64  # pixels; an image that is not larger is small
CPU_SIDE = 128  # pixels; larger images take long without a GPU
STRIDE = 32  # pixels; networks shrink an image by so much, so that its side is best a multiple
SMALL_GPT = {"n_layer": 4, "n_head": 4, "n_embd": 128}
READ = (
    "CSV, JSON lines, parquet, .npz, text, folders of images, of text or of parquet files, saved datasets, VOC, CIFAR"
)


def propose_job(path: Path, overrides: Sequence[str] = (), target: str | None = None) -> tuple[Path, list[str]]:
    """Write a job that trains on the data at ``path`` to ``OUTPUT_DIR/NAME/job.yaml``.

    A file that is there already stays, because a person may have changed it. ``overrides`` are read for the name and the
    output folder only. ``target`` is the column of a table to predict.

    Returns the file, and the lines that say what the data were taken for. Raises :class:`CommandError` if nothing can be
    proposed, or if the file that is there trains on other data.
    """
    from activelr_service.config import read_job

    given = dict(text.partition("=")[::2] for text in overrides)
    name = given.get("name") or _name_of(path)
    file = output_root(given.get("output_dir", "outputs")) / name / "job.yaml"
    here = str(path.resolve())
    if file.exists():
        job, _ = read_job(file)
        known = {getattr(job.data, key, None) for key in ("path", "root")}
        if not any(place and Path(place).is_relative_to(here) for place in known):
            text = f"{file} trains on other data; give this one another name: --set name=NAME"
            raise CommandError(text)
        if target is not None and getattr(job.data, "target", None) != target:
            raise CommandError(f"{file} is there and has another target; change it there, or remove the file")
        return file, [f"{path} has a job already: {file}; remove the file to have the data looked at anew"]
    proposal = propose(path.resolve(), target)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, _document(path, name, proposal))
    return file, [*proposal.why, f"the job is {file}; change it there, and train it with `activelr train {file}`"]


def propose(path: Path, target: str | None = None) -> Proposal:
    """What the data at ``path`` are, and how to train on them. Raises :class:`CommandError` if they are nothing known."""
    if target is not None and not _is_table(path):
        raise CommandError(f"{path} is no table, and only a table has a target; leave --target out")
    try:
        found = _of_folder(path, target) if path.is_dir() else _of_file(path, target)
    except JobError as error:
        raise CommandError(str(error)) from error
    if found is not None:
        return found
    seen = count_suffixes(list_files(path, "data")) if path.is_dir() else path.suffix or "no suffix"
    raise CommandError(f"{path} holds no data that can be read ({seen or 'it is empty'}); these can be: {READ}")


def _is_table(path: Path) -> bool:
    return table_suffix(path) is not None or (path.is_dir() and _table_in(path) is not None)


def _of_file(path: Path, target: str | None) -> Proposal | None:
    if path.suffix.lower() == ".npz":
        return _npz(path)
    if table_suffix(path) is not None and (table := propose_table(path, None, target)) is not None:
        return table
    return _text(path, [str(path)]) if format_of(path) is not None else None


def _of_folder(path: Path, target: str | None) -> Proposal | None:
    folders = list_folders(path, "data")
    if is_saved(path):
        return _saved(path)
    if {"Annotations", "ImageSets", "JPEGImages"} <= set(folders) or any(
        name.startswith("VOC") for name in (path.name, *folders)
    ):
        detector = {"type": "torchvision_detection", "name": "fasterrcnn_mobilenet_v3_large_320_fpn"}
        return Proposal({"type": "voc", "root": str(path)}, detector, 26, [f"{path}: images with boxes, as PASCAL VOC"])
    for number in (10, 100):
        if {path.name, *folders} & {f"cifar-{number}-batches-py", f"cifar-{number}-python"}:
            model = {"type": "torchvision", "name": "resnet18", "stem": "cifar"}
            return Proposal({"type": f"cifar{number}", "root": str(path)}, model, 30, [f"{path}: CIFAR-{number}"])
    files = list_files(path, "data")
    if images := [file for file in files if is_image(file)]:
        data = {"type": "imagefolder", "root": str(path)}
        return _images(data, _sides(images), len(images), f"{path}: {len(images):,} images in folders")
    if (table := _table_in(path)) is not None:
        return propose_table(*table, target) or _text(path, [str(file) for file in table if file])
    texts = [file for file in files if format_of(Path(file)) in ("plain", "lines")]
    return _text(path, texts) if texts else None


def _table_in(folder: Path) -> tuple[Path, Path | None] | None:
    """The table in a folder, and the file to validate on: a single file, train and validation files, or parquet parts."""
    files = [Path(file) for file in list_files(folder, "data")]
    tables = [file for file in files if table_suffix(file) is not None]
    if any(format_of(file) == "plain" for file in files) or not tables:
        return None
    by_split = {split_of(file.name.split(".")[0]): file for file in tables}
    if "train" in by_split:
        return by_split["train"], by_split.get("validation")
    if all(table_suffix(file) == ".parquet" for file in tables):
        return folder, None
    return (tables[0], None) if len(tables) == 1 else None


def _images(data: dict[str, Any], sides: Sequence[int], count: int, what: str) -> Proposal:
    """``sides`` are the shorter sides of some of the ``count`` images, in pixels."""
    import torch

    why, model = [what], {"type": "torchvision", "name": "resnet18"}
    side = median_low(sides) if sides else None
    if side is not None and side <= SMALL_SIDE:
        data |= {"image_size": max(8, side), "augment": "light"}
        model["stem"] = "cifar"
        why.append(
            f"the images are small, {side} pixels: they keep their size, are only shifted, and get a suitable network"
        )
    elif not torch.cuda.is_available():
        data["image_size"] = min(CPU_SIDE, -(-(side or CPU_SIDE) // STRIDE) * STRIDE)
        reason = f"the images have {side} pixels and " if side is not None and side < CPU_SIDE else ""
        size = f"image_size {data['image_size']}, because {reason}there is no GPU"
        why.append(f"{size}; 224 is usual, slower and often better")
    epochs = epochs_for(count, 10_000, 10, 40)
    return Proposal(data, model, epochs, [*why, f"epochs: {epochs}, for {count:,} images"])


def _sides(paths: Sequence[str]) -> list[int]:
    """The shorter sides, in pixels, of at most :data:`IMAGES_LOOKED_AT` images that can be opened."""
    from PIL import Image

    sides = []
    for path in _some(paths):
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
        except (OSError, ValueError):  # the check of the data names such files
            continue
    return sides


def _some(items: Sequence[Any]) -> Sequence[Any]:
    return items[:: -(-len(items) // IMAGES_LOOKED_AT) or 1]


def _saved(path: Path) -> Proposal | None:
    splits = [load_split(folder, "data") for folder in list_splits(path, "data").values()]
    splits = [split for split in splits if split is not None]
    if not splits:
        return None
    features = splits[0].features
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    image = next((column for column, kind in kinds.items() if kind == "Image"), None)
    if image is None:
        return _text(path, [str(path)])
    label = next((column for column, kind in kinds.items() if kind == "ClassLabel"), "label")
    data = {"type": "huggingface", "path": str(path), "image_column": image, "label_column": label}
    rows = _some(range(len(splits[0])))
    sides = [min(splits[0][row][image].size) for row in rows if splits[0][row][image] is not None]
    what = f"{path}: a saved dataset of images ({image}) and classes ({label})"
    return _images(data, sides, sum(map(len, splits)), what)


def _npz(path: Path) -> Proposal:
    from activelr_service.config.data import NpzDataConfig
    from activelr_service.data import npz

    info = npz.inspect(NpzDataConfig(path=str(path)))
    data, what = {"type": "npz", "path": str(path)}, f"{path}: arrays, {info.describe()}"
    if info.vocab_size is not None:
        return Proposal(data, {"type": "causal_lm", "name": "gpt2", "config": SMALL_GPT}, 10, [what])
    epochs = epochs_for(info.num_train or 1, 20_000, 10, 40)
    return Proposal(data, {"type": "mlp"}, epochs, [what, f"epochs: {epochs}"])


def _text(path: Path, files: Sequence[str]) -> Proposal:
    size = sum(Path(file).stat().st_size for file in files if Path(file).is_file())
    vocab_size = 1000 if size < 2**20 else 10_000
    epochs = epochs_for(size, 20_000_000, 2, 20) if size else 5
    what = f"{path}: text of {size:,} bytes, for a small language model"
    data = {"type": "text", "root": str(path), "block_size": 128, "vocab_size": vocab_size}
    model = {"type": "causal_lm", "name": "gpt2", "config": SMALL_GPT}
    return Proposal(data, model, epochs, [what, f"epochs: {epochs}; vocab_size: {vocab_size}"])


def _name_of(path: Path) -> str:
    """A name for the job: that of the file or folder, with characters that a name may have."""
    stem = path.resolve().name.split(".")[0] if path.is_file() else path.resolve().name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("._-")[:50] or "data"
    return f"{name}-run" if name.lower() in TAKEN_NAMES or name.lower().startswith("mlflow.db") else name


def _document(path: Path, name: str, proposal: Proposal) -> str:
    lines = [
        f"# Proposed by `activelr train {path}`. What is not written here is derived when the job runs.",
        *proposal.why,
    ]
    keys = {"kind": "train", "name": name, "model": proposal.model, "data": proposal.data, "epochs": proposal.epochs}
    return "\n# ".join(" ".join(line.split()) for line in lines) + "\n" + dump_yaml(keys)
