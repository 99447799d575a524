"""Image classifiers of transformers, made from a config, or loaded from a local folder or from the Hugging Face Hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

from activelr_service.config.images import IMAGE_SIZE
from activelr_service.config.model import TransformersImageModelConfig, names_a_file
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.models.causal_lm import DTYPES, read_config, without_code
from activelr_service.models.downloads import hub_folder
from activelr_service.models.pretrained import Fit, ImageKeys, check_fit, check_images, plain_reason

PLACE = "model.path"
OF_THE_DATA = ("num_labels", "id2label", "label2id", "problem_type")  # set from the data
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # of Pillow


def check(config: TransformersImageModelConfig, info: DataInfo, precision: str) -> None:
    """Raise :class:`JobError` for fields that are set from the data, and for other shapes of images."""
    for name in (*OF_THE_DATA, *DTYPES):
        if name in config.config:
            hint = "the weights are trained in float32" if name in DTYPES else "it is set from the data"
            raise JobError.at(f"model.config.{name}", f"{hint}; leave it out")
    check_images("an image classifier of transformers", info)


def build(config: TransformersImageModelConfig, info: DataInfo, num_outputs: int | None) -> Any:
    """Make the model with random weights, in float32, with one output for each class or target.

    It takes images (batch, 3, side, side) and returns logits (batch, outputs), as other image models do.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification

    names = dict(enumerate(info.classes if len(info.classes) == num_outputs else map(str, range(num_outputs or 0))))
    given = {**config.config, "id2label": names, "label2id": {name: number for number, name in names.items()}}
    try:
        if config.path is not None:
            folder = str(_folder(config))
            fields = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **given)
        else:
            fields = AutoConfig.for_model(config.name, **{"image_size": info.input_shape[-1], **given})
        model = AutoModelForImageClassification.from_config(fields, trust_remote_code=False, dtype=torch.float32)
    except (TypeError, ValueError, KeyError, OSError, ImportError, AttributeError) as error:
        if isinstance(error, JobError):
            raise
        raise _not_built(config, error) from error
    return _module_class()(model, is_interpolated=_has_other_size(model, info.input_shape[-1]))


def _has_other_size(model: Any, side: int) -> bool:
    """Whether the position embedding of the model is to be interpolated to images of this side."""
    can_be = "interpolate_pos_encoding" in signature(model.forward).parameters
    return can_be and getattr(model.config, "image_size", side) not in (side, [side, side], (side, side))


def fetch_weights(config: TransformersImageModelConfig) -> ImageKeys | None:
    """Download the weights unless they are here, and return how they want their images; None without weights.

    Raises :class:`JobError` if they are not here and cannot be downloaded, or if the folder holds no model.
    """
    if config.path is None:
        return None
    folder = _folder(config)
    fields = read_config(str(folder))
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        size = fields.get("image_size", IMAGE_SIZE)
        source = f"assumed: {config.path} has no preprocessor_config.json; the size is of its config.json"
        return ImageKeys({"image_size": size if isinstance(size, int) else size[0]}, source)
    return ImageKeys(_keys_of_processor(folder), f"of the image processor of {config.path}")


def load_weights(model: Any, config: TransformersImageModelConfig) -> Fit | None:
    """Load the weights that the config names, if it names any. Only safetensors are read, and no code.

    Into a model on the meta device nothing is loaded. Raises :class:`JobError` for the weights of another model.
    """
    if config.path is None:
        return None
    with _silent():
        loaded, found = _load(config, model.model.config)
    fit = _fit_of(model, found)
    check_fit(fit, PLACE, config.path, f"a {model.model.config.model_type}")
    if next(model.parameters()).device.type != "meta":
        own = model.model.state_dict()
        weights = _in_order(loaded, read_config(str(_folder(config))).get("id2label"))
        model.model.load_state_dict(
            {name: own[name] if f"{'model.'}{name}" in fit.head else weights[name] for name in own}
        )
    return fit


def _in_order(loaded: Any, saved: dict[str, str] | None) -> dict[str, Any]:
    """The weights of a model, with the rows of its head in the order of its own classes.

    ``saved``: the names of the classes by their number in the file, which may have the same names in another order.
    """
    weights: dict[str, Any] = loaded.state_dict()
    names, wanted = {name: int(number) for number, name in (saved or {}).items()}, list(loaded.config.id2label.values())
    if sorted(names) != sorted(wanted):
        return weights
    rows, base = [names[name] for name in wanted], f"{loaded.base_model_prefix}."
    heads = (name for name in weights if not name.startswith(base) and len(weights[name].shape) in (1, 2))
    return {**weights, **{name: weights[name][rows] for name in heads if len(weights[name]) == len(rows)}}


