"""Images for training: decoded to the end of the file, so that a truncated one shows here, always to RGB; augmented."""

import logging
from pathlib import Path
from typing import Any, BinaryIO

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in torchvision's recipes
LOG = logging.getLogger("activelr_service.data")


def load_image(path: str | Path) -> Any:
    """The PIL image in ``path`` as RGB; grey, palette and CMYK images are converted.

    Raises ``ValueError`` naming the file if it cannot be decoded to its end, ``OSError`` if it cannot be opened.
    """
    with open(path, "rb") as file:
        return decode(file, path)


def load_image_or_skip(path: str | Path, on_corrupt: str) -> Any:
    """:func:`load_image`; with ``on_corrupt`` "skip", None and a warning for a file that cannot be decoded."""
    with open(path, "rb") as file:
        return decode_or_skip(file, path, on_corrupt)


def decode(file: BinaryIO, name: str | Path) -> Any:
    """The PIL image in an open file as RGB; raises ``ValueError`` with ``name`` if it cannot be decoded to its end."""
    from PIL import Image

    try:
        return Image.open(file).convert("RGB")
    except Exception as error:
        raise ValueError(f"{name} cannot be decoded as an image: {error}") from error


def decode_or_skip(file: BinaryIO, name: str | Path, on_corrupt: str) -> Any:
    """:func:`decode`; with ``on_corrupt`` "skip", None and a warning for what cannot be decoded."""
    try:
        return decode(file, name)
    except ValueError as error:
        if on_corrupt == "fail":
            raise
        LOG.warning("skipped corrupt image %s: %s", name, error.__cause__)
        return None


def classification_transforms(size: int) -> tuple[Any, Any]:
    """(train, val) transforms of PIL images to normalised float32 (3, size, size), as in torchvision's recipes for
    ImageNet: random crops and flips to train on, centre crops to validate. None, a skipped image, stays None."""
    import torch
    from torchvision.transforms import v2

    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    crop = v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), *finish])
    centre = v2.Compose([v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size), *finish])
    return UnlessSkipped(crop), UnlessSkipped(centre)


class UnlessSkipped:
    """A transform of images that leaves None, a skipped image, as it is."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, image: Any) -> Any:
        return None if image is None else self.transform(image)
