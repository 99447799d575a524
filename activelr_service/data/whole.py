"""All samples of data that a model was not trained on, to measure the model on them."""

from typing import Any, NamedTuple


class Whole(NamedTuple):
    """All samples of one file, folder or split that can be scored, as the model gets them.

    ``split`` is "train", "validation" or "test"; "" if the data have no splits. ``source`` names the file or folder.
    ``left_out`` maps each reason to the number of samples that are not in ``dataset``. ``notes`` are for the log.
    """

    split: str
    source: str
    dataset: Any
    left_out: dict[str, int]
    notes: tuple[str, ...] = ()


def name_splits(parts: list[Whole]) -> list[Whole]:
    """The parts; one alone that is called "train" has no splits beside it, and is called ""."""
    return [parts[0]._replace(split="")] if len(parts) == 1 and parts[0].split == "train" else parts
