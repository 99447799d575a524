"""What a job's ``data`` may be."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter

from activelr_service.config.base import Fraction, StrictConfig
from activelr_service.config.images import (
    Augment,
    CIFARAugment,
    CropShare,
    ImageSize,
    Interpolation,
    Mean,
    Squash,
    Std,
)

OnCorrupt = Annotated[
    Literal["fail", "skip"],
    Field(description="A file that cannot be decoded ends the training, or is left out, counted and named in the log."),
]
Classes = Annotated[
    list[str] | None,
    Field(description="Derived when the job starts: names of the classes, by which other data are matched."),
]
TestFraction = Annotated[
    Fraction | None,
    Field(
        description="Share of the samples that is kept for a test at the end, drawn before the validation samples; of "
        "each class its share. Left out: no samples are drawn for a test."
    ),
]
HoldOutTest = Annotated[
    bool,
    Field(
        description="Keeps a test split for the end also where there is no validation split. Validation samples are then "
        "drawn from the training split."
    ),
]
Year = Annotated[Literal["2007", "2012"], BeforeValidator(str)]  # YAML reads a year without quotes as a number


def _text(value: object) -> object:
    """YAML reads -999 without quotes as a number, and null as nothing."""
    if isinstance(value, bool | None):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value) if isinstance(value, int | float) else value


def _sign(value: object) -> object:
    return {"\\t": "\t", "tab": "\t"}.get(value, value) if isinstance(value, str) else value


Separator = Annotated[str, BeforeValidator(_sign), Field(pattern=r"^[\x00-\x7f]$", description="One ASCII character.")]


class DigitsDataConfig(StrictConfig):
    """The 1,797 handwritten digits that ship with scikit-learn: 1,437 for training, 360 for validation. No download."""

    type: Literal["digits"] = "digits"
    image_size: int = Field(
        32, ge=8, le=256, description="Side of the square RGB images, in pixels; the originals have 8."
    )
    test_fraction: TestFraction = None


class StdlibCharsDataConfig(StrictConfig):
    """The characters of the source of Python's standard library, in blocks, as a language to model. No download."""

    type: Literal["stdlib_chars"] = "stdlib_chars"
    block_size: int = Field(64, ge=2, le=1024, description="Characters in a sample.")
    num_train: int = Field(2048, ge=1, le=8192, description="Samples for training; 256 more are for validation.")


class ImageFolderDataConfig(StrictConfig):
    """Images in one folder per class: ``root/train/CLASS`` and ``root/val/CLASS``, or ``root/CLASS`` to be split.

    Splits may also be called training, valid, validation, dev, test and their likes, in any case. A test split is measured
    once, at the end. Where there is no validation split it is for validation, unless ``hold_out_test`` is set.
    """

    type: Literal["imagefolder"] = "imagefolder"
    root: str = Field(description="The folder of the data.")
    image_size: ImageSize = None
    crop_share: CropShare = None
    squash: Squash = None
    interpolation: Interpolation = None
    mean: Mean = None
    std: Std = None
    augment: Augment = None
    val_fraction: Fraction = Field(0.1, description="Share of each class for validation where there is no val folder.")
    test_fraction: TestFraction = None
    hold_out_test: HoldOutTest = False
    on_corrupt: OnCorrupt = "fail"
    classes: Classes = None


class HuggingFaceDataConfig(StrictConfig):
    """Images and classes in a folder of ``datasets.save_to_disk``, such as CIFAR or ImageNet from the Hugging Face Hub."""

    type: Literal["huggingface"] = "huggingface"
    path: str = Field(description="The folder of the data.")
    image_column: str = Field("image", description="Column of type Image.")
    label_column: str = Field("label", description="Column of type ClassLabel, or of texts.")
    image_size: ImageSize = None
    crop_share: CropShare = None
    squash: Squash = None
    interpolation: Interpolation = None
    mean: Mean = None
    std: Std = None
    augment: Augment = None
    val_fraction: Fraction = Field(
        0.1, description="Share of each class for validation where there is no split for it."
    )
    test_fraction: TestFraction = None
    hold_out_test: HoldOutTest = False
    on_corrupt: OnCorrupt = "fail"
    classes: Classes = None


