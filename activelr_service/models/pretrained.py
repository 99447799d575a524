"""What all pretrained starts share: reading a file of weights, what of it fits a model, and how its images are prepared."""

import json
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from activelr_service.data.info import DataInfo, shorten
from activelr_service.errors import JobError

# Keys under which checkpoints of training programs hold weights.
CONTAINERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")  # that DistributedDataParallel, torch.compile and others put before all
IMAGE_KEYS = ("image_size", "crop_share", "squash", "interpolation", "mean", "std")  # of data
NAMES_SHOWN = 40
COUNTERS = "num_batches_tracked"  # of batch norms: older files lack them, and nothing depends on them here


class ImageKeys(NamedTuple):
    """How weights want their images: values for keys of the data, and where they come from."""

    values: dict[str, Any]
    source: str


def keys_of_export(path: str) -> ImageKeys | None:
    """How a model that this package exported wants its images, if ``path`` is the file of its weights: its recipe, which
    lies beside, says it. None for any other file."""
    try:
        inputs = json.loads(Path(path).expanduser().with_name("recipe.json").read_text())["inputs"]
        values = {name: inputs[name] for name in IMAGE_KEYS if inputs.get(name) is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return ImageKeys(values, f"as the model in {Path(path).parent} was trained") if "image_size" in values else None


class Fit(NamedTuple):
    """What of a file's weights a model took over. Each field holds names of tensors: parameters, and statistics of norms.

    ``head``: those of the new head. ``missing``: others that are not in the file and stay random. ``odd``: those that the
    file has in another shape, or as NaN; they stay random, too. ``left_over``: those that only the file has.
    """

    taken: tuple[str, ...]
    head: tuple[str, ...]
    missing: tuple[str, ...]
    odd: tuple[str, ...]
    left_over: tuple[str, ...]

    def describe(self) -> str:
        """How many tensors were taken over, and what became of the head, in one line."""
        total = len(self.taken) + len(self.head) + len(self.missing) + len(self.odd)
        new = f"new, with random weights: {shorten(self.head)}"
        return f"{len(self.taken)} of {total} tensors are taken over; {new if self.head else 'the head is among them'}"

    def warnings(self, source: str) -> list[str]:
        """A line for each kind of tensors that do not fit."""
        cases = (
            (self.missing, f"not in {source}, so that they start from random weights"),
            (self.odd, f"in another shape in {source}, or NaN, so that they start from random weights"),
            (self.left_over, f"only in {source}, and left out"),
        )
        return [f"{text} ({len(names)} tensors): {shorten(names, NAMES_SHOWN)}" for names, text in cases if names]


def read_weights(path: str, place: str, wanted: str) -> dict[str, Any]:
    """The state dict in a .safetensors file or a file of ``torch.save``. Nothing in it is executed.

    ``wanted`` says what the file should hold, ``place`` which key of the job names it. Raises :class:`JobError` with both
    if it cannot be read.
    """
    import torch
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise JobError.at(place, f"no such file: {path}")
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        text = f"{path} cannot be read as weights: {reason}; torch.save(model.state_dict(), FILE) writes such a file"
        raise JobError.at(place, text) from error
    for key in CONTAINERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict):
        raise JobError.at(place, f"{path} is no state dict of {wanted}: it holds a {type(found).__name__}")
    weights = OrderedDict((name, value) for name, value in found.items() if isinstance(value, torch.Tensor))
    if not weights:
        raise JobError.at(place, f"{path} is no state dict of {wanted}: it holds no tensors")
    return _without_prefix(weights, getattr(found, "_metadata", None))


def _without_prefix(weights: Any, metadata: Any) -> Any:
    """The weights without a prefix that all names have. Without one they keep the versions of the modules, for torch."""
    names = list(weights)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in names):
            names = [name.removeprefix(prefix) for name in names]
    plain: Any = OrderedDict(zip(names, weights.values(), strict=True))
    if metadata is not None and names == list(weights):
        plain._metadata = metadata
    return plain


def load_fitting(model: Any, weights: dict[str, Any], head: Iterable[str]) -> Fit:
    """Load the weights that fit into ``model``, by name and shape. ``head`` names the parameters of its head."""
    import torch

    own, heads = model.state_dict(), set(head)
    odd = {name for name, tensor in weights.items() if name in own and not _fits(tensor, own[name])}
    kept: Any = OrderedDict((name, tensor) for name, tensor in weights.items() if name not in odd)
    kept._metadata = getattr(weights, "_metadata", None) or own._metadata
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # on the meta device nothing is copied, which torch warns of
        result = model.load_state_dict(kept, strict=False)
    new = {name for name in result.missing_keys if not name.endswith(COUNTERS)}
    return Fit(
        taken=tuple(name for name in own if name not in new and not name.endswith(COUNTERS)),
        head=tuple(name for name in own if name in new & heads),
        missing=tuple(name for name in own if name in new - heads - odd),
        odd=tuple(name for name in own if name in (new & odd) - heads),
        left_over=tuple(name for name in result.unexpected_keys if not name.endswith(COUNTERS)),
    )


def _fits(tensor: Any, own: Any) -> bool:
    """Whether the tensor has the shape of the model's, and numbers. Some files of torchvision hold NaN for their heads."""
    if tensor.shape != own.shape:
        return False
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def check_fit(fit: Fit, place: str, source: str, wanted: str) -> None:
    """Raise :class:`JobError` if fewer than half of the model's tensors, without its head, are in the file."""
    others = len(fit.missing) + len(fit.odd)
    if len(fit.taken) < others:
        example = [*fit.missing, *fit.odd][0]
        has = f", and the file has {fit.left_over[0]}" if fit.left_over else ""
        total = others + len(fit.taken)
        found = f"{others} of {total} tensors are missing or have another shape, such as {example}{has}"
        raise JobError.at(place, f"{source} does not fit {wanted}: {found}; give the weights of this model")


def head_names(model: Any, head: Any = None) -> list[str]:
    """The names of the parameters of the modules ``head``; None stands for the last dense layer or convolution."""
    from torch import nn

    if head is None:
        head = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1:]
    parts = {part for module in head for part in module.modules()}
    return [
        f"{prefix}.{name}".removeprefix(".")
        for prefix, module in model.named_modules()
        if module in parts
        for name, _ in module.named_parameters(recurse=False)
    ]


def check_images(model: str, info: DataInfo) -> None:
    """Raise :class:`JobError` unless the samples are images of shape (3, height, width). ``model`` names what needs them."""
    shape = info.input_shape
    if len(shape) == 3 and shape[0] == 3:
        return
    text = f"{model} takes images of shape (3, height, width), and these samples have shape {shape}"
    if len(shape) < 2 or len(shape) > 4:
        raise JobError.at("model.type", f"{text}; use model: {{type: mlp}}")
    channels = "; repeat the gray channel three times" if len(shape) == 2 or 1 in (shape[0], shape[-1]) else ""
    hint = f"store x as (rows, 3, height, width){channels}, or use model: {{type: mlp}}"
    raise JobError.at("model.type", f"{text}; {hint}")


def plain_reason(error: BaseException) -> str:
    """The text of another library's error in one short line."""
    return re.sub(r"\s+", " ", str(error)).strip()[:300] or type(error).__name__
