"""Folders of ``datasets.save_to_disk``: one dataset, or one for each split."""

import json
from pathlib import Path
from typing import Any

from activelr_service.errors import JobError

SEVERAL, ONE = "dataset_dict.json", "state.json"  # what datasets writes of several splits and of one


def is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (SEVERAL, ONE))


def list_splits(folder: Path, place: str) -> dict[str, Path]:
    """The folder of each split by its name; a dataset without splits is ``train``.

    Raises :class:`JobError` at ``place`` for a folder that holds no saved dataset.
    """
    if (folder / ONE).is_file():
        return {"train": folder}
    if not (folder / SEVERAL).is_file():
        text = f"{folder} is not a dataset saved by datasets: it holds neither {SEVERAL} nor {ONE}"
        raise JobError.at(place, text)
    try:
        names = json.loads((folder / SEVERAL).read_text())["splits"]
        return {name: folder / name for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError.at(place, f"{folder / SEVERAL} cannot be read: {error!r}") from error


def load_split(folder: Path, place: str) -> Any:
    """The dataset saved in ``folder``, or None if it has no rows. Raises :class:`JobError` at ``place``."""
    from datasets import load_from_disk

    try:
        if json.loads((folder / ONE).read_text())["_data_files"] == []:  # datasets itself cannot load it
            return None
        dataset: Any = load_from_disk(str(folder))
    except Exception as error:
        raise JobError.at(place, f"{folder} is not a dataset saved by datasets: {error}") from error
    return dataset if len(dataset) else None
