"""What a job's ``data`` may be."""

from typing import Annotated, Any, Literal

from pydantic import Field

from activelr_service.config.base import Fraction, StrictConfig


class DigitsDataConfig(StrictConfig):
    """The 1,797 handwritten digits that ship with scikit-learn: 1,437 to train on, 360 held out. No download."""

    type: Literal["digits"] = "digits"
    image_size: int = Field(
        32, ge=8, le=256, description="Side of the square RGB images, in pixels; the originals have 8."
    )


class ImageFolderDataConfig(StrictConfig):
    """Images in one folder per class: ``root/train/CLASS`` and ``root/val/CLASS``, or ``root/CLASS`` to be split."""

    type: Literal["imagefolder"] = "imagefolder"
    root: str = Field(description="The folder.")
    image_size: int = Field(224, ge=8, le=4096, description="Side of the square images the model sees, in pixels.")
    val_fraction: Fraction = Field(0.1, description="Held-out share where there is no val folder.")


class NpzDataConfig(StrictConfig):
    """Arrays ``x`` and ``y`` in one .npz file, and ``x_val``, ``y_val`` unless a share of the rows is to be held out.

    Integer ``y``: classification; float ``y``: regression; no ``y`` and integer ``x`` of token ids: language modelling.
    """

    type: Literal["npz"] = "npz"
    path: str = Field(description="The file.")
    val_fraction: Fraction = Field(0.2, description="Held-out share where there is no x_val.")


class PythonDataConfig(StrictConfig):
    """Your own data: a callable in the pip entry point group ``activelr.data``, returning (train, val) datasets."""

    type: Literal["python"] = "python"
    name: str = Field(description="Name of the entry point.")
    args: dict[str, Any] = Field({}, description="Keyword arguments of the callable.")


DataConfig = Annotated[
    DigitsDataConfig | ImageFolderDataConfig | NpzDataConfig | PythonDataConfig, Field(discriminator="type")
]
