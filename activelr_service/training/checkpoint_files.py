"""The files of a checkpoint: ``model.safetensors``, ``optimizer.safetensors``, ``tables.safetensors`` if the task counts
tables, ``state.json`` and, written last, ``manifest.json`` with the SHA-256 of the others. Nothing is pickled, and hashes
are checked before anything is parsed."""

import hashlib
import json
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model
from torch import Tensor, nn

from activelr_service.optim import ActiveOptimizer
from activelr_service.runs.files import sync
from activelr_service.runs.record import Record
from activelr_service.training import distributed
from activelr_service.training.batch_size.choice import BatchSizeChoice
from activelr_service.training.build import TrainContext
from activelr_service.training.running_epoch import Part
from activelr_service.training.tensor_file import Described, write_file, write_model, write_tensors

MANIFEST, TABLES = "manifest.json", "tables.safetensors"


def save_checkpoint(
    folder: Path,
    training: TrainContext,
    record: Record | None,
    batch_size: BatchSizeChoice | None = None,
    parts: list[Part] | None = None,
) -> None:
    """Write the files into ``folder``, which exists and is empty; ``batch_size`` if the job gave none.

    ``record`` is that of the last epoch that has ended. ``parts``, one of each rank, are given within an epoch.
    """
    model, optimizer = training.model, training.optimizer
    files = {
        "model.safetensors": write_model(folder / "model.safetensors", model),
        "optimizer.safetensors": write_tensors(folder / "optimizer.safetensors", dict(_saved_state(model, optimizer))),
    }
    if training.tables and parts is None:
        files[TABLES] = write_tensors(folder / TABLES, training.tables)
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    numbers = {name: value for name, value in _optimizer_state(model, optimizer) if not isinstance(value, Tensor)}
    progress = training.progress.state_dict(within_epoch=parts is not None)
    state: dict[str, Any] = {"param_groups": groups, "numbers": numbers, "progress": progress}
    state["record"] = None if record is None else record.to_json()
    if parts is not None:
        state["parts"] = parts
    files["state.json"] = write_file(folder / "state.json", [json.dumps(state).encode()])
    _write_manifest(folder, files, 0 if record is None else record.epoch, batch_size)


def _write_manifest(folder: Path, files: dict[str, Described], epoch: int, batch_size: BatchSizeChoice | None) -> None:
    """Written last, so that a checkpoint with a manifest is complete. ``epoch`` is the last one that has ended."""
    manifest = {
        "epoch": epoch,
        "world_size": distributed.world_size(),
        "batch_size": None if batch_size is None else batch_size.to_json(),
        "versions": {
            "activelr_service": version("activelr-service"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "files": dict(sorted(files.items())),
    }
    write_file(folder / MANIFEST, [json.dumps(manifest, indent=1).encode()])
    sync(folder)


def load_checkpoint(folder: Path, training: TrainContext, history: list[Record]) -> Part | None:
    """Load a verified checkpoint into ``training``, in place; ``history`` ends with the record of the last epoch that has
    ended. Returns what the checkpoint keeps of this rank within an epoch; None if it ends one."""
    state = load_weights(folder, training)
    training.progress.restore(history, state.get("progress", {}))
    return state["parts"][distributed.rank()] if "parts" in state else None


def load_weights(folder: Path, training: TrainContext) -> dict[str, Any]:
    """Load the model and the optimizer of a verified checkpoint, in place, and nothing else; returns its ``state.json``."""
    device = next(training.model.parameters()).device
    load_model(training.model, str(folder / "model.safetensors"), device=str(device))
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    values = {**load_file(str(folder / "optimizer.safetensors")), **state.get("numbers", {})}
    _load_optimizer(training.optimizer, training.model, values, state["param_groups"])
    return state


def load_tables(folder: Path) -> dict[str, Tensor]:
    """The tables of counts in a verified checkpoint, by name; none in those of older versions."""
    return load_file(str(folder / TABLES)) if (folder / TABLES).exists() else {}


def read_sha256(folder: Path, name: str) -> str:
    """The SHA-256 of a file of a verified checkpoint."""
    sha256: str = json.loads((folder / MANIFEST).read_text())["files"][name]["sha256"]
    return sha256


def verify(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None. Hashes are checked before anything is parsed."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        for name, described in files.items():
            if _describe(folder / name) != described:
                return f"{name}: size or SHA-256 differs from the manifest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} or a file it names cannot be read: {error}"
    return None


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every weight, buffer and optimizer tensor by name, in an order that is the same on every rank."""
    states = _optimizer_state(model, optimizer)
    named = {f"optimizer.{name}": value for name, value in states if isinstance(value, Tensor)}
    return {**{f"model.{name}": tensor for name, tensor in model.state_dict().items()}, **named}


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Any]]:
    for name, param in model.named_parameters():
        for key, value in sorted(optimizer.state.get(param, {}).items()):
            yield f"{name}/{key}", value


def _saved_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """All tensors of the optimizer, without the gradient sums where they have just begun and are all zero."""
    are_zero = isinstance(optimizer, ActiveOptimizer) and optimizer.steps_in_sum() == 0
    items = ((name, value) for name, value in _optimizer_state(model, optimizer) if isinstance(value, Tensor))
    return (item for item in items if not (are_zero and item[0].endswith("/grad_sum")))


def _load_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, values: dict[str, Any], groups: list[dict[str, Any]]
) -> None:
    by_name: dict[str, dict[str, Any]] = {}
    named = dict(model.named_parameters())
    for path, value in values.items():
        name, _, key = path.rpartition("/")
        kept = _laid_out_as(named[name], value) if isinstance(value, Tensor) and name in named else value
        by_name.setdefault(name, {})[key] = kept
    names = {id(param): name for name, param in model.named_parameters()}
    params = [param for group in optimizer.param_groups for param in group["params"]]
    states = {index: by_name[names[id(param)]] for index, param in enumerate(params) if names[id(param)] in by_name}
    indices = iter(range(len(params)))
    counted = [
        {**saved, "params": [next(indices) for _ in group["params"]]}
        for saved, group in zip(groups, optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": states, "param_groups": counted})


def _laid_out_as(param: Tensor, value: Tensor) -> Tensor:
    """A copy, since load_file only maps the file, which may go. It has the memory format of its parameter, such as channels
    last, as when the optimizer made it: the last bits of sums depend on it."""
    if value.shape != param.shape:
        return value.clone()
    return torch.empty_like(param, dtype=value.dtype, device=value.device).copy_(value)


def _describe(path: Path) -> Described:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
