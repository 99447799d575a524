"""Checkpoints at the end of an epoch: committed whole or not at all, verified before they are read.

A checkpoint is a folder ``epoch-NNNNNN`` with ``model.safetensors``, ``optimizer.safetensors``, ``state.json`` and, last,
``manifest.json`` with the SHA-256 of the others; it appears under its name by one rename. Nothing is pickled.
"""

import hashlib
import itertools
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from activelr_service.config.task import metrics_of_task
from activelr_service.errors import CheckpointError
from activelr_service.optim import ActiveOptimizer
from activelr_service.runs.fence import Fence
from activelr_service.runs.files import sync
from activelr_service.runs.journal import append_journal, salvage_journal, write_journal
from activelr_service.runs.record import Record, best_epoch
from activelr_service.training import distributed
from activelr_service.training.batch_size.choice import BatchSizeChoice
from activelr_service.training.build import TrainContext

MANIFEST = "manifest.json"
LATEST_KEPT = 2


class CheckpointStore:
    """The checkpoints of one run, and the journal that lists its committed epochs. All ranks share the folder.

    With a ``fence`` only the newest attempt writes: an older one raises
    :class:`~activelr_service.runs.fence.SupersededError` and changes nothing.
    """

    def __init__(
        self,
        folder: Path,
        journal: Path,
        say: Callable[[str], None],
        batch_size: BatchSizeChoice | None = None,
        fence: Fence | None = None,
    ) -> None:
        self.folder = folder
        self.journal = journal
        self.say = say
        self.batch_size = batch_size
        self.fence = fence

    def commit(self, training: TrainContext, history: list[Record]) -> None:
        """Write the checkpoint of the last record's epoch; when any rank returns, it is on disk."""
        if distributed.rank() == 0:
            epoch = history[-1].epoch
            temporary = self._write(training, history[-1])
            metrics = metrics_of_task(training.job.task)
            best = best_epoch(history, metrics.score, metrics.higher_is_better)
            with self._alone():
                self._place(temporary, epoch)
                append_journal(self.journal, history[-1])
                self._prune({best, *range(epoch - LATEST_KEPT + 1, epoch + 1)})
        distributed.barrier()

    def restore(self, training: TrainContext) -> list[Record]:
        """Load the latest checkpoint that verifies into ``training``; returns its history, empty if there is none.

        One that does not verify is set aside as ``*.corrupt``; if none is left, :class:`CheckpointError` says why.
        """
        found = self.find_valid() if distributed.rank() == 0 else 0
        epoch = distributed.broadcast_int(found, training.device)
        if epoch < 0:
            raise CheckpointError(f"no valid checkpoint in {self.folder}; restore it, or start a new run")
        history = self.history(epoch)
        if history:
            load_checkpoint(self.path(epoch), training, history)
        distributed.barrier()  # no rank may replace the journal before all have read it
        if distributed.rank() == 0:
            with self._alone():
                write_journal(self.journal, history)
        distributed.barrier()
        return history

    def find_valid(self) -> int:
        """The latest epoch whose checkpoint verifies; 0 if no epoch was ever committed, -1 if none of them is left."""
        epochs = sorted(self.epochs(), reverse=True)
        for epoch in epochs:
            problem = verify(self.path(epoch))
            if problem is None:
                return epoch
            self.say(f"checkpoint {self.path(epoch)} is set aside: {problem}")
            with self._alone():
                os.replace(self.path(epoch), self._unused_name(epoch))
        is_lost = epochs or any(self.folder.glob("*.corrupt*")) or salvage_journal(self.journal)
        return -1 if is_lost else 0

    def history(self, epoch: int) -> list[Record]:
        """The records of the epochs up to ``epoch``, whose checkpoint is valid: its own record is in the checkpoint, those
        before it are in the journal. Lines of the journal that cannot be read are left out, and said."""
        if epoch == 0:
            return []
        state = json.loads((self.path(epoch) / "state.json").read_text())
        if "history" in state:  # checkpoints of version 0.1.0 hold all records
            return [Record.from_json(record) for record in state["history"]]
        before = [record for record in salvage_journal(self.journal) if record.epoch < epoch]
        if len(before) < epoch - 1 and distributed.rank() == 0:
            self.say(
                f"the metrics of {epoch - 1 - len(before)} epochs are lost: their lines in {self.journal} are damaged"
            )
        return [*before, Record.from_json(state["record"])]

    def epochs(self) -> list[int]:
        found = (re.fullmatch(r"epoch-(\d{6,})", path.name) for path in self.folder.glob("epoch-*"))
        return [int(match[1]) for match in found if match]

    def path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:06d}"

    def _alone(self) -> AbstractContextManager[None]:
        return self.fence.held() if self.fence else nullcontext()

    def _write(self, training: TrainContext, record: Record) -> Path:
        temporary = self.folder / f".epoch-{record.epoch:06d}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            save_checkpoint(temporary, training, record, self.batch_size)
        except Exception:
            shutil.rmtree(temporary, ignore_errors=True)  # a full disk: what is left of it would stay in the way
            raise
        return temporary

    def _place(self, temporary: Path, epoch: int) -> None:
        final = self.path(epoch)
        if final.exists():  # another attempt left it, and it was not restored from
            os.replace(final, self._unused_name(epoch))
        os.rename(temporary, final)
        sync(self.folder)

    def _unused_name(self, epoch: int) -> Path:
        """Where a checkpoint that is not to be read again goes."""
        name = f"{self.path(epoch)}.corrupt"
        numbered = (Path(f"{name}-{number}") for number in itertools.count(2))
        return next(path for path in itertools.chain([Path(name)], numbered) if not path.exists())

    def _prune(self, keep: set[int]) -> None:
        for epoch in self.epochs():
            if epoch not in keep:
                shutil.rmtree(self.path(epoch))
        for leftover in self.folder.glob(".epoch-*"):
            shutil.rmtree(leftover)


