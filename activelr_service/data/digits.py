"""The handwritten digits that ship with scikit-learn (Alpaydin & Kaynak 1998, UCI): real data without a download."""

from typing import Any

from activelr_service.config.data import DigitsDataConfig
from activelr_service.data.info import DataInfo

NUM_TRAIN, NUM_VAL = 1437, 360
TRAIN_COUNTS = (150, 145, 147, 147, 142, 144, 147, 137, 136, 142)  # rows of each digit
VAL_COUNTS = (28, 37, 30, 36, 39, 38, 34, 42, 38, 38)


def inspect(config: DigitsDataConfig) -> DataInfo:
    shape = (3, config.image_size, config.image_size)
    names = tuple(str(digit) for digit in range(10))
    counts = ", ".join(f"{digit} {a}/{b}" for digit, a, b in zip(names, TRAIN_COUNTS, VAL_COUNTS, strict=True))
    notes = (
        f"held out: {NUM_VAL} of the {NUM_TRAIN + NUM_VAL:,} digits of scikit-learn, a fixed draw",
        f"classes, with their training and held-out rows: {counts}",
    )
    return DataInfo(("classification",), NUM_TRAIN, NUM_VAL, shape, num_classes=10, classes=names, notes=notes)


def build(config: DigitsDataConfig) -> tuple[Any, Any]:
    """(train, val) datasets of float32 images in [0, 1], resized bilinearly, and int64 labels; a fixed split."""
    import torch
    from sklearn.datasets import load_digits
    from torch.utils.data import TensorDataset

    raw = load_digits()
    order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(raw.images / 16.0, dtype=torch.float32)[order].unsqueeze(1)
    size = (config.image_size, config.image_size)
    images = torch.nn.functional.interpolate(images, size=size, mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    labels = torch.tensor(raw.target, dtype=torch.int64)[order]
    train = TensorDataset(images[:NUM_TRAIN], labels[:NUM_TRAIN])
    return train, TensorDataset(images[NUM_TRAIN:], labels[NUM_TRAIN:])
