"""Models of timm (PyTorch Image Models, Wightman 2019), from random or from pretrained weights."""

import sys
from pathlib import Path
from typing import Any

from activelr_service.config.base import did_you_mean
from activelr_service.config.model import TimmModelConfig
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.models.downloads import hub_file, torch_file
from activelr_service.models.pretrained import (
    Fit,
    ImageKeys,
    check_fit,
    check_images,
    head_names,
    keys_of_export,
    load_fitting,
    plain_reason,
    read_weights,
)

PLACE = "model.pretrained"
HUB_NAMES = ("model.safetensors", "pytorch_model.bin")  # as timm names its files on the Hugging Face Hub
OUR_ARGS = ("num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "scriptable")


def check(config: TimmModelConfig, info: DataInfo, precision: str) -> None:
    """Raise :class:`JobError` for arguments that are set from the data, and for other shapes of images."""
    for name in OUR_ARGS:
        if name in config.args:
            raise JobError.at(f"model.args.{name}", "is set from the data and from model.pretrained; leave it out")
    check_images(f"timm's {config.name}", info)


def build(config: TimmModelConfig, info: DataInfo, num_outputs: int | None) -> Any:
    """Make the model with random weights. One that has a fixed size of images is made for theirs."""
    import timm

    args = {**config.args, "num_classes": num_outputs}
    if _settings(config).fixed_input_size:
        args.setdefault("img_size", info.input_shape[-1])
    try:
        model = timm.create_model(config.name, pretrained=False, **args)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise JobError.at("model.args", f"{config.name}: {plain_reason(error)}") from error
    model.built_with = args  # a second one is built to load timm's own weights
    return model


def fetch_weights(config: TimmModelConfig) -> ImageKeys | None:
    """Download the weights unless they are here, and return how they want their images; None without weights.

    Raises :class:`JobError` if they are not here and cannot be downloaded.
    """
    if not config.pretrained:
        return None
    from timm.data import resolve_data_config

    settings = _settings(config)
    if config.pretrained is True:
        _published_file(config)
    elif not Path(config.pretrained).expanduser().is_file():
        raise JobError.at(PLACE, f"no such file: {config.pretrained}; true stands for the weights of timm")
    elif (keys := keys_of_export(config.pretrained)) is not None:
        return keys
    found = resolve_data_config(pretrained_cfg=settings.to_dict())
    side = found["input_size"][-1]
    interpolation = found["interpolation"]
    values = {
        "image_size": side,
        "crop_share": side / int(side / found["crop_pct"]),  # timm cuts the longer length to an integer
        "squash": found["crop_mode"] == "squash",
        "interpolation": interpolation if interpolation in ("nearest", "bilinear", "lanczos") else "bicubic",
        "mean": list(found["mean"]),
        "std": list(found["std"]),
    }
    source = f"for timm's weights of {config.name}"
    if found["crop_mode"] == "border":
        source += "; timm adds borders to their images, and here the center is cropped"
    return ImageKeys(values, source if config.pretrained is True else f"assumed, as {source}")


def load_weights(model: Any, config: TimmModelConfig) -> Fit | None:
    """Load the weights that the config names, if it names any; into a model on the meta device nothing is loaded.

    timm's own weights are loaded by timm, which converts older formats and interpolates position embeddings. Those of a
    file are converted by the function that timm has for this, too. Raises :class:`JobError` for weights that cannot be read
    or belong to another model.
    """
    if not config.pretrained:
        return None
    head = head_names(model, _as_list(model.get_classifier()))
    if config.pretrained is True:
        return load_fitting(model, _weights_of_timm(model, config), head)
    wanted = f"timm's {config.name}"
    weights = read_weights(str(Path(config.pretrained).expanduser()), PLACE, wanted)
    fit = load_fitting(model, _converted(model, weights), head)
    check_fit(fit, PLACE, config.pretrained, wanted)
    return fit


def exported(config: TimmModelConfig) -> TimmModelConfig:
    """The config that builds the same module without the weights."""
    return config.model_copy(update={"pretrained": False})


def _settings(config: TimmModelConfig) -> Any:
    """What timm knows of a model and its weights. Raises :class:`JobError` for a name that timm does not have."""
    import timm

    name, _, tag = config.name.partition(".")
    if not timm.is_model(name):
        hint = did_you_mean(config.name, timm.list_models(), "see timm.list_models()")
        raise JobError.at("model.name", f"timm has no model {config.name!r}; {hint}")
    try:
        return timm.get_pretrained_cfg(config.name, allow_unregistered=not tag)
    except RuntimeError as error:
        tags = timm.list_pretrained(f"{name}.*")
        hint = did_you_mean(config.name, tags, f"it has {', '.join(tags[:5]) or 'none'}", cutoff=0.3)
        raise JobError.at("model.name", f"timm has no weights {tag!r} of {name}; {hint}") from error


def _published_file(config: TimmModelConfig) -> Path:
    settings = _settings(config)
    if settings.hf_hub_id:
        names = (settings.hf_hub_filename,) if settings.hf_hub_filename else HUB_NAMES
        return hub_file(settings.hf_hub_id, names, PLACE)
    if settings.url:
        return torch_file(settings.url, PLACE)
    raise JobError.at(PLACE, f"timm has no weights of {config.name}; give the path of a file, or false")


def _weights_of_timm(model: Any, config: TimmModelConfig) -> dict[str, Any]:
    """The weights as timm loads them into a second model, without those of a head that timm replaced by a random one."""
    import timm

    overlay = {"file": str(_published_file(config))}
    try:
        loaded = timm.create_model(config.name, pretrained=True, pretrained_cfg_overlay=overlay, **model.built_with)
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise JobError.at(PLACE, f"timm cannot load the weights of {config.name}: {plain_reason(error)}") from error
    heads = tuple(f"{name}." for name in _as_list(loaded.pretrained_cfg["classifier"]))
    has_new_head = loaded.num_classes != loaded.pretrained_cfg["num_classes"]
    return {name: value for name, value in loaded.state_dict().items() if not (has_new_head and name.startswith(heads))}


def _converted(model: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """The weights in the format of the model, if its module in timm converts others, as most do."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return weights
    try:
        return dict(convert(dict(weights), model))
    except (KeyError, RuntimeError, ValueError, AttributeError, TypeError, AssertionError, IndexError):
        return weights  # of another model: what does not fit is said


def _as_list(head: Any) -> list[Any]:
    return list(head) if isinstance(head, tuple | list) else [head]
