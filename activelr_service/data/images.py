"""Decoding image files: all of the file, so that a truncated one shows here, and always to RGB."""

import logging
from pathlib import Path
from typing import Any

LOG = logging.getLogger("activelr_service.data")


def load_image(path: str | Path) -> Any:
    """The PIL image in ``path`` as RGB; grey, palette and CMYK images are converted.

    Raises ``ValueError`` naming the file if it cannot be decoded to its end, ``OSError`` if it cannot be opened.
    """
    from PIL import Image

    with open(path, "rb") as file:
        try:
            return Image.open(file).convert("RGB")
        except Exception as error:
            raise ValueError(f"{path} cannot be decoded as an image: {error}") from error


def load_image_or_skip(path: str | Path, on_corrupt: str) -> Any:
    """:func:`load_image`; with ``on_corrupt`` "skip", None and a warning for a file that cannot be decoded."""
    try:
        return load_image(path)
    except ValueError as error:
        if on_corrupt == "fail":
            raise
        LOG.warning("skipped corrupt image %s: %s", path, error.__cause__)
        return None
