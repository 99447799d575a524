"""Two datasets that need no download: the digits of scikit-learn and the source text of Python's standard library."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from activelr_service.config.data import DigitsDataConfig, StdlibCharsDataConfig
from activelr_service.data.info import DataInfo, describe_classes
from activelr_service.data.splits import draw_splits
from activelr_service.errors import JobError

DIGITS_TRAIN, DIGITS_VAL = 1437, 360
DIGITS_SIDE, DIGITS_LEVELS = 8, 16.0
TRAIN_COUNTS = (150, 145, 147, 147, 142, 144, 147, 137, 136, 142)  # samples of each digit
VAL_COUNTS = (28, 37, 30, 36, 39, 38, 34, 42, 38, 38)
VOCAB_SIZE = 128  # ASCII; other characters are left out
CHARS_VAL = 256


def inspect_digits(config: DigitsDataConfig) -> DataInfo:
    """Describe the digits (Alpaydin & Kaynak 1998, UCI), whose counts are known."""
    shape = (3, config.image_size, config.image_size)
    names = tuple(str(digit) for digit in range(10))
    info = DataInfo(("classification",), DIGITS_TRAIN, DIGITS_VAL, shape, num_classes=10, classes=names)
    info = info._replace(class_counts=TRAIN_COUNTS)
    notes = [f"validation: {DIGITS_VAL} of the {DIGITS_TRAIN + DIGITS_VAL:,} digits of scikit-learn, a fixed draw"]
    if config.test_fraction is None:
        counts = ", ".join(f"{digit} {a}/{b}" for digit, a, b in zip(names, TRAIN_COUNTS, VAL_COUNTS, strict=True))
        return info._replace(notes=(*notes, f"classes, with their training and validation samples: {counts}"))
    train, val, test = (np.bincount(labels, minlength=10) for _, labels in _read_digits(config))
    share = f"{test.sum()} of the other digits, drawn with seed 1, from each class its share"
    counted, _ = describe_classes(names, train, val, test=test)
    notes += [f"test: {share}; measured once, at the end", *counted]
    return info._replace(
        num_train=int(train.sum()), num_test=int(test.sum()), notes=tuple(notes), class_counts=tuple(train.tolist())
    )


def build_digits(config: DigitsDataConfig) -> tuple[Any, Any]:
    """Make (train, val) datasets of float32 images (3, size, size) in [0, 1], resized bilinearly, and int64 labels.

    The split is always the same.
    """
    return build_digits_split(config, "train"), build_digits_split(config, "validation")


def build_digits_split(config: DigitsDataConfig, split: str) -> Any:
    """The dataset of a split, "train", "validation" or "test", as :func:`build_digits` makes them."""
    from torch.utils.data import TensorDataset

    images, labels = _read_digits(config)[["train", "validation", "test"].index(split)]
    if not len(labels):
        return None
    return TensorDataset(_enlarge(images, config.image_size), labels)


def _read_digits(config: DigitsDataConfig) -> list[tuple[Any, Any]]:
    """The raw images (samples, 8, 8) and int64 labels of the training, the validation and the test split."""
    import torch

    raw_images, raw_labels = _raw_digits()
    drawn = draw_splits(DIGITS_TRAIN, None, config.test_fraction, raw_labels[:DIGITS_TRAIN])
    rows = (drawn.train, np.arange(DIGITS_TRAIN, len(raw_labels)), drawn.test)
    return [(raw_images[part], torch.tensor(raw_labels[part], dtype=torch.int64)) for part in rows]


def raw_val_digits() -> Any:
    """The validation images as scikit-learn has them: float64 (360, 8, 8) of whole numbers from 0 to 16."""
    return _raw_digits()[0][DIGITS_TRAIN:]


def _raw_digits() -> tuple[Any, Any]:
    """The images and labels as scikit-learn has them, the training samples first."""
    import torch

    table = np.loadtxt(_digits_file(), delimiter=",")
    images, labels = table[:, :-1].reshape(-1, DIGITS_SIDE, DIGITS_SIDE), table[:, -1].astype(int)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).numpy()
    return images[order], labels[order]


def _digits_file() -> Path:
    """The file inside scikit-learn that ``sklearn.datasets.load_digits`` reads.

    It is read without scikit-learn, whose import takes every worker more than a second.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


def digit_image(image: Any, image_size: int) -> Any:
    """The input (3, size, size) of an RGB image of PIL of a bright digit on black, in [0, 1].

    It is brought to the 8 x 8 pixels of 17 levels of gray that the digits have.
    """
    import numpy as np
    from PIL import Image

    gray = image.convert("L")
    gray = gray if gray.size == (DIGITS_SIDE, DIGITS_SIDE) else gray.resize((DIGITS_SIDE,) * 2, Image.Resampling.BOX)
    return _enlarge(np.rint(np.asarray(gray) * (DIGITS_LEVELS / 255))[None], image_size)[0]


def _enlarge(images: Any, image_size: int) -> Any:
    """Images (N, 8, 8) from 0 to 16 as float32 (N, 3, size, size) in [0, 1], resized bilinearly."""
    import torch

    gray = torch.tensor(images / DIGITS_LEVELS, dtype=torch.float32).unsqueeze(1)
    gray = torch.nn.functional.interpolate(gray, size=(image_size, image_size), mode="bilinear")
    return gray.expand(-1, 3, -1, -1).contiguous()


def inspect_stdlib_chars(config: StdlibCharsDataConfig) -> DataInfo:
    """Read as many characters as the job needs. Raises :class:`JobError` if the library has fewer."""
    size = (config.num_train + CHARS_VAL) * config.block_size
    found = len(_read(size))
    if found < size:
        largest = found // config.block_size - CHARS_VAL
        text = f"the standard library here has {found:,} characters, and {config.num_train} + {CHARS_VAL} blocks of"
        hint = f"{config.block_size} need {size:,}; use at most {largest}, or a smaller block_size"
        raise JobError.at("data.num_train", f"{text} {hint}")
    notes = (
        f"the first {size:,} characters of the modules of the standard library, in alphabetical order",
        f"validation: the last {CHARS_VAL} blocks of {config.block_size} characters",
    )
    shape = (config.block_size,)
    return DataInfo(("language_modeling",), config.num_train, CHARS_VAL, shape, vocab_size=VOCAB_SIZE, notes=notes)


def build_stdlib_chars(config: StdlibCharsDataConfig) -> tuple[Any, Any]:
    """Make (train, val) datasets of blocks: int64 (block_size,). The validation text follows the training text."""
    import torch
    from torch.utils.data import TensorDataset

    size = (config.num_train + CHARS_VAL) * config.block_size
    ids = torch.frombuffer(bytearray(_read(size)), dtype=torch.uint8).long()
    blocks = ids.view(-1, config.block_size)
    return TensorDataset(blocks[: config.num_train]), TensorDataset(blocks[config.num_train :])


def _read(size: int) -> bytes:
    """The first ``size`` ASCII characters of the modules in alphabetical order, or all if there are fewer."""
    text = bytearray()
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        if len(text) >= size:
            break
        text += path.read_text(encoding="utf-8", errors="ignore").encode("ascii", errors="ignore")
    return bytes(text[:size])