def save_checkpoint(
    folder: Path, training: TrainContext, record: Record, batch_size: BatchSizeChoice | None = None
) -> None:
    """Write the four files into ``folder``, which exists and is empty; ``batch_size`` if the job gave none."""
    model, optimizer = training.model, training.optimizer
    tensors = {name: tensor.contiguous() for name, tensor in _saved_state(model, optimizer)}
    try:
        save_model(model, str(folder / "model.safetensors"))
        save_file(tensors, str(folder / "optimizer.safetensors"))
    except SafetensorError as error:  # its own name for what the system says, such as a full disk
        raise OSError(f"{folder} cannot be written: {error}") from error
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    numbers = {name: value for name, value in _optimizer_state(model, optimizer) if not isinstance(value, Tensor)}
    progress = training.progress.state_dict()
    state = {"param_groups": groups, "numbers": numbers, "record": record.to_json(), "progress": progress}
    (folder / "state.json").write_text(json.dumps(state))
    for path in folder.iterdir():
        sync(path)
    manifest = {
        "epoch": record.epoch,
        "world_size": distributed.world_size(),
        "batch_size": None if batch_size is None else batch_size.to_json(),
        "versions": {
            "activelr_service": version("activelr-service"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "files": {path.name: _describe(path) for path in sorted(folder.iterdir())},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    sync(folder / MANIFEST)
    sync(folder)


def load_checkpoint(folder: Path, training: TrainContext, history: list[Record]) -> None:
    """Load a verified checkpoint into ``training``, in place; ``history`` ends with the record of its epoch."""
    device = next(training.model.parameters()).device
    load_model(training.model, str(folder / "model.safetensors"), device=str(device))
    state = json.loads((folder / "state.json").read_text())
    values = {**load_file(str(folder / "optimizer.safetensors")), **state.get("numbers", {})}
    _load_optimizer(training.optimizer, training.model, values, state["param_groups"])
    training.progress.restore(history, state.get("progress", {}))


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


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
