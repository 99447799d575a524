"""Raw images: files or encoded bytes, decoded and prepared by the functions that prepare the validation images."""

import base64
import binascii
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from activelr_service.data import bundled, cifar, voc
from activelr_service.data.image_transforms import val_transform
from activelr_service.data.images import REMEDY, decode, to_rgb
from activelr_service.errors import InputError
from activelr_service.inference.arrays import to_array
from activelr_service.inference.notes import Notes
from activelr_service.inference.read import Read, cells_of

COLUMN = "image"
_CHANNELS = (1, 3, 4)
_SMALLEST = 16  # bytes of an image; a shorter text can be base64 by chance


class ImageReader:
    """Makes the inputs of a model that was trained on the images of ``config``: a tensor of a batch, or for detection a
    list, since these images keep their sizes.
    """

    names = (COLUMN,)

    def __init__(self, config: Any) -> None:
        self.is_detection = config.type == "voc"
        self.transform = _transform_of(config)

    def rows(self, frame: Any, notes: Notes) -> list[Any]:
        """The cells of the column ``image``. Raises :class:`InputError` if there is none."""
        return cells_of(frame, COLUMN, "paths or encoded images")

    def batches(self, rows: Any, batch_size: int, notes: Notes) -> Iterator[Read]:
        """The images in batches, decoded in threads. An image that cannot be decoded is a bad row."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for start in range(0, len(rows), batch_size):
                yield self._read(list(threads.map(self._load, rows[start : start + batch_size])))

    def _read(self, loaded: list[Any]) -> Read:
        import torch

        errors = {row: image for row, image in enumerate(loaded) if isinstance(image, str)}
        images = [image for image in loaded if not isinstance(image, str)]
        good = np.setdiff1d(np.arange(len(loaded)), [*errors])
        is_batch = images and not self.is_detection
        return Read(torch.stack(images) if is_batch else images, good, errors, len(loaded))

    def _load(self, cell: Any) -> Any:
        """The tensor of a cell, or the reason why there is none."""
        try:
            return self.transform(self._decode(cell))
        except (ValueError, OSError) as error:
            return str(error).removesuffix(REMEDY)

    def _decode(self, cell: Any) -> Any:
        name = "the image"
        if isinstance(cell, dict):  # as datasets stores images
            cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
        if isinstance(cell, str) and os.path.isfile(cell):
            name, cell = cell, _read_file(cell)
        if isinstance(cell, str):
            content = _from_base64(cell)
            if content is None:
                raise InputError(f"no such file: {cell[:200]}")
            cell = content
        if isinstance(cell, bytes | bytearray | memoryview):
            content = bytes(cell)
            if content.isascii():  # MLflow's server leaves base64 as it is in some forms of requests
                content = _from_base64(content.decode()) or content
            return decode(io.BytesIO(content), name, turn=not self.is_detection)
        return _from_pixels(to_array(cell))


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _from_base64(text: str) -> bytes | None:
    """The bytes of an image that JSON carries as base64, also as a data URL; None for any other text."""
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        content = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        return None
    return content if len(content) >= _SMALLEST else None


def _from_pixels(array: np.ndarray) -> Any:
    """An array of pixels from 0 to 255, (height, width), with channels last or first, as an RGB image of PIL."""
    from PIL import Image

    if array.dtype.kind not in "iu" or not array.size or array.min() < 0 or array.max() > 255:
        raise InputError("it is no image: a path, an encoded image, or an array of integers from 0 to 255 is needed")
    if array.ndim == 3 and array.shape[0] in _CHANNELS and array.shape[2] not in _CHANNELS:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _CHANNELS):
        raise InputError(f"it is an array of shape {array.shape}; (height, width) or (height, width, 3) is needed")
    return to_rgb(Image.fromarray(np.ascontiguousarray(array.astype(np.uint8))))


def _transform_of(config: Any) -> Callable[[Any], Any]:
    """The transform of an RGB image of PIL to the tensor that the model gets."""
    if config.type in ("imagefolder", "huggingface"):
        transform: Callable[[Any], Any] = val_transform(config)
        return transform
    if config.type in ("cifar10", "cifar100"):
        return cifar.image_transform()
    if config.type == "digits":
        return lambda image: bundled.digit_image(image, config.image_size)
    return voc.transform_of(is_training=False)  # type: ignore[no-any-return]
