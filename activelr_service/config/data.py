"""What a job's ``data`` may be."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from activelr_service.config.base import Fraction, StrictConfig

OnCorrupt = Literal["fail", "skip"]
ON_CORRUPT = "What an image that cannot be decoded does: end the training, or be left out of its batch with a warning."
Year = Annotated[Literal["2007", "2012"], BeforeValidator(str)]  # YAML reads a year without quotes as a number


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


class VOCDataConfig(StrictConfig):
    """PASCAL VOC images and boxes as published: folders ``VOC2007`` and ``VOC2012`` in a ``VOCdevkit``.

    Several years are trained on together. The images keep their size: the model resizes them (``min_size`` and
    ``max_size`` in ``model.args``).
    """

    type: Literal["voc"] = "voc"
    root: str = Field(description="The VOCdevkit folder, the folder it is in, or the folder of a single year.")
    years: list[Year] = Field(["2012"], min_length=1, description="Years to train on.")
    train_set: Literal["train", "trainval"] = Field("train", description="Image set to train on.")
    val_set: Literal["val", "test"] = Field(
        "val", description="Held-out image set; test is that of 2007, the only one whose boxes are published."
    )
    on_corrupt: OnCorrupt = Field("fail", description=ON_CORRUPT)


DataConfig = Annotated[
    DigitsDataConfig | ImageFolderDataConfig | NpzDataConfig | PythonDataConfig | VOCDataConfig,
    Field(discriminator="type"),
]