ImagesConfig = ImageFolderDataConfig | HuggingFaceDataConfig


class CIFAR10DataConfig(StrictConfig):
    """CIFAR-10 as published: the folder ``cifar-10-batches-py`` of python batches, under ``root`` or ``root`` itself."""

    type: Literal["cifar10"] = "cifar10"
    root: str = Field(description="The folder of the data.")
    augment: CIFARAugment = True
    val_fraction: Fraction | None = Field(
        None,
        description="Share of the training images of each class for validation; the published test images are then kept "
        "for the end. Left out: they validate.",
    )


class CIFAR100DataConfig(StrictConfig):
    """CIFAR-100 as published: the folder ``cifar-100-python`` of python batches, under ``root`` or ``root`` itself."""

    type: Literal["cifar100"] = "cifar100"
    root: str = Field(description="The folder of the data.")
    augment: CIFARAugment = True
    val_fraction: Fraction | None = Field(
        None,
        description="Share of the training images of each class for validation; the published test images are then kept "
        "for the end. Left out: they validate.",
    )


class VOCDataConfig(StrictConfig):
    """PASCAL VOC images and boxes as published: folders ``VOC2007`` and ``VOC2012`` in a ``VOCdevkit``; or your own images
    in one such folder of any name, with any classes.

    Several years are trained on together. The images keep their size: the model resizes them (``min_size`` and
    ``max_size`` in ``model.args``).
    """

    type: Literal["voc"] = "voc"
    root: str = Field(description="The VOCdevkit folder, the folder it is in, or the folder of a single year.")
    years: list[Year] = Field(["2012"], min_length=1, description="Years to train on.")
    train_set: Literal["train", "trainval"] = Field("train", description="Image set to train on.")
    val_set: Literal["val", "test"] = Field(
        "val", description="Image set for validation; test is that of 2007, the only one whose boxes are published."
    )
    test_fraction: TestFraction = None
    on_corrupt: OnCorrupt = "fail"


class NpzDataConfig(StrictConfig):
    """Arrays ``x`` and ``y`` in one .npz file, and ``x_val``, ``y_val`` unless a share of the rows is for validation.

    Arrays ``x_test``, ``y_test`` are measured once, at the end.

    Integer ``y``: classification; float ``y``: regression; the job's ``task`` overrides that. No ``y`` and integer ``x`` of
    token ids: language modeling. ``x`` of uint8 is divided by 255, and ``x_val`` is brought to the scale of ``x``.
    """

    type: Literal["npz"] = "npz"
    path: str = Field(description="The .npz file.")
    val_fraction: Fraction = Field(0.2, description="Share of the rows for validation where there is no x_val.")
    test_fraction: TestFraction = None
    target_kind: Literal["category", "number"] | None = Field(
        None, description="Derived from the job's task: whether y holds classes or numbers."
    )


class NumberColumn(StrictConfig):
    """A column of numbers, shown to the model as (value - mean) / std; a missing value as 0."""

    name: str = Field(description="Name of the column.")
    mean: float = Field(description="Mean over the training samples.")
    std: float = Field(gt=0, description="Standard deviation over the training samples.")


class CategoryColumn(StrictConfig):
    """A column of categories, shown to the model as one 0 or 1 each; a missing or unknown value as all 0."""

    name: str = Field(description="Name of the column.")
    categories: list[str] = Field(description="Its values, in the order of the inputs.")


