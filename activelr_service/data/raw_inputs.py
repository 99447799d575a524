"""What a model says of its raw input: the config of the data that it was trained on, without the places of files."""

from contextlib import suppress
from typing import Any

from activelr_service.config.data import DATA_CONFIG, DataConfig, ImagesConfig, TableDataConfig
from activelr_service.data import table
from activelr_service.data.image_transforms import preparation
from activelr_service.errors import InputError, JobError

PLACES = ("root", "path", "val_path", "test_path", "tokenizer", "tokens")  # of files, which other machines do not have
_REQUIRED = {
    **dict.fromkeys(("imagefolder", "cifar10", "cifar100", "voc", "text"), ("root",)),
    **dict.fromkeys(("huggingface", "npz", "table"), ("path",)),
}  # places that a config must have
KINDS = {
    "table": "table",
    **dict.fromkeys(("digits", "imagefolder", "huggingface", "cifar10", "cifar100", "voc"), "image"),
    **dict.fromkeys(("text", "stdlib_chars"), "text"),
    **dict.fromkeys(("npz", "python"), "array"),
}


def describe_inputs(data: DataConfig) -> dict[str, Any]:
    """The resolved config of the data as JSON, without places of files: the key ``inputs`` of a recipe."""
    fields = data.model_dump(mode="json")
    left_out = (*PLACES, "args") if data.type == "python" else PLACES
    if isinstance(data, ImagesConfig):
        fields |= preparation(data)
    if isinstance(data, TableDataConfig) and data.decimal is None:
        with suppress(JobError, OSError):  # a file that is gone: then the input itself has to show the sign
            fields["decimal"] = table.decimal_of(data)
    return {name: value for name, value in fields.items() if name not in left_out}


def read_inputs(inputs: dict[str, Any], where: object) -> DataConfig:
    """The config that :func:`describe_inputs` described; its places are empty.

    Raises :class:`InputError` if it cannot be read. ``where`` is the model, for the message.
    """
    fields = dict(inputs)
    known = _REQUIRED.get(fields.get("type", ""), ())
    try:
        return DATA_CONFIG.validate_python({**dict.fromkeys(known, ""), **fields})
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"the model in {where} describes its input in a way that is not known here: {reason}"
        ) from error
