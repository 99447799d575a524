"""All rows of another saved dataset, to measure a model on them."""

from pathlib import Path

import numpy as np

from activelr_service.config.data import HuggingFaceDataConfig
from activelr_service.data.huggingface import as_dataset
from activelr_service.data.huggingface_splits import Rows
from activelr_service.data.info import DataInfo
from activelr_service.data.saved_datasets import check_columns, is_unlabeled, known_labels, list_splits, load_split
from activelr_service.data.splits import check_known, one_name_each, split_of
from activelr_service.data.whole import Whole, name_splits
from activelr_service.errors import JobError


def build_whole(config: HuggingFaceDataConfig, trained: DataInfo, cache: Path) -> list[Whole]:
    """All rows of all splits that have a label.

    Raises :class:`JobError` for classes that the model does not know, and if no row has a label.
    """
    if not Path(config.path).is_dir():
        raise JobError.at("data.path", f"no such folder: {config.path}")
    folders = list_splits(Path(config.path), "data.path")
    one_name_each(folders, "data.path", config.path)
    classes = config.classes or list(trained.classes)
    parts = [_read(config, name, folder, classes) for name, folder in folders.items()]
    if not any(len(part.dataset) for part in parts):
        raise JobError.at("data.label_column", f"{config.path} has no row with a label in {config.label_column!r}")
    left_out: dict[str, int] = {}
    for part in parts:
        left_out |= part.left_out
    first, *others = [part for part in parts if len(part.dataset)]
    return name_splits([first._replace(left_out=left_out), *(part._replace(left_out={}) for part in others)])


def _read(config: HuggingFaceDataConfig, name: str, folder: Path, classes: list[str]) -> Whole:
    split, source = split_of(name) or name, f"the split {name} of {config.path}"
    dataset = load_split(folder, "data.path")
    if dataset is None:
        return Whole(split, source, (), {}, (f"{source} has no rows",))
    if config.label_column not in dataset.features or is_unlabeled(config, dataset):
        return Whole(split, source, (), {f"no label in {source}": len(dataset)})
    check_columns(config, dataset, name)
    labels, unknown = known_labels(config, dataset, classes)
    names = [name for name, count in unknown.items() for _ in range(count)]
    check_known(names, classes, "data.label_column", source)
    without = int((labels < 0).sum())
    rows = Rows(name, dataset, np.flatnonzero(labels >= 0), labels[labels >= 0])
    return Whole(split, source, as_dataset(config, rows), {f"no label in {source}": without} if without else {})