class TableDataConfig(StrictConfig):
    """Rows of a table: columns of numbers and of categories, and the column to predict.

    Files: .csv, .tsv, .txt, .jsonl (also compressed, as .gz, .bz2 or .zst), .parquet, a folder of .parquet files.
    """

    type: Literal["table"] = "table"
    path: str = Field(description="The file; the first line of a .csv, .tsv or .txt names the columns.")
    val_path: str | None = Field(None, description="A file of the same columns to validate on.")
    test_path: str | None = Field(None, description="A file of the same columns to measure once, at the end.")
    target: str = Field(
        description="Column to predict. Text, true or false and integers of at most 100 values are classes; other numbers"
        " are standardized, so that a loss of 1 is that of always answering the mean. The job's task overrides that."
    )
    ignore: list[str] = Field([], description="Columns to leave out, such as row numbers and names.")
    types: dict[str, Literal["number", "category", "ignore"]] = Field(
        {}, description="How to read columns whose values do not say it, such as postal codes: {zip: category}."
    )
    missing: list[Annotated[str, BeforeValidator(_text)]] = Field(
        [], description="Values that count as missing in every column, such as [unknown, -999]."
    )
    separator: Separator | None = Field(
        None, description="Sign between the values of a text file. Derived from its first lines."
    )
    decimal: Literal[".", ","] | None = Field(
        None, description="Decimal sign of a text file. Derived from its values. The other sign may group thousands."
    )
    encoding: str | None = Field(
        None, description="Encoding of a text file, such as cp1252. Derived: what its first bytes say, else UTF-8."
    )
    val_fraction: Fraction = Field(0.2, description="Share of the rows for validation where there is no val_path.")
    test_fraction: TestFraction = None
    target_kind: Literal["category", "number"] | None = Field(
        None, description="Derived from the job's task: whether the target holds classes or numbers."
    )
    columns: list[NumberColumn | CategoryColumn] | None = Field(
        None, description="Derived from the training rows when the job starts: how each column is shown to the model."
    )
    classes: list[str] | None = Field(None, description="Derived: the values of the target, if they are classes.")
    target_column: NumberColumn | None = Field(
        None, description="Derived: the target's mean and deviation, if a number."
    )

    def ignored(self) -> set[str]:
        """Columns that the job leaves out."""
        return {*self.ignore, *(name for name, kind in self.types.items() if kind == "ignore")}


class TextDataConfig(StrictConfig):
    """Text for language modeling: WikiText's files, .txt, .jsonl (both also .gz), parquet, or a saved dataset.

    Splits are folders or files called train, valid, validation, val, dev or test, in any case, also numbered; or files
    whose names differ in such a word only, as wiki.train.tokens and wiki.valid.tokens. Other names are titles. Without a
    validation split a share at the end is for validation.
    """

    type: Literal["text"] = "text"
    root: str = Field(description="The file or folder.")
    block_size: int = Field(256, ge=2, le=2**20, description="Tokens the model sees at once.")
    vocab_size: int = Field(
        10_000,
        ge=257,
        le=2**20,
        description="Tokens of the byte-level BPE tokenizer that is trained on the training split.",
    )
    tokenizer: str | None = Field(
        None,
        description="A tokenizer.json, or a folder with it or with vocab.json and merges.txt: then none is trained.",
    )
    text_column: str = Field("text", description="Column of parquet files and saved datasets, key of JSON lines.")
    encoding: str | None = Field(
        None,
        description="Encoding of plain text and JSON lines, such as latin-1. Derived: UTF-16 if the file has its "
        "mark, else UTF-8.",
    )
    val_fraction: Fraction = Field(
        0.1, description="Share of the text for validation where there is no validation split."
    )
    test_fraction: Fraction | None = Field(
        None,
        description="Share of the text, at the end of what is trained on, that is kept for a test at the end of the run. "
        "Left out: none is kept.",
    )
    eval_split: Literal["validation", "test"] = Field("validation", description="Split that metrics are measured on.")
    tokens: str | None = Field(None, description="Derived when the job starts: the folder of the encoded text.")


class PythonDataConfig(StrictConfig):
    """Your own data: a callable in the pip entry point group ``activelr.data``.

    It returns (train, val) datasets, or (train, val, test): the last is measured once, at the end.
    """

    type: Literal["python"] = "python"
    name: str = Field(description="Name of the entry point.")
    args: dict[str, Any] = Field({}, description="Keyword arguments of the callable.")


DataConfig = Annotated[
    DigitsDataConfig
    | StdlibCharsDataConfig
    | ImageFolderDataConfig
    | HuggingFaceDataConfig
    | CIFAR10DataConfig
    | CIFAR100DataConfig
    | NpzDataConfig
    | TableDataConfig
    | TextDataConfig
    | VOCDataConfig
    | PythonDataConfig,
    Field(discriminator="type"),
]
DATA_CONFIG: TypeAdapter[DataConfig] = TypeAdapter(DataConfig)