def _load(config: TransformersImageModelConfig, fields: Any) -> Any:
    import torch
    from transformers import AutoModelForImageClassification

    try:
        return AutoModelForImageClassification.from_pretrained(
            str(_folder(config)),
            config=fields,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        raise _not_built(config, error) from error


@contextmanager
def _silent() -> Iterator[None]:
    """Without the table of transformers about what does not fit: the log has it in lines of its own."""
    from transformers.utils import logging

    level, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()


def exported(config: TransformersImageModelConfig) -> TransformersImageModelConfig:
    """The config that builds the same model without the folder."""
    if config.path is None:
        return config
    fields = {**read_config(str(_folder(config))), **config.config}
    left_out = ("model_type", "architectures", *DTYPES, *OF_THE_DATA)
    kept = {name: value for name, value in without_code(fields).items() if name not in left_out}
    return TransformersImageModelConfig(name=fields["model_type"], config=kept)


def _folder(config: TransformersImageModelConfig) -> Path:
    assert config.path is not None
    return Path(config.path).expanduser() if names_a_file(config, "path") else hub_folder(config.path, PLACE)


def _not_built(config: TransformersImageModelConfig, error: Exception) -> JobError:
    place, shown = (PLACE, config.path) if config.path else ("model.name", config.name)
    text = plain_reason(error)
    if "trust_remote_code" in text:
        text = "it needs code that comes with it, which is not run; use a model that transformers has itself"
    return JobError.at(place, f"transformers cannot build {shown!r}: {text}")


def _fit_of(model: Any, found: dict[str, Any]) -> Fit:
    """transformers names what does not fit; the head is what has the wrong number of classes, or is missing as a whole."""
    names = [name for name, _ in model.model.named_parameters()]
    missing = {name for name in found["missing_keys"] if name in names}
    odd = {entry[0] if isinstance(entry, tuple) else entry for entry in found["mismatched_keys"]}
    base = model.model.base_model_prefix
    head = {name for name in missing | odd if not name.startswith(f"{base}.")}
    return Fit(
        taken=tuple(name for name in names if name not in missing | odd),
        head=tuple(sorted(head)),
        missing=tuple(sorted(missing - head - odd)),
        odd=tuple(sorted(odd - head)),
        left_over=tuple(sorted(found["unexpected_keys"])),
    )


def _keys_of_processor(folder: Path) -> dict[str, Any]:
    """Keys of the data that do what the image processor in a folder does."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise JobError.at(PLACE, f"the image processor of {folder} cannot be read: {plain_reason(error)}") from error
    side, length, is_squashed = _sizes_of(processor)
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0  # of values from 0 to 1
    shift = 1.0 if getattr(processor, "rescale_offset", None) else 0.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    return {
        "image_size": side,
        "crop_share": min(1.0, side / length),
        "squash": is_squashed,
        "interpolation": RESAMPLING.get(int(processor.resample), "bicubic"),
        "mean": [(value + shift) / scale for value in mean],
        "std": [value / scale for value in std],
    }


def _sizes_of(processor: Any) -> tuple[int, int, bool]:
    """The side of the square that is cut out, the length of the shorter side before, and whether both have that length."""
    size, crop = processor.size, processor.crop_size
    length = size.shortest_edge or size.height or size.longest_edge or IMAGE_SIZE
    if getattr(processor, "do_center_crop", False) and crop is not None:
        return crop.height or crop.shortest_edge or length, length, bool(size.height)
    crop_share = getattr(processor, "crop_pct", None)
    if crop_share and size.shortest_edge and size.shortest_edge < 384:  # ConvNeXT's: larger images are squashed
        return length, int(length / crop_share), False
    return length, length, True


def _module_class() -> Any:
    """The module that transformers' model is in: what it returns are logits, as of other models."""
    from torch import Tensor, nn

    class ImageClassifier(nn.Module):
        def __init__(self, model: Any, *, is_interpolated: bool) -> None:
            super().__init__()
            self.model = model
            self.options = {"interpolate_pos_encoding": True} if is_interpolated else {}

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.model(pixel_values=images, **self.options).logits
            return logits

    return ImageClassifier
