"""Images for training: decoded to the end of the file, so that a truncated one shows here, and augmented."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from activelr_service.errors import JobError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in torchvision's recipes
NOT_DECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")  # stubs, or in need of another program
REMEDY = "; replace it, or leave such files out by data.on_corrupt: skip"
LOG = logging.getLogger("activelr_service.data")

ORIENTATION = 274  # EXIF tag
TURNS = (None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")

WHITE = (255, 255, 255, 255)
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # TIFF tags; photometric 0: the value 0 is white
PNG_DEPTHS = {"L;2": 85, "L;4": 17}  # Pillow scales such pixels to 8 bits, but not the transparent value


@cache
def formats() -> tuple[str, ...]:
    """Names of the image formats that Pillow decodes, as installed here, without the help of other programs."""
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.OPEN if name not in NOT_DECODED)


def load_image(path: str | Path, turn: bool) -> Any:
    """The PIL image in ``path`` as 8-bit RGB: see :func:`~activelr_service.data.images.to_rgb`.

    With ``turn`` it is turned as its EXIF orientation says; boxes are in pixels as they are stored. Raises ``ValueError``
    naming the file if it cannot be decoded to its end, ``OSError`` if it cannot be opened.
    """
    with open(path, "rb") as file:
        return decode(file, path, turn)


def decode(file: BinaryIO, name: str | Path, turn: bool) -> Any:
    """:func:`load_image` of an open file, called ``name`` in errors."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=formats()) as image:
            pixels = to_rgb(image)
            return turned(pixels, image, name) if turn else pixels
    except Exception as error:
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        if file.seek(0, os.SEEK_END) == 0:
            reason = "it is empty"
        raise ValueError(f"{name} cannot be decoded as an image: {reason}{REMEDY}") from error


def or_skip(load: Callable[[], Any], name: str | Path, on_corrupt: str) -> Any:
    """What ``load`` returns; with ``on_corrupt`` "skip", None and a warning for an image that cannot be decoded."""
    try:
        return load()
    except ValueError as error:
        if on_corrupt == "fail":
            raise
        LOG.warning("skipped corrupt image %s: %s", name, error.__cause__)
        return None


def check_images(load: Callable[[int], Any], count: int, limit: int | None, on_corrupt: str, place: str) -> None:
    """Decode images, at most ``limit`` of ``count``, evenly spaced, in threads; ``load`` takes an index.

    Raises :class:`JobError` at ``place`` with the first that cannot be decoded and the number of such images. With
    ``on_corrupt`` "skip" it warns of them, and raises if no image can be decoded.
    """

    def error_of(index: int) -> str | None:
        try:
            load(index)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    chosen = range(count) if limit is None else [number * count // limit for number in range(min(limit, count))]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        blocks = (
            chosen[start : start + 4096] for start in range(0, len(chosen), 4096)
        )  # a million waits would fill memory
        errors = [error for block in blocks for error in threads.map(error_of, block) if error is not None]
    if not errors:
        return
    text = f"{len(errors)} of {len(chosen)} images that were looked at cannot be decoded"
    if on_corrupt == "fail":
        raise JobError.at(place, f"{text}; the first: {errors[0]}")
    text += f" and are left out; the first: {errors[0].removesuffix(REMEDY)}"
    if len(errors) == len(chosen):
        raise JobError.at(place, f"{text}; no image is left to train on")
    LOG.warning("%s", text)


def classification_transforms(size: int) -> tuple[Any, Any]:
    """(train, val) transforms of PIL images to normalized float32 (3, size, size), as in torchvision's recipes for
    ImageNet: random crops and flips to train on, center crops to validate. None, a skipped image, stays None."""
    import torch
    from torchvision.transforms import v2

    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    crop = v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), *finish])
    center = v2.Compose([v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size), *finish])
    return UnlessSkipped(crop), UnlessSkipped(center)


class UnlessSkipped:
    """A transform of images that leaves None, a skipped image, as it is."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, image: Any) -> Any:
        return None if image is None else self.transform(image)


def to_rgb(image: Any) -> Any:
    """The first frame of an open PIL image as mode RGB, 8 bits each.

    16-bit gray is divided by 257. Float values are taken as 0 to 1. Transparent pixels are composed onto white. Raises
    ``ValueError`` for pixels whose scale is unknown: 32-bit integers, and floats outside 0 to 1.
    """
    depth = image.tile[0][3] if getattr(image, "tile", None) else None  # before the load, which forgets it
    image.load()
    if image.mode in (*SIXTEEN_BITS, "I", "F"):
        return _from_deep(image)
    if image.has_transparency_data:
        return _on_white(image, depth)
    return image.convert("RGB")


def turned(image: Any, opened: Any, name: Any) -> Any:
    """``image`` turned as the EXIF data of the loaded PIL image ``opened`` say. Unreadable EXIF data are only warned of."""
    from PIL import Image

    try:
        orientation = opened.getexif().get(ORIENTATION, 1)
    except Exception as error:
        LOG.warning("the EXIF data of %s cannot be read, it is used as it is stored: %s", name, error)
        return image
    turn = TURNS[orientation - 1] if orientation in range(1, 9) else None
    return image if turn is None else image.transpose(Image.Transpose[turn])


def _from_deep(image: Any) -> Any:
    from PIL import Image

    values = np.asarray(image)
    shares = _shares(values, image)
    if _tag(image, PHOTOMETRIC) == 0:
        shares = 1 - shares
    gray = np.rint(shares * 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return Image.fromarray(gray).convert("RGB")


def _shares(values: np.ndarray, image: Any) -> np.ndarray:
    """The pixels as shares of full brightness, from 0 to 1."""
    if image.mode == "F":
        if not (np.isfinite(values).all() and 0 <= values.min() <= values.max() <= 1):
            raise ValueError("its pixels are floats outside 0 to 1; save it with 8 or 16 bits")
        return values.astype(np.float64)
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # these two have 16 bits at most
        raise ValueError("its pixels are integers of unknown range; save it with 8 or 16 unsigned bits")
    return values.astype(np.float64) / (2 ** int(_tag(image, BITS_PER_SAMPLE) or 16) - 1)


def _tag(image: Any, number: int) -> int | None:
    """The first value of a TIFF tag; None for other formats."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value


def _on_white(image: Any, depth: Any) -> Any:
    from PIL import Image

    transparent = image.info.get("transparency")
    if depth in PNG_DEPTHS and isinstance(transparent, int):
        image.info["transparency"] = transparent * PNG_DEPTHS[depth]
    if depth == "RGB;16B" and isinstance(transparent, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    if image.mode in ("La", "RGBa"):  # premultiplied, as some TIFF files have it
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
