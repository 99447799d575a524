"""All images of other years or of another devkit, to measure a detector on them."""

from pathlib import Path

from activelr_service.config.data import VOCDataConfig
from activelr_service.data.info import DataInfo
from activelr_service.data.splits import check_known
from activelr_service.data.voc import VOCDataset, read_annotation
from activelr_service.data.voc_layout import find_year, list_year
from activelr_service.data.whole import Whole
from activelr_service.errors import JobError

SETS = {"train": "train", "val": "validation", "test": "test"}


def build_whole(config: VOCDataConfig, trained: DataInfo, cache: Path) -> list[Whole]:
    """The images of the sets train, val and test of each year, as far as they are there.

    The boxes of test are published for 2007 only. Raises :class:`JobError` for a class that was not trained on, and if
    there is no set.
    """
    parts = []
    for year in dict.fromkeys(config.years):
        folder = find_year(Path(config.root), year, is_only=set(config.years) == {year})
        there = [name for name in SETS if (folder / "ImageSets" / "Main" / f"{name}.txt").is_file()]
        for name in [name for name in there if name != "test" or year == "2007"]:
            annotations = [read_annotation(*pair) for pair in list_year(config, year, name)]
            where = folder / "ImageSets" / "Main" / f"{name}.txt"
            check_known((name for one in annotations for name in one.names), trained.classes, "data.root", where)
            dataset = VOCDataset(annotations, trained.classes, "skip", is_training=False)
            parts.append(Whole(SETS[name], f"the image set {name} of {folder}", dataset, {}))
    if not parts:
        raise JobError.at("data.root", f"{config.root} has no image set train, val or test")
    return parts
