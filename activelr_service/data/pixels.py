"""Any picture as 8-bit RGB: what is deeper is scaled, what is transparent lies on white."""

import logging
from typing import Any

import numpy as np

LOG = logging.getLogger("activelr_service.data")
ORIENTATION = 274  # EXIF tag
TURNS = (None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")

WHITE = (255, 255, 255, 255)
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # TIFF tags; photometric 0: the value 0 is white
PNG_DEPTHS = {"L;2": 85, "L;4": 17}  # Pillow scales such pixels to 8 bits, but not the transparent value


def to_rgb(image: Any) -> Any:
    """The first frame of an open PIL image as mode RGB, 8 bits each.

    16-bit grey is divided by 257. Float values are taken as 0 to 1. Transparent pixels are composed onto white. Raises
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
    grey = np.rint(shares * 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


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
