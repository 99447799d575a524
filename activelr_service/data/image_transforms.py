"""From decoded images to the inputs of a model: resized, cropped, varied for training, and normalized."""

from collections.abc import Iterable, Iterator
from typing import Any

from activelr_service.config.data import ImagesConfig
from activelr_service.config.images import IMAGE_SIZE

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in torchvision's recipes
CROP_SHARE = 224 / 256  # of the shorter side; also torchvision's
SHIFT = 8  # light augmentation shifts an image by at most one part in so many of its side
SMALL = 64  # pixels; random crops of a smaller image leave little of it
LOOKED_AT = 16  # images whose sizes are read


def image_side(config: ImagesConfig) -> int:
    """The side in pixels of the square images that the model sees."""
    return IMAGE_SIZE if config.image_size is None else config.image_size


def preparation(config: ImagesConfig) -> dict[str, Any]:
    """How the images are prepared, with the values that the config leaves to this package."""
    return {
        "image_size": image_side(config),
        "crop_share": config.crop_share or CROP_SHARE,
        "squash": bool(config.squash),
        "interpolation": config.interpolation or "bilinear",
        "mean": list(config.mean or MEAN),
        "std": list(config.std or STD),
    }


def train_transform(config: ImagesConfig) -> Any:
    """Make the transform for training: a callable from a PIL image to a normalized float32 tensor (3, side, side).

    "standard" augmentation is that of torchvision's recipes for ImageNet: random crops and flips. "light" shifts the image
    that :func:`val_transform` sees; its edge pixels fill the gap. None, which is a skipped image, stays None.
    """
    from torchvision.transforms import v2

    side, kind = image_side(config), config.augment or "standard"
    if kind == "standard":
        crop = v2.RandomResizedCrop(side, interpolation=_interpolation(config), antialias=True)
        return UnlessSkipped(v2.Compose([crop, v2.RandomHorizontalFlip(), *_normalize(config)]))
    shift = [v2.RandomCrop(side, padding=max(1, side // SHIFT), padding_mode="edge")] if kind == "light" else []
    return UnlessSkipped(v2.Compose([*_center(config), *shift, *_normalize(config)]))


def val_transform(config: ImagesConfig) -> Any:
    """Make the transform for validation, and for all later images of this model: as :func:`train_transform`, not random.

    The shorter side is resized and the center cropped. With ``squash`` both sides are resized to the same length.
    """
    from torchvision.transforms import v2

    return UnlessSkipped(v2.Compose([*_center(config), *_normalize(config)]))


class UnlessSkipped:
    """A transform of images. It returns None for None, which is a skipped image."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, image: Any) -> Any:
        return None if image is None else self.transform(image)


def _center(config: ImagesConfig) -> list[Any]:
    from torchvision.transforms import v2

    side = image_side(config)
    length = round(side / (config.crop_share or CROP_SHARE))
    size = (length, length) if config.squash else length
    return [v2.Resize(size, interpolation=_interpolation(config), antialias=True), v2.CenterCrop(side)]


def _normalize(config: ImagesConfig) -> list[Any]:
    import torch
    from torchvision.transforms import v2

    mean, std = config.mean or MEAN, config.std or STD
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]


def _interpolation(config: ImagesConfig) -> Any:
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(config.interpolation or "bilinear")


def warn_of_small_images(config: ImagesConfig, files: Iterable[Any]) -> list[str]:
    """A warning if the images are too small for random crops and flips, and the job does not say how they vary.

    ``files`` are paths or open files of images, of which only the sizes are read.
    """
    sizes = [] if config.augment is not None else sorted(_sizes(files), key=min)
    if not sizes:
        return []
    (width, height), side = sizes[len(sizes) // 2], image_side(config)
    if min(width, height, side) > SMALL:
        return []
    text = f"the images are small ({width} x {height} pixels, shown to the model as {side} x {side})"
    hint = "random crops and flips may make another class of them, such as of digits"
    return [f"{text}: {hint}; set data.augment to light, which only shifts them, or to none, or to standard"]


def _sizes(files: Iterable[Any]) -> Iterator[tuple[int, int]]:
    from PIL import Image

    for file in files:
        try:
            with Image.open(file) as image:
                yield image.size
        except Exception:  # noqa: S112 - the images are decoded later, and what is wrong is said there
            continue


def evenly(count: int) -> list[int]:
    """Indices of at most 16 of ``count`` images, evenly spaced."""
    looked_at = min(LOOKED_AT, count)
    return [number * count // looked_at for number in range(looked_at)]
