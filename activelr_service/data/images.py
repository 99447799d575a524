"""Images for training: decoded to the end of the file, which finds truncated ones, converted to RGB, and augmented."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from activelr_service.errors import JobError

NOT_DECODED = (
    "BUFR",
    "EPS",
    "GRIB",
    "HDF5",
    "MPEG",
    "WMF",
)  # Pillow only registers these formats, or it needs another program for them
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
    """The names of the image formats that the installed Pillow decodes without another program."""
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.OPEN if name not in NOT_DECODED)


def load_image(path: str | Path, turn: bool) -> Any:
    """Load the image in ``path`` as an 8-bit RGB image of PIL; see :func:`to_rgb`.

    With ``turn`` the image is turned as its EXIF orientation says. Boxes need it unturned: they are in stored pixels.
    Raises ``ValueError`` with the file if it cannot be decoded to its end, ``OSError`` if it cannot be opened.
    """
    with open(path, "rb") as file:
        return decode(file, path, turn)


def decode(file: BinaryIO, name: str | Path, turn: bool) -> Any:
    """Load an image from an open file as :func:`load_image` does. Errors call it ``name``."""
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


def or_skip(load: Callable[[], Any], on_corrupt: str) -> Any:
    """Return ``load()``. With ``on_corrupt`` "skip", an image that cannot be decoded gives a warning and None."""
    try:
        return load()
    except ValueError as error:
        if on_corrupt == "fail":
            raise
        LOG.warning("skipped corrupt image: %s", str(error).removesuffix(REMEDY))
        return None


def check_images(
    load: Callable[[int], Any], count: int, limit: int | None, on_corrupt: str, place: str, empty: Sequence[int] = ()
) -> None:
    """Decode at most ``limit`` of ``count`` images, evenly spaced, in threads; ``load`` takes the index of an image.

    The images ``empty`` are decoded besides: see :func:`find_empty`.

    Raises :class:`JobError` at ``place`` with the number of images that cannot be decoded, and the first of them. With
    ``on_corrupt`` "skip" it logs a warning instead, and raises only if no image can be decoded.
    """

    def error_of(index: int) -> str | None:
        try:
            load(index)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    looked_at = count if limit is None else min(limit, count)
    chosen = sorted({*(number * count // looked_at for number in range(looked_at)), *empty})
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        blocks = (
            chosen[start : start + 4096] for start in range(0, len(chosen), 4096)
        )  # a million pending tasks would fill memory
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


def find_empty(paths: Sequence[str | Path]) -> list[int]:
    """The indices of the files that have no bytes, or that are not there. No file is opened."""
    return [index for index, path in enumerate(paths) if not (os.path.exists(path) and os.path.getsize(path))]


def to_rgb(image: Any) -> Any:
    """Convert the first frame of an open PIL image to 8-bit RGB.

    16-bit gray is divided by 257. Floats must be from 0 to 1. Transparent pixels are composed onto white. Raises
    ``ValueError`` for pixels of unknown scale: 32-bit integers, and floats outside of 0 to 1.
    """
    depth = image.tile[0][3] if getattr(image, "tile", None) else None  # read before load(), which removes it
    image.load()
    if image.mode in (*SIXTEEN_BITS, "I", "F"):
        return _from_deep(image)
    if image.has_transparency_data:
        return _on_white(image, depth)
    return image.convert("RGB")


def turned(image: Any, opened: Any, name: Any) -> Any:
    """Turn ``image`` as the EXIF data of ``opened``, the loaded PIL image, say. Unreadable EXIF data give a warning."""
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
    """The pixels as float64 from 0, black, to 1, full brightness."""
    if image.mode == "F":
        if not (np.isfinite(values).all() and 0 <= values.min() <= values.max() <= 1):
            raise ValueError("its pixels are floats outside 0 to 1; save it with 8 or 16 bits")
        return values.astype(np.float64)
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # these two have 16 bits at most
        raise ValueError("its pixels are integers of unknown range; save it with 8 or 16 unsigned bits")
    return values.astype(np.float64) / (2 ** int(_tag(image, BITS_PER_SAMPLE) or 16) - 1)


def _tag(image: Any, number: int) -> int | None:
    """The first value of a TIFF tag, or None for another format."""
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
