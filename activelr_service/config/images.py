"""The keys of a job's data that say how images become the inputs of the model."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

IMAGE_SIZE = 224  # where neither the job nor pretrained weights say another size
ImageSize = Annotated[
    int | None,
    Field(
        ge=8,
        le=4096,
        description="Side of the square images the model sees, in pixels. Derived: that of the pretrained weights, else "
        f"{IMAGE_SIZE}.",
    ),
]
CropShare = Annotated[
    float | None,
    Field(
        gt=0,
        le=1,
        description="Share of the shorter side that the center crop for validation keeps. Derived: that of the pretrained "
        "weights, else 0.875.",
    ),
]
Squash = Annotated[
    bool | None,
    Field(
        description="Whether images are squeezed to a square, so that nothing is cut off at their longer side. Derived: as "
        "the pretrained weights want it, else false."
    ),
]
Interpolation = Annotated[
    Literal["nearest", "bilinear", "bicubic", "lanczos"] | None,
    Field(description="How images are resized. Derived: as the pretrained weights want it, else bilinear."),
]
Mean = Annotated[
    list[float] | None,
    Field(
        min_length=3,
        max_length=3,
        description="Red, green and blue, from 0 to 1, that the model sees as 0. Derived: those of the pretrained weights, "
        "else of ImageNet.",
    ),
]
Std = Annotated[
    list[Annotated[float, Field(gt=0)]] | None,
    Field(
        min_length=3,
        max_length=3,
        description="What red, green and blue are divided by, after mean is subtracted. Derived: as mean.",
    ),
]
Augment = Annotated[
    Literal["none", "light", "standard"] | None,
    Field(
        description="How training images vary. standard: random crops of 8 to 100 % of the area, and flips. light: shifts "
        "by an eighth of the side. Derived: standard."
    ),
]


def _augment(value: object) -> object:
    return {"standard": True, "none": False}.get(value, value) if isinstance(value, str) else value


CIFARAugment = Annotated[
    bool | Literal["light"],
    BeforeValidator(_augment),
    Field(
        description="true or standard: random crops out of 4 pixels of padding and flips, for training. light: the crops "
        "alone. false or none: nothing."
    ),
]
