"""What a job needs to know of its data before anything is loaded."""

from typing import Any, NamedTuple


class DataInfo(NamedTuple):
    """Shape and size of a dataset. Rows are None where only :func:`~activelr_service.data.prepare_data` can count them.

    ``tasks``: what it can be used for, the default first. ``input_shape``: of one row, ``()`` if rows differ in it.
    ``num_classes`` is set for classification and, without the background, for detection; ``num_outputs`` for regression
    (values per row), ``vocab_size`` for token ids (largest id + 1). ``notes`` say what was read: files and rows, classes and
    columns, the split, and what was left out and why. ``warnings`` say what a person should look at twice. Both are plain
    lines; the log, MLflow and ``activelr validate`` show them. ``input_scale``: what stored integers (pixels of 0 to 255)
    are divided by before the model sees them.
    """

    tasks: tuple[str, ...]
    num_train: int | None
    num_val: int | None
    input_shape: tuple[int, ...]
    num_classes: int | None = None
    num_outputs: int | None = None
    vocab_size: int | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    input_scale: float = 1.0

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "DataInfo":
        """From ``_asdict()``, also after a way through JSON, which makes lists of tuples."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**fields)

    def counted(self) -> tuple[int, int]:
        """The numbers of training and of validation samples. Raises ``ValueError`` if they are not counted yet."""
        if self.num_train is None or self.num_val is None:
            raise ValueError("these data are counted by prepare_data only")
        return self.num_train, self.num_val

    def describe(self) -> str:
        """One line for a log."""
        if self.num_train is None:
            return f"rows of shape {self.input_shape}, counted when the training starts"
        size = f"{self.num_train:,} training and {self.num_val:,} held-out rows"
        size += f" of shape {self.input_shape}" if self.input_shape else ""
        return f"{size}, {self.num_classes} classes" if self.num_classes else size


def split_sizes(num_rows: int, val_fraction: float) -> tuple[int, int]:
    """(train, val) row counts of a random split, at least one row each where there are two."""
    num_val = min(max(1, round(num_rows * val_fraction)), num_rows - 1)
    return num_rows - num_val, num_val
